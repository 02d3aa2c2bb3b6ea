"""Checks of whole training runs whose course is known: the Wasserstein critic in one dimension, and the Dirac-GAN."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import integrate
from torch import Tensor, nn

from ganbench.conformance.checks import Checks, check_close, run_checks, seeded_rng
from ganbench.conformance.descent import descending
from ganbench.conformance.losses import samples
from ganbench.conformance.penalties import VALUES
from ganbench.interfaces import Loss, Penalty
from ganbench.theory import NormalPair
from ganbench.training.batches import CriticBatch, GeneratorBatch
from ganbench.training.updates import Objective, critic_update, generator_update

MakePenalty = Callable[[float], Penalty]  # from its weight


def check(
    loss_name: str, penalty_name: str, loss: Loss, make_penalty: MakePenalty,
    loss_settings: dict[str, Any], clip: float = math.inf,
) -> Checks:  # fmt: skip
    """Check the training runs of a known loss with a known penalty; `clip` is the bound of weight clipping.

    Least squares with targets far apart are left out: a path of such large steps follows no theory.
    """
    method = f"{loss_name}-{penalty_name}"
    checks: list[Callable[[], Checks]] = []
    if loss_name in DERIVATIVES and penalty_name in VALUES and not _is_steep(loss_settings):
        game = DiracGame(
            loss_name, penalty_name, loss, make_penalty,
            derivatives=DERIVATIVES[loss_name](loss_settings),
            weight=0.0 if penalty_name in ("none", "clip") else 1.0,
            clip=clip,
        )  # fmt: skip
        checks.append(partial(dirac_gan, game))
    if (loss_name, penalty_name) == ("wgan", "gp"):
        checks.append(partial(_distant_equilibrium, loss, make_penalty))
    if loss_name == "wgan" and penalty_name in ("gp", "lp", "zero_centered"):
        checks.append(partial(wasserstein_critic, penalty_name, loss, make_penalty))
    yield from run_checks("dynamics", method, checks)


def _is_steep(loss_settings: dict[str, Any]) -> bool:
    if "scale" not in loss_settings:
        return False
    return loss_settings["scale"] * max(1, abs(loss_settings["b"] - loss_settings["a"]) / 2) > 1


# --- The Wasserstein critic on the line -------------------------------------------------------------------------------

N_SAMPLES = 10_000
N_PIECES = 80
STEPS_OF_CRITIC = {"gp": 200, "lp": 200, "zero_centered": 300}


def wasserstein_critic(penalty_name: str, loss: Loss, make_penalty: MakePenalty) -> Checks:
    """Compare the optimal critic under a penalty on the line with the calculus of variations.

    With h = F_p - F_q and r the density of the penalized points, D's slope s minimizes -|h| s + weight * r * P(s)
    at each x. For gp and lp |s| = 1 + |h| / (2 weight r), for zero_centered |h| / (2 weight r). So E D(x) - E D(G(z))
    comes to W1 (or 0) plus an excess, and D's loss and penalty together to minus W1 (or 0) and half of it.
    """
    close = partial(check_close, "Wasserstein critic", f"wgan-{penalty_name}")
    steps = STEPS_OF_CRITIC[penalty_name]
    for mean, std, weight in ((1, 1, 10.0), (2, 1, 10.0), (4, 1, 10.0), (0, 2, 10.0), (2, 1, 1.0)):
        pair = NormalPair(mean, std)
        D, total = _train_critic(loss, make_penalty(weight), pair, partial(_right_signs, pair), steps)
        distance = 0.0 if penalty_name == "zero_centered" else _w1(pair)
        excess = _excess(pair, weight)
        setting = f"N(0,1) vs. {pair.name}, weight {weight:g}"
        yield close(f"E D(x) - E D(G(z)), {setting}", _estimate(D, pair), distance + excess, rel=0.02)
        yield close(f"minimum of D's loss + penalty, {setting}", -total, distance + excess / 2, rel=0.02)
    yield from _from_wrong_signs(penalty_name, loss, make_penalty(10.0))
    yield from _equal_distributions(penalty_name, loss, make_penalty(10.0))


def _from_wrong_signs(penalty_name: str, loss: Loss, penalty: Penalty) -> Checks:
    """Start from slopes of the wrong sign: the two-sided penalty has a minimum at -1, and keeps them there."""
    for pair in (NormalPair(1, 1), NormalPair(2, 1)):
        D, _ = _train_critic(loss, penalty, pair, partial(_wrong_signs, pair), STEPS_OF_CRITIC[penalty_name])
        distance = {"gp": -_w1(pair), "lp": _w1(pair), "zero_centered": 0.0}[penalty_name]
        description = f"E D(x) - E D(G(z)) from slopes of the wrong sign, N(0,1) vs. {pair.name}"
        expected = distance + _excess(pair, 10.0)
        yield check_close(
            "Wasserstein critic", f"wgan-{penalty_name}", description, _estimate(D, pair), expected, rel=0.02
        )


def _equal_distributions(penalty_name: str, loss: Loss, penalty: Penalty) -> Checks:
    """Check that with equal distributions only the penalty is left: gp pulls slopes to 1, lp leaves them at 0.2."""
    pair = NormalPair(0, 1)
    D, _ = _train_critic(loss, penalty, pair, lambda x: torch.full_like(x, 0.2), STEPS_OF_CRITIC[penalty_name])
    real, _ = samples(pair, N_SAMPLES)
    expected = {"gp": 1.0, "lp": 0.2, "zero_centered": 0.0}[penalty_name]
    description = "mean |slope| for equal distributions, from 0.2"
    yield check_close(
        "Wasserstein critic", f"wgan-{penalty_name}", description, D.mean_abs_slope(real), expected, abs=0.03
    )


class PiecewiseSlopes(nn.Module):
    """A critic of one-dimensional samples, parametrized by its slope on pieces of equal width."""

    def __init__(self, real: Tensor, fake: Tensor, initial_slopes: Callable[[Tensor], Tensor]):
        super().__init__()
        x = torch.cat([real, fake])
        self.low = x.min()
        self.width = (x.max() - x.min()) / N_PIECES
        centers = self.low + self.width * (torch.arange(N_PIECES, dtype=x.dtype) + 0.5)
        self.slopes = nn.Parameter(initial_slopes(centers))

    def forward(self, x: Tensor) -> Tensor:
        position = (x.squeeze(-1) - self.low) / self.width
        piece = self._piece(position.detach())
        heights = torch.cat([self.slopes.new_zeros(1), self.slopes.cumsum(0)])  # at the left end of each piece
        height, slope = heights.index_select(0, piece), self.slopes.index_select(0, piece)
        return self.width * (height + slope * (position - piece))

    def mean_abs_slope(self, x: Tensor) -> float:
        return self.slopes[self._piece((x - self.low) / self.width)].abs().mean().item()

    def _piece(self, position: Tensor) -> Tensor:
        return position.long().clamp(0, N_PIECES - 1)


def _right_signs(pair: NormalPair, x: Tensor) -> Tensor:
    """Return slopes of 1 with the sign of the optimal critic's: it falls from real to fake samples."""
    return torch.from_numpy(np.sign(pair.fake.cdf(x) - pair.real.cdf(x)))


