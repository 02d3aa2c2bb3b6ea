"""Whole games with known ends: the Wasserstein critic in one dimension, and the Dirac-GAN."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import integrate
from torch import Tensor, nn

from ganbench.conformance import Rows, close, guarded
from ganbench.conformance.losses import Pair
from ganbench.conformance.penalties import TARGETS
from ganbench.steps import critic_step, generator_step

Penalty = Callable[..., Tensor]


def wasserstein(name: str, loss, penalty: Penalty, weight: float) -> Rows:
    """The best critic under a penalty on the line, by calculus of variations.

    With h = F_p - F_q and r the density of the penalised points, D's slope s minimises -|h| s + weight * r * P(s)
    at each x. For gp and lp |s| = 1 + |h| / (2 weight r), for zero_centred |h| / (2 weight r).
    """
    shifted, wide, same = Pair(2, 1), Pair(0, 2), Pair(0, 1)
    base = 0.0 if name == "zero_centred" else 1.0
    for pair in (Pair(1, 1), shifted, wide):
        start = partial(_right_sign, pair)
        found, due = _estimate(loss, penalty, weight, pair, start), base * _w1(pair) + _excess(pair, weight)
        claim = f"E D(x) - E D(G(z)), N(0,1) against {pair.name}"
        yield close("Wasserstein critic", f"wgan-{name}", claim, found, due, rel=0.02)
    wrong = _estimate(loss, penalty, weight, shifted, lambda x: -_right_sign(shifted, x))
    trapped = name == "gp"  # for slopes the wrong way round, the two-sided penalty is least at -1
    due = (-_w1(shifted) if trapped else base * _w1(shifted)) + _excess(shifted, weight)
    yield close(
        "Wasserstein critic",
        f"wgan-{name}",
        f"the same from slopes of the wrong sign, {shifted.name}",
        wrong,
        due,
        0.02,
    )
    slopes = Slopes(*same.samples(N), lambda x: torch.full_like(x, 0.2))
    _train(slopes, loss, penalty, weight, same)
    due = {"gp": 1.0, "lp": 0.2, "zero_centred": 0.0}[name]
    claim = "mean |slope| for equal distributions, from 0.2"
    yield close("Wasserstein critic", f"wgan-{name}", claim, slopes.mean_slope(*same.samples(N)), due, abs=0.03)


N, PIECES = 10_000, 80


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

    def mean_slope(self, real: Tensor, fake: Tensor) -> float:
        x = torch.cat([real, fake])
        return self.slopes[((x - self.low) / self.width).long().clamp(0, PIECES - 1)].abs().mean().item()


def _right_sign(pair: Pair, x: Tensor) -> Tensor:
    """Of the best critic's slope: it falls from reals to fakes."""
    return torch.from_numpy(np.sign(pair.fake.cdf(x) - pair.real.cdf(x)))


def _estimate(loss, penalty: Penalty, weight: float, pair: Pair, start: Callable[[Tensor], Tensor]) -> float:
    real, fake = pair.samples(N)
    D = Slopes(real, fake, start)
    _train(D, loss, penalty, weight, pair)
    return (D(real[:, None]).mean() - D(fake[:, None]).mean()).item()


