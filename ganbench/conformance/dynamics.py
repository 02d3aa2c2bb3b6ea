"""Whole games with known ends: the Wasserstein critic in one dimension, and the Dirac-GAN."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import integrate
from torch import Tensor, nn

from ganbench.conformance.checks import Checks, check_close, run_checks, seeded_rng
from ganbench.conformance.losses import Pair, samples
from ganbench.conformance.penalties import TARGETS
from ganbench.training.steps import critic_step, generator_step

Penalty = Callable[..., Tensor]
OfWeight = Callable[[float], Penalty]


N, PIECES = 10_000, 80


def wasserstein(name: str, loss, of_weight: OfWeight) -> Checks:
    """The best critic under a penalty on the line, by calculus of variations.

    With h = F_p - F_q and r the density of the penalised points, D's slope s minimises -|h| s + weight * r * P(s)
    at each x. For gp and lp |s| = 1 + |h| / (2 weight r), for zero_centered |h| / (2 weight r). So E D(x) - E D(G(z))
    comes to W1 (or 0) plus an excess, and D's loss and penalty together to minus W1 (or 0) and half of it.
    """
    for mean, std, weight in ((1, 1, 10.0), (2, 1, 10.0), (4, 1, 10.0), (0, 2, 10.0), (2, 1, 1.0)):
        pair = Pair(mean, std)
        D, total = _best(loss, of_weight(weight), pair, partial(_right_sign, pair))
        w1, excess = (_w1(pair) if name != "zero_centered" else 0.0), _excess(pair, weight)
        claim = f"N(0,1) against {pair.name}, weight {weight:g}"
        yield check_close(
            WASSERSTEIN, f"wgan-{name}", f"E D(x) - E D(G(z)), {claim}", _estimate(D, pair), w1 + excess, 0.02
        )
        yield check_close(WASSERSTEIN, f"wgan-{name}", f"D's loss and penalty, {claim}", -total, w1 + excess / 2, 0.02)
    yield from _from_the_wrong_side(name, loss, of_weight(10.0))
    yield from _of_equals(name, loss, of_weight(10.0))


WASSERSTEIN = "Wasserstein critic"


def _from_the_wrong_side(name: str, loss, penalty: Penalty) -> Checks:
    """Where slopes start with the wrong sign, the two-sided penalty is least at -1, and holds them there."""
    for pair in (Pair(1, 1), Pair(2, 1)):
        D, _ = _best(loss, penalty, pair, lambda x, pair=pair: -_right_sign(pair, x))
        w1 = {"gp": -_w1(pair), "lp": _w1(pair), "zero_centered": 0.0}[name]
        due, claim = w1 + _excess(pair, 10.0), f"from slopes of the wrong sign, {pair.name}"
        yield check_close(WASSERSTEIN, f"wgan-{name}", claim, _estimate(D, pair), due, 0.02)


def _of_equals(name: str, loss, penalty: Penalty) -> Checks:
    """With nothing to tell apart only the penalty is left: gp pulls slopes to 1, lp leaves them."""
    pair = Pair(0, 1)
    D, _ = _best(loss, penalty, pair, lambda x: torch.full_like(x, 0.2))
    due, claim = {"gp": 1.0, "lp": 0.2, "zero_centered": 0.0}[name], "mean |slope| for equal distributions, from 0.2"
    yield check_close(WASSERSTEIN, f"wgan-{name}", claim, D.mean_slope(samples(pair, N)[0]), due, abs=0.03)


class Slopes(nn.Module):
    """A critic of one number, by its slope on pieces of equal width."""

    def __init__(self, real: Tensor, fake: Tensor, start: Callable[[Tensor], Tensor]):
        super().__init__()
        x = torch.cat([real, fake])
        self.low, self.width = x.min(), (x.max() - x.min()) / PIECES
        middles = self.low + self.width * (torch.arange(PIECES, dtype=x.dtype) + 0.5)
        self.slopes = nn.Parameter(start(middles))

    def forward(self, x: Tensor) -> Tensor:
        at = (x.squeeze(-1) - self.low) / self.width
        piece = at.detach().long().clamp(0, PIECES - 1)
        heights = torch.cat([self.slopes.new_zeros(1), self.slopes.cumsum(0)])
        return self.width * (heights[piece] + self.slopes[piece] * (at - piece))

    def mean_slope(self, x: Tensor) -> float:
        return self.slopes[((x - self.low) / self.width).long().clamp(0, PIECES - 1)].abs().mean().item()


def _right_sign(pair: Pair, x: Tensor) -> Tensor:
    """Of the best critic's slope: it falls from reals to fakes."""
    return torch.from_numpy(np.sign(pair.fake.cdf(x) - pair.real.cdf(x)))