def _wrong_signs(pair: NormalPair, x: Tensor) -> Tensor:
    return -_right_signs(pair, x)


def _estimate(D: nn.Module, pair: NormalPair) -> float:
    real, fake = samples(pair, N_SAMPLES)
    return (D(real[:, None]).mean() - D(fake[:, None]).mean()).item()


def _train_critic(
    loss: Loss, penalty: Penalty, pair: NormalPair, initial_slopes: Callable[[Tensor], Tensor], steps: int
) -> tuple[PiecewiseSlopes, float]:
    """Return the critic that minimizes loss and penalty together, and their sum."""
    real, fake = samples(pair, N_SAMPLES)
    D = PiecewiseSlopes(real, fake, initial_slopes)
    real, fake = real[:, None], fake[:, None]
    optimizer = torch.optim.Adam(D.parameters(), 0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rng = seeded_rng(step)
        shuffled = fake[torch.randperm(N_SAMPLES, generator=rng)]  # lines must connect any real with any fake sample
        value = loss.d(D(real), D(fake)) + penalty(D, real, shuffled, rng)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return D, value.item()


GRID = np.linspace(-12, 14, 5201)


def _w1(pair: NormalPair) -> float:
    return float(integrate.simpson(np.abs(pair.real.cdf(GRID) - pair.fake.cdf(GRID)), x=GRID))


def _excess(pair: NormalPair, weight: float) -> float:
    """Return the integral of h^2 / (2 weight r), by which the penalized critic's estimate is off."""
    h = pair.real.cdf(GRID) - pair.fake.cdf(GRID)
    u = (np.arange(400) + 0.5) / 400
    mean = u * pair.fake.mean()  # of real + u (fake - real)
    var = (1 - u) ** 2 + u**2 * pair.fake.var()
    densities = np.exp(-((GRID[:, None] - mean) ** 2) / (2 * var)) / np.sqrt(2 * math.pi * var)
    return float(integrate.simpson(h**2 / (2 * weight * np.mean(densities, axis=1)), x=GRID))


# --- The Dirac-GAN ----------------------------------------------------------------------------------------------------


class PointGenerator(nn.Module):
    """The generator of the Dirac-GAN: the point theta, whatever z."""

    def __init__(self, theta: float):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta))

    def forward(self, z: Tensor) -> Tensor:
        return self.theta.expand(len(z), 1)


