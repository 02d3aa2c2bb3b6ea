"""Evaluate a run: samples of the averaged generator, their scores, and the lines that say so."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ganbench import randomness
from ganbench.datasets import Data, concatenate, to_dataset_format, to_float
from ganbench.errors import Diverged
from ganbench.metrics.scores import explain_non_finite
from ganbench.models.layers import eval_mode
from ganbench.penalties import input_gradient_norm
from ganbench.training.players import Players


def relative_std(fake: Tensor, real: Tensor, n: int = 1000) -> float:
    """The mean over coordinates of the standard deviation between samples, over that of reals; of the first n of each.

    Near 1 for a good generator, 0 for one that makes the same of every z; not finite for reals that are all the same.
    """
    of_fake, of_real = (to_float(x[:n]).flatten(1).std(0).mean() for x in (fake, real))
    return float(of_fake / of_real)


@torch.no_grad()
def sample(G: nn.Module, n: int, z_dim: int, seed: int, device: torch.device, stream: str = "z_eval") -> Tensor:
    """n samples as the dataset would store them, of the same z at every call, from G in evaluation mode."""
    sizes = [min(250, n - first) for first in range(0, n, 250)]
    with eval_mode(G):
        return concatenate(
            n,
            (to_checked_format(G(randomness.normal((m, z_dim), seed, stream, i, device))) for i, m in enumerate(sizes)),
        )


def to_checked_format(x: Tensor) -> Tensor:
    """Generated samples as the dataset would store them. Raises Diverged where they are not finite."""
    if not x.isfinite().all():
        raise Diverged("generated samples are not finite", "samples", float(x[~x.isfinite()][0]), "generator")
    return to_dataset_format(x)


def evaluate(
    metric: Callable[[Tensor], dict], draw: Callable[..., Tensor], players: Players, data: Data
) -> dict[str, float | str | None]:
    """Scores and spread of the averaged generator, and the critic's mean slopes."""
    fake = draw(players.average, n=metric.n_fake)
    with eval_mode(players.D):
        slopes = {
            f"d_slope_{name}": input_gradient_norm(players.D, to_float(x[:256])).detach().mean().item()
            for name, x in (("real", data.train), ("fake", fake))
        }
    return explain_non_finite(metric(fake)) | slopes | {"g_spread": relative_std(fake, data.train)}


def evaluate_raw(
    metric: Callable[[Tensor], dict], draw: Callable[..., Tensor], G: nn.Module
) -> dict[str, float | str | None]:
    """The scores of the generator itself, `…_raw`: what averaging has brought."""
    scores = explain_non_finite(metric(draw(G, n=metric.n_fake)))
    return {f"{name}_raw": value for name, value in scores.items() if name != "histogram"}


def progress_line(images: int, total: int, name: str, scores: dict[str, Any], losses: dict[str, float]) -> str:
    parts = [f"{images:>9,}/{total:,} images", f"{name} {format_score(scores[name])}"]
    parts += [f"(raw {format_score(scores[key])})" for key in (f"{name}_raw",) if key in scores]
    parts += [f"{who} {losses[who]:.3f}" for who in ("d_loss", "g_loss") if who in losses]
    return "  ".join(parts + [f"{losses[k]:,.0f} images/s" for k in losses if k == "t_images_per_second"])


def final_line(scores: dict[str, Any], floor: dict[str, Any]) -> str:
    """The last scores, each with what real data get in brackets; where there is none, why."""
    told = [k for k in floor if k in scores and not (k.endswith("_why") or k == "histogram")]
    parts = [f"{k} {score_or_reason(scores, k)} ({score_or_reason(floor, k)})" for k in told]
    return "at the end (in brackets: real data)  " + "  ".join(parts)


def score_or_reason(scores: dict[str, Any], name: str) -> str:
    why = scores.get(f"{name}_why")
    return format_score(scores[name]) + (f": {why}" if why else "")


def format_score(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