def _estimate(D: Slopes, pair: Pair) -> float:
    real, fake = (x[:, None] for x in samples(pair, N))
    return (D(real).mean() - D(fake).mean()).item()


Start = Callable[[Tensor], Tensor]  # slopes at given places


def _best(loss, penalty: Penalty, pair: Pair, start: Start, steps: int = 300) -> tuple[Slopes, float]:
    """The critic that minimises loss and penalty from given slopes, and what they come to."""
    real, fake = (x[:, None] for x in samples(pair, N))
    D = Slopes(real.squeeze(1), fake.squeeze(1), start)
    optimizer = torch.optim.Adam(D.parameters(), 0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        noise = seeded_rng(step)
        apart = fake[torch.randperm(N, generator=noise)]  # a line runs from any real to any fake
        value = loss.d(D(real), D(fake)) + penalty(D, real, apart, noise)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return D, value.item()


_X = np.linspace(-12, 14, 5201)


def _w1(pair: Pair) -> float:
    return float(integrate.simpson(np.abs(pair.real.cdf(_X) - pair.fake.cdf(_X)), x=_X))


def _excess(pair: Pair, weight: float) -> float:
    """The integral of h^2 / (2 weight r): by how much the penalised critic's estimate is off."""
    h = pair.real.cdf(_X) - pair.fake.cdf(_X)
    u = (np.arange(400) + 0.5) / 400
    mean, var = u * pair.fake.mean(), (1 - u) ** 2 + u**2 * pair.fake.var()  # of real + u (fake - real)
    r = np.mean(np.exp(-((_X[:, None] - mean) ** 2) / (2 * var)) / np.sqrt(2 * math.pi * var), axis=1)
    return float(integrate.simpson(h**2 / (2 * weight * r), x=_X))


class Point(nn.Module):
    """The generator of the Dirac-GAN: whatever z, the point theta."""

    def __init__(self, theta: float):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta))

    def forward(self, z: Tensor) -> Tensor:
        return self.theta.expand(len(z), 1)


class Line(nn.Module):
    """Its critic: D(x) = psi x + offset, with the offset fixed."""

    def __init__(self, psi: float, offset: float):
        super().__init__()
        self.psi, self.offset = nn.Parameter(torch.tensor(psi)), offset

    def forward(self, x: Tensor) -> Tensor:
        return self.psi * x.squeeze(1) + self.offset


H, STEPS = 0.05, 2000


def dirac(loss, penalty: Penalty, offset: float = 0.0, at_once: bool = False) -> np.ndarray:
    """(theta, psi) after each step from (1, 1), by gradient descent of rate H, the critic first or both at once.

    Mescheder et al. 2018 (arXiv:1801.04406, section 2): real data are the point 0, so theta = 0 is the solution.
    """
    D, G = Line(1.0, offset), Point(1.0)
    opt_d, opt_g = (torch.optim.SGD(net.parameters(), H) for net in (D, G))
    real, z, noise = torch.zeros(2, 1), torch.zeros(2, 1), seeded_rng()
    path = [(1.0, 1.0)]
    for _ in range(STEPS):
        judge = Line(D.psi.item(), offset) if at_once else D
        critic_step(D, G, real, z, loss, penalty, opt_d, noise)
        generator_step(judge, G, real, z, loss, opt_g)
        path.append((G.theta.item(), D.psi.item()))
    return np.array(path)


def _sigma(t: float) -> float:
    return 1 / (1 + math.exp(-t)) if t > 0 else math.exp(t) / (1 + math.exp(t))