class LineCritic(nn.Module):
    """The critic of the Dirac-GAN: D(x) = psi x + offset, with a fixed offset."""

    def __init__(self, psi: float, offset: float):
        super().__init__()
        self.psi = nn.Parameter(torch.tensor(psi))
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        return self.psi * x.squeeze(1) + self.offset


RATE = 0.05
STEPS = 1000  # to an end that is known
MORE_STEPS = 2000  # to an end that is approached slowly
FEWER_STEPS = 250  # where only the path is compared: twice around the solution


def trajectory(
    loss: Loss, penalty: Penalty, offset: float = 0.0, simultaneous: bool = False, steps: int = STEPS
) -> np.ndarray:
    """Return (theta, psi) after each iteration from (1, 1): [steps + 1, 2], by gradient descent at RATE.

    The critic moves first, or both at once if `simultaneous`. Mescheder et al. 2018 (arXiv:1801.04406, section 2):
    all real data are the point 0, so that theta = 0 is the solution.
    """
    D = LineCritic(1.0, offset)
    G = PointGenerator(1.0)
    players = descending(D, G, RATE)
    objective = Objective(loss, penalty)
    zeros = torch.zeros(2, 1)  # the real samples, and the z that G ignores
    rng = seeded_rng()
    path = [(1.0, 1.0)]
    for _ in range(steps):
        seen_by_g = LineCritic(D.psi.item(), offset) if simultaneous else D
        critic_update(players, CriticBatch(zeros, zeros, rng, when={}), objective)
        generator_update(players._replace(D=seen_by_g), GeneratorBatch(zeros, zeros), objective)
        path.append((G.theta.item(), D.psi.item()))
    return np.array(path)


class LossDerivatives(NamedTuple):
    """dL_D/du and dL_G/du at the fake sample's logit u, and the logit D(0) of the real samples, which never moves."""

    d: Callable[[float], float]
    g: Callable[[float], float]
    offset: float = 0.0


def _sigmoid(t: float) -> float:
    return 1 / (1 + math.exp(-t)) if t > 0 else math.exp(t) / (1 + math.exp(t))


