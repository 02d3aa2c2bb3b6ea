"""Markdown tables of closed forms. Needs no torch."""

from ganbench.theory import GENERATOR_GRADIENT

LOSSES = ("minimax", "gan", "lsgan", "rpgan", "wgan")
DISTANCES = (1, 2, 4, 6)


def generator_gradient_table() -> str:
    """Return |dL_G/dtheta| at the optimal critic, for real N(0, 1) and fake N(theta, 1)."""
    lines = [f"| θ | {' | '.join(LOSSES)} |", f"| --- |{' --- |' * len(LOSSES)}"]
    for theta in DISTANCES:
        cells = [f"{GENERATOR_GRADIENT[loss](theta):.3g}" for loss in LOSSES]
        lines.append(f"| {theta} | {' | '.join(cells)} |")
    return "\n".join(lines)