class Pull(NamedTuple):
    """dL_D/du and dL_G/du at the fake's logit u, and the logit D(0) of the reals, which never moves."""

    on_d: Callable[[float], float]
    on_g: Callable[[float], float]
    offset: float = 0.0


def _least_squares(s: dict[str, Any]) -> Pull:
    double = 2 * s["scale"]
    return Pull(lambda u: double * (u - s["a"]), lambda u: double * (u - s["c"]), (s["a"] + s["b"]) / 2)


# By hand, from the settings of the option of that name.
PULLS: dict[str, Callable[[dict[str, Any]], Pull]] = {
    "gan": lambda s: Pull(_sigma, lambda u: -_sigma(-u)),
    "minimax": lambda s: Pull(_sigma, lambda u: -_sigma(u)),
    "lsgan": _least_squares,
    "lsgan_pearson": _least_squares,
    "wgan": lambda s: Pull(lambda u: 1.0, lambda u: -1.0),
    "hinge": lambda s: Pull(lambda u: float(u > -1), lambda u: -1.0),
    "rpgan": lambda s: Pull(_sigma, lambda u: -_sigma(-u)),
    "rsgan": lambda s: Pull(_sigma, lambda u: -_sigma(-u)),
    "ragan": lambda s: Pull(lambda u: 2 * _sigma(u), lambda u: -2 * _sigma(-u)),
}


def reference_trajectory(pull: Pull, slope: Callable[[float], float], bound: float) -> np.ndarray:
    """The same path in plain numbers; `slope` is dP/dpsi, `bound` what psi is clipped to."""
    theta = psi = 1.0
    path = [(theta, psi)]
    for _ in range(STEPS):
        psi -= H * (pull.on_d(psi * theta + pull.offset) * theta + slope(psi))
        psi = min(max(psi, -bound), bound)
        theta -= H * pull.on_g(psi * theta + pull.offset) * psi
        path.append((theta, psi))
    return np.array(path)