def _train(D: Slopes, loss, penalty: Penalty, weight: float, pair: Pair, steps: int = 300) -> None:
    real, fake = (x[:, None] for x in pair.samples(N))
    optimizer = torch.optim.Adam(D.parameters(), 0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rng = torch.Generator().manual_seed(step)
        apart = fake[torch.randperm(N, generator=rng)]  # a line runs from any real to any fake
        value = loss.d(D(real), D(fake)) + penalty(D, real, apart, rng, weight=weight)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()


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
    real, z, rng = torch.zeros(2, 1), torch.zeros(2, 1), torch.Generator().manual_seed(0)
    path = [(1.0, 1.0)]
    for _ in range(STEPS):
        judge = Line(D.psi.item(), offset) if at_once else D
        critic_step(D, G, real, z, loss, penalty, opt_d, rng)
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


def by_hand(pull: Pull, slope: Callable[[float], float], bound: float = math.inf, at_once: bool = False) -> np.ndarray:
    """The same path in plain numbers; `slope` is dP/dpsi, `bound` what psi is clipped to."""
    theta = psi = 1.0
    path = [(theta, psi)]
    for _ in range(STEPS):
        before = psi
        psi -= H * (pull.on_d(psi * theta + pull.offset) * theta + slope(psi))
        psi = min(max(psi, -bound), bound)
        judge = before if at_once else psi
        theta -= H * pull.on_g(judge * theta + pull.offset) * judge
        path.append((theta, psi))
    return np.array(path)


def _slope_of(name: str) -> Callable[[float], float]:
    """dP/dpsi of the penalty of weight 1, by the derivative of its closed form."""

    def slope(psi: float) -> float:
        at = torch.tensor(abs(psi), dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(TARGETS[name](at), at)
        return math.copysign(1, psi) * found.item()

    return slope if name not in ("none", "clip") else lambda psi: 0.0


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
# A zero-centred penalty pulls psi to 0 at these rates, and makes (0, 0) attract; where the loss pulls by 1/2 there:
DAMPING = {"r1": 1.0, "r2": 1.0, "r1r2": 2.0, "zero_centred": 2.0, "maxgp": 2.0}
HALF = ("gan", "rpgan", "rsgan")


def dirac_check(names: tuple[str, str], loss, penalty: Penalty, settings: dict[str, Any], bound: float) -> Rows:
    """One pair, the penalty with weight 1: the whole path, and where it ends."""
    subject, pull = "-".join(names), PULLS[names[0]](settings)
    path, hand = dirac(loss, penalty, pull.offset), by_hand(pull, _slope_of(names[1]), bound)
    yield close("Dirac-GAN", subject, "the whole path, by hand", path, hand, abs=1e-3)
    if names in ENDS:
        claim, measure, due = ENDS[names]
        yield close("Dirac-GAN", subject, claim, measure(path), due, rel=0.02, abs=1e-6)
    if names[0] in HALF and names[1] in DAMPING:
        yield from _converges(subject, path, DAMPING[names[1]])
    if names in (("gan", "none"), ("lsgan", "none")):
        yield from _creeps(subject, path)
    if names == ("wgan", "none"):
        grown = math.sqrt(2) * (1 + H**2) ** (STEPS / 2)
        found = _radius(dirac(loss, penalty, at_once=True))
        yield close("Dirac-GAN", subject, "spirals out as √2 (1+h²)^(n/2) if both move at once", found, grown, 0.02)


def _converges(subject: str, path: np.ndarray, damping: float) -> Rows:
    """Near (0, 0): theta' = psi/2, psi' = -theta/2 - damping psi, which decays as its slower eigenvalue."""
    yield close("Dirac-GAN", subject, "goes to (0, 0)", _radius(path), 0.0, abs=1e-5)
    if damping > 1:  # at 1 the two eigenvalues are one, and the end depends on the step
        rate = (damping - math.sqrt(damping**2 - 1)) / 2
        lost = math.log(np.hypot(*path[STEPS // 2]) / _radius(path)) / (H * STEPS / 2)
        yield close("Dirac-GAN", subject, "at the rate of its linearisation", lost, rate, rel=0.05)


def _creeps(subject: str, path: np.ndarray) -> Rows:
    """d(r^2)/dt = -2u tanh(u/2) for gan, -8u^2 for lsgan, with u = theta psi: to 0, but ever more slowly."""
    late = path[STEPS // 2 :]
    u = late.prod(1)
    rate = -2 * u * np.tanh(u / 2) if subject == "gan-none" else -8 * u**2
    lost = (late[-1] ** 2).sum() - (late[0] ** 2).sum()
    yield close("Dirac-GAN", subject, "r² falls at theory's rate, later than half-way", lost, H * rate.sum(), rel=0.1)


def check(names: tuple[str, str], loss, penalty: Penalty, settings: tuple[dict[str, Any], dict[str, Any]]) -> Rows:
    """The games of a pair of a known loss and a known penalty."""
    checks, of_loss, of_penalty = [], *settings
    if "weight" in of_penalty:
        penalty = partial(penalty, weight=1.0)
    if names[0] in PULLS and names[1] in TARGETS:
        checks.append(partial(dirac_check, names, loss, penalty, of_loss, of_penalty.get("c", math.inf)))
    if names[0] == "wgan" and names[1] in ("gp", "lp", "zero_centred"):
        checks.append(partial(wasserstein, names[1], loss, penalty, 10.0))
    yield from guarded("game", "-".join(names), checks)