def _least_squares(settings: dict[str, Any]) -> LossDerivatives:
    a, b, c, factor = settings["a"], settings["b"], settings["c"], 2 * settings["scale"]
    return LossDerivatives(lambda u: factor * (u - a), lambda u: factor * (u - c), offset=(a + b) / 2)


# Derived by hand, from the settings of the option of that name.
DERIVATIVES: dict[str, Callable[[dict[str, Any]], LossDerivatives]] = {
    "gan": lambda settings: LossDerivatives(_sigmoid, lambda u: -_sigmoid(-u)),
    "minimax": lambda settings: LossDerivatives(_sigmoid, lambda u: -_sigmoid(u)),
    "lsgan": _least_squares,
    "lsgan_pearson": _least_squares,
    "wgan": lambda settings: LossDerivatives(lambda u: 1.0, lambda u: -1.0),
    "hinge": lambda settings: LossDerivatives(lambda u: float(u > -1), lambda u: -1.0),
    "rpgan": lambda settings: LossDerivatives(_sigmoid, lambda u: -_sigmoid(-u)),
    "rsgan": lambda settings: LossDerivatives(_sigmoid, lambda u: -_sigmoid(-u)),
    "ragan": lambda settings: LossDerivatives(lambda u: 2 * _sigmoid(u), lambda u: -2 * _sigmoid(-u)),
}


class DiracGame(NamedTuple):
    """One loss with one penalty on the Dirac-GAN."""

    loss_name: str
    penalty_name: str
    loss: Loss
    make_penalty: MakePenalty
    derivatives: LossDerivatives
    weight: float  # of the penalty
    clip: float  # bound of psi


def reference_trajectory(game: DiracGame, steps: int) -> np.ndarray:
    """Compute the same trajectory in plain numbers, from derivatives by hand."""
    d, g, offset = game.derivatives
    theta = 1.0
    psi = 1.0
    path = [(theta, psi)]
    for _ in range(steps):
        psi -= RATE * (d(psi * theta + offset) * theta + _penalty_derivative(game, psi))
        psi = min(max(psi, -game.clip), game.clip)
        theta -= RATE * g(psi * theta + offset) * psi
        path.append((theta, psi))
    return np.array(path)