def _slope_of(name: str, weight: float) -> Callable[[float], float]:
    """dP/dpsi of a penalty, by the derivative of its closed form."""

    def slope(psi: float) -> float:
        at = torch.tensor(abs(psi), dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(TARGETS[name](at), at)
        return weight * math.copysign(1, psi) * found.item()

    return slope if weight else lambda psi: 0.0


def _largest(path: np.ndarray) -> float:
    """|theta| over the last quarter."""
    return float(np.abs(path[-STEPS // 4 :, 0]).max())


def _end(path: np.ndarray) -> float:
    return float(path[-1, 0])


def _radius(path: np.ndarray) -> float:
    return float(np.hypot(*path[-1]))


# Stepping in turn conserves theta^2 + psi^2 - H theta psi, which is 2 - H at (1, 1).
ORBIT = math.sqrt((2 - H) / (1 - H**2 / 4))
# Where a game ends, from theory; penalties of weight 1.
ENDS: dict[tuple[str, str], tuple[str, Callable[[np.ndarray], float], float]] = {
    ("wgan", "none"): ("circles for ever, at a distance of √2 (of the steps: √((2-h)/(1-h²/4)))", _largest, ORBIT),
    ("hinge", "none"): ("circles as wgan does", _largest, ORBIT),
    ("minimax", "none"): ("circles for ever at √2", _radius, math.sqrt(2)),
    ("lsgan_pearson", "none"): ("theta goes to 0", _end, 0.0),
    ("wgan", "gp"): ("stops at theta = 2 weight, not at 0", _end, 2.0),
    ("wgan", "lp"): ("circles for ever with amplitude 1", _largest, 1.0),
    ("gan", "dragan"): ("stops at theta = 4 weight, not at 0", _end, 4.0),
}
# A zero-centered penalty pulls psi to 0 at these rates, and makes (0, 0) attract; where the loss pulls by 1/2 there:
DAMPING = {"r1": 1.0, "r2": 1.0, "r1r2": 2.0, "zero_centered": 2.0, "maxgp": 2.0}
HALF = ("gan", "rpgan", "rsgan")


def dirac_check(names: tuple[str, str], loss, penalty: Penalty, pull: Pull, weight: float, bound: float) -> Checks:
    """One pair: the whole path, and where it ends."""
    subject = "-".join(names)
    path, hand = dirac(loss, penalty, pull.offset), reference_trajectory(pull, _slope_of(names[1], weight), bound)
    yield check_close(DIRAC, subject, "the whole path, by hand", path, hand, abs=1e-3)
    if names in ENDS:
        claim, measure, due = ENDS[names]
        yield check_close(DIRAC, subject, claim, measure(path), due, rel=0.02, abs=1e-6)
    if names[0] in HALF and names[1] in DAMPING:
        yield from _converges(subject, path, DAMPING[names[1]])
    if names in (("gan", "none"), ("lsgan", "none")):
        yield from _slow_convergence(subject, path, pull)
    if names == ("wgan", "none"):
        grown = math.sqrt(2) * (1 + H**2) ** (STEPS / 2)
        found = _radius(dirac(loss, penalty, at_once=True))
        yield check_close(DIRAC, subject, "spirals out as √2 (1+h²)^(n/2) if both move at once", found, grown, 0.02)


DIRAC = "Dirac-GAN"


def _converges(subject: str, path: np.ndarray, damping: float) -> Checks:
    """Near (0, 0): theta' = psi/2, psi' = -theta/2 - damping psi, which decays as its slower eigenvalue."""
    yield check_close(DIRAC, subject, "goes to (0, 0)", _radius(path), 0.0, abs=1e-5)
    if damping > 1:  # at 1 the two eigenvalues are one, and the end depends on the step
        rate = (damping - math.sqrt(damping**2 - 1)) / 2
        lost = math.log(np.hypot(*path[STEPS // 2]) / _radius(path)) / (H * STEPS / 2)
        yield check_close(DIRAC, subject, "at the rate of its linearisation", lost, rate, rel=0.05)


def _slow_convergence(subject: str, path: np.ndarray, pull: Pull) -> Checks:
    """d(r^2)/dt = -2u (dL_D/du + dL_G/du): -2u tanh(u/2) for gan, -8u^2 for lsgan. To 0, but ever more slowly."""
    late = path[STEPS // 2 :]
    rate = [-2 * u * (pull.on_d(u + pull.offset) + pull.on_g(u + pull.offset)) for u in late.prod(1)]
    lost = (late[-1] ** 2).sum() - (late[0] ** 2).sum()
    yield check_close(DIRAC, subject, "r² falls at theory's rate, later than half-way", lost, H * sum(rate), rel=0.1)


def check(
    names: tuple[str, str],
    loss,
    of_weight: OfWeight,
    of_loss: dict[str, Any],
    bound: float = math.inf,
) -> Checks:
    """The games of a pair of a known loss and a known penalty; `bound` is what a projection clips to.

    Not asked of least squares whose targets are far apart: its steps are too large for a path to be followed.
    """
    checks: list[Callable[[], Checks]] = []
    if names[0] in PULLS and names[1] in TARGETS and not _steep(of_loss):
        weight = 0.0 if names[1] in ("none", "clip") else 1.0
        pull = PULLS[names[0]](of_loss)
        checks.append(lambda: dirac_check(names, loss, of_weight(weight), pull, weight, bound))
    if names == ("wgan", "gp"):
        checks.append(lambda: _distant_equilibrium(loss, of_weight(10.0)))
    if names[0] == "wgan" and names[1] in ("gp", "lp", "zero_centered"):
        checks.append(partial(wasserstein, names[1], loss, of_weight))
    yield from run_checks("game", "-".join(names), checks)


def _steep(of_loss: dict[str, Any]) -> bool:
    return "scale" in of_loss and of_loss["scale"] * max(1, abs(of_loss["b"] - of_loss["a"]) / 2) > 1


def _distant_equilibrium(loss, penalty: Penalty) -> Checks:
    yield check_close(
        DIRAC, "wgan-gp", "stops at theta = 2 weight for weight 10", _end(dirac(loss, penalty)), 20.0, rel=0.02
    )