def _penalty_derivative(game: DiracGame, psi: float) -> float:
    """Return dP/dpsi, the derivative of the penalty's closed form; its gradient norm is |psi| everywhere."""
    if game.weight == 0:
        return 0.0
    norm = torch.tensor(abs(psi), dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(VALUES[game.penalty_name](norm), norm)
    return game.weight * math.copysign(1, psi) * derivative.item()


def _amplitude(path: np.ndarray) -> float:
    """Return the largest |theta| over the last quarter."""
    return float(np.abs(path[-len(path) // 4 :, 0]).max())


def _final_theta(path: np.ndarray) -> float:
    return float(path[-1, 0])


def _final_radius(path: np.ndarray) -> float:
    return float(np.hypot(*path[-1]))


# Alternating updates conserve theta^2 + psi^2 - h theta psi with h = RATE, which is 2 - h at (1, 1).
ORBIT = math.sqrt((2 - RATE) / (1 - RATE**2 / 4))
# What theory says of the end, how it is measured, and the expected value; penalties of weight 1.
ENDS: dict[tuple[str, str], tuple[str, Callable[[np.ndarray], float], float]] = {
    ("wgan", "none"): ("orbits forever at distance √2 (at rate h: √((2-h)/(1-h²/4)))", _amplitude, ORBIT),
    ("hinge", "none"): ("orbits forever like wgan", _amplitude, ORBIT),
    ("minimax", "none"): ("orbits forever at distance √2", _final_radius, math.sqrt(2)),
    ("lsgan_pearson", "none"): ("theta converges to 0", _final_theta, 0.0),
    ("wgan", "gp"): ("theta converges to 2 * weight, not to 0", _final_theta, 2.0),
    ("wgan", "lp"): ("orbits forever with amplitude 1", _amplitude, 1.0),
    ("gan", "dragan"): ("theta converges to 4 * weight, not to 0", _final_theta, 4.0),
}
# Zero-centered penalties pull psi to 0 at these rates, and make (0, 0) attract, where the loss pulls by 1/2 there.
DAMPING = {"r1": 1.0, "r2": 1.0, "r1r2": 2.0, "zero_centered": 2.0, "maxgp": 2.0}
PULL_BY_HALF = ("gan", "rpgan", "rsgan")
SLOW = (("gan", "none"), ("lsgan", "none"))  # converge, but ever more slowly


def dirac_gan(game: DiracGame) -> Checks:
    """Check the trajectory of one method, and where it ends."""
    names = (game.loss_name, game.penalty_name)
    penalty = game.make_penalty(game.weight)
    converges = game.loss_name in PULL_BY_HALF and game.penalty_name in DAMPING
    steps = STEPS if converges or names in (*ENDS, *SLOW) else FEWER_STEPS
    if names == ("gan", "dragan"):
        steps = MORE_STEPS
    path = trajectory(game.loss, penalty, game.derivatives.offset, steps=steps)
    close = partial(check_close, "Dirac-GAN", "-".join(names))
    yield close("trajectory equals the one computed by hand", path, reference_trajectory(game, steps), abs=2e-4)
    if names in ENDS:
        description, measure, expected = ENDS[names]
        yield close(description, measure(path), expected, rel=0.02, abs=1e-6)
    if converges:
        yield from _linear_convergence("-".join(names), path, DAMPING[game.penalty_name])
    if names in SLOW:
        yield from _slow_convergence("-".join(names), path, game.derivatives)
    if names == ("wgan", "none"):
        radius = _final_radius(trajectory(game.loss, penalty, simultaneous=True))
        expected = math.sqrt(2) * (1 + RATE**2) ** (STEPS / 2)
        yield close("simultaneous updates spiral out as √2 (1+h²)^(n/2)", radius, expected, rel=0.02)


def _linear_convergence(method: str, path: np.ndarray, damping: float) -> Checks:
    """Check the way to (0, 0), near which theta' = psi/2, psi' = -theta/2 - damping psi.

    It decays as the slower eigenvalue.
    """
    yield check_close("Dirac-GAN", method, "converges to (0, 0)", _final_radius(path), 0.0, abs=5e-3)
    if damping > 1:  # at 1 the two eigenvalues are one, and the end depends on the step size
        expected = (damping - math.sqrt(damping**2 - 1)) / 2
        half = len(path) // 2
        rate = math.log(np.hypot(*path[half]) / _final_radius(path)) / (RATE * half)
        yield check_close("Dirac-GAN", method, "converges at the rate of the linearization", rate, expected, rel=0.05)


def _slow_convergence(method: str, path: np.ndarray, derivatives: LossDerivatives) -> Checks:
    """Check d(r^2)/dt = -2u (dL_D/du + dL_G/du): -2u tanh(u/2) for gan, -8u^2 for lsgan. To 0, but ever more slowly."""
    d, g, offset = derivatives
    late = path[len(path) // 2 :]
    rates = [-2 * u * (d(u + offset) + g(u + offset)) for u in late.prod(1)]
    change = (late[-1] ** 2).sum() - (late[0] ** 2).sum()
    description = "r² falls at the theoretical rate in the second half"
    yield check_close("Dirac-GAN", method, description, change, RATE * sum(rates), rel=0.1)


def _distant_equilibrium(loss: Loss, make_penalty: MakePenalty) -> Checks:
    theta = _final_theta(trajectory(loss, make_penalty(10.0), steps=MORE_STEPS))
    yield check_close("Dirac-GAN", "wgan-gp", "theta converges to 2 * weight at weight 10", theta, 20.0, rel=0.02)
