"""Losses against closed forms: values at chosen logits, what reaches the players, and the value of the best critic."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import integrate
from torch import Tensor

from ganbench.conformance.checks import Check, Checks, check_close, check_true, run_checks, seeded_rng
from ganbench.theory import LEFT, Pair
from ganbench.training.preflight import check_loss, generator_loss, is_relativistic

Logits = list[float]


def sp(t: float) -> float:
    """softplus(t) = log(1 + e^t), without overflow."""
    return max(t, 0.0) + math.log1p(math.exp(-abs(t)))


def _mean(f: Callable[..., float], *lists: Logits) -> float:
    return float(np.mean([f(*values) for values in zip(*lists, strict=True)]))


def _gan(r: Logits, f: Logits, s: dict) -> float:
    return _mean(lambda t: sp(-t), r) + _mean(sp, f)


def _least_squares(r: Logits, f: Logits, s: dict) -> float:
    return s["scale"] * (_mean(lambda t: (t - s["b"]) ** 2, r) + _mean(lambda t: (t - s["a"]) ** 2, f))


def _least_squares_g(r: Logits, f: Logits, s: dict) -> float:
    return s["scale"] * _mean(lambda t: (t - s["c"]) ** 2, f)


def _against_mean(up: Logits, down: Logits) -> float:
    """Each of `up` is to lie above the mean of `down`, each of `down` below the mean of `up`."""
    return _mean(lambda t: sp(np.mean(down) - t), up) + _mean(lambda t: sp(t - np.mean(up)), down)


# The critic's and the generator's loss in plain numbers, from the papers' equations, by the name of the option.
VALUES: dict[str, tuple[Callable, Callable]] = {
    "gan": (_gan, lambda r, f, s: _mean(lambda t: sp(-t), f)),
    "minimax": (_gan, lambda r, f, s: -_mean(sp, f)),
    "lsgan": (_least_squares, _least_squares_g),
    "lsgan_pearson": (_least_squares, _least_squares_g),
    "wgan": (lambda r, f, s: _mean(float, f) - _mean(float, r), lambda r, f, s: -_mean(float, f)),
    "hinge": (
        lambda r, f, s: _mean(lambda t: max(0.0, 1 - t), r) + _mean(lambda t: max(0.0, 1 + t), f),
        lambda r, f, s: -_mean(float, f),
    ),
    "rpgan": (lambda r, f, s: _mean(lambda a, b: sp(b - a), r, f), lambda r, f, s: _mean(lambda a, b: sp(a - b), r, f)),
    "ragan": (lambda r, f, s: _against_mean(r, f), lambda r, f, s: _against_mean(f, r)),
}
VALUES["rsgan"] = VALUES["rpgan"]


def check(name: str, loss, settings: dict[str, Any]) -> Checks:
    """All that is known of the loss called `name`; of an unknown one, what holds for all losses."""
    checks = [partial(contract, name, loss)]
    if name in VALUES:
        checks.append(partial(values, name, loss, settings))
    if name in OPTIMA:
        checks.append(partial(optimum, name, loss, settings))
    if name in BEST and (name != "lsgan" or (settings["a"], settings["b"], settings["c"]) == (0, 1, 1)):
        checks.append(partial(vanishing, name, loss, settings.get("scale", 1.0)))
    if name == "gan" or (name == "lsgan" and (settings["a"], settings["b"]) == (0, 1)):
        checks.append(partial(shape, name, loss))
    yield from run_checks("loss", name, checks)


def contract(name: str, loss) -> Checks:
    """What holds for every loss."""
    check_loss(loss, name)
    yield check_true("loss", name, "d and g are one number each, with a gradient", True)
    yield from _a_mean(name, loss)
    yield from _directions(name, loss)
    yield from _extremes(name, loss)


def _a_mean(name: str, loss) -> Checks:
    real, fake = torch.randn(2, 6, generator=seeded_rng(), dtype=torch.float64)
    once, thrice = (_both(loss, real.repeat(n), fake.repeat(n)) for n in (1, 3))
    yield check_close("loss", name, "the same for a batch and for three copies of it", thrice, once, 1e-9, 1e-12)


def _directions(name: str, loss) -> Checks:
    """Where real and fake are told alike, D gains by moving them apart, reals up; and G by moving its fakes up."""
    right = []
    for low in (-0.9, -0.5, -0.1):
        real, fake = (torch.full((4,), low, dtype=torch.float64, requires_grad=True) for _ in range(2))
        on_real, on_fake = torch.autograd.grad(loss.d(real, fake), [real, fake])
        (up,) = torch.autograd.grad(generator_loss(loss, fake, real), fake)
        right += [on_real.sum() < on_fake.sum(), up.sum() < 0]
    yield check_true("loss", name, "has D part reals from fakes upwards, and G lift its fakes", all(right))


def _extremes(name: str, loss) -> Checks:
    fine = []
    for dtype in (torch.float32, torch.bfloat16):
        for extreme in (1e4, -1e4):
            real, fake = (torch.tensor([v, 0.0], dtype=dtype, requires_grad=True) for v in (extreme, -extreme))
            for value in (loss.d(real, fake), generator_loss(loss, fake, real)):
                found = torch.autograd.grad(value, [real, fake], allow_unused=True)
                fine += [value.isfinite(), *(g.isfinite().all() for g in found if g is not None)]
    yield check_true("values", name, "finite at logits of ±10,000, and so are the gradients", all(fine))


def _both(loss, real: Tensor, fake: Tensor) -> list[float]:
    return [loss.d(real, fake).item(), generator_loss(loss, fake, real).item()]


# Logits of reals and fakes: alike and not, near and far (where an exponential overflows), and several at once.
BATCHES = [([0.0], [0.0]), ([2.0], [-2.0]), ([-1.0], [0.5]), ([0.3], [3.0]), ([-200.0], [150.0]), ([-1e4], [1e4])]
BATCHES += [([1e4], [-1e4]), tuple((3 * torch.randn(2, 9, generator=seeded_rng(1))).tolist())]


def values(name: str, loss, settings: dict[str, Any]) -> Checks:
    """Both losses and their gradients against the same equation in plain numbers."""
    batches = [torch.tensor(b, dtype=torch.float64, requires_grad=True) for b in BATCHES]
    for player, at in (("D", 0), ("G", 1)):
        value = partial(VALUES[name][at], s=settings)
        told = [loss.d(*b) if player == "D" else generator_loss(loss, b[1], b[0]) for b in batches]
        due = [value(*b) for b in BATCHES]
        yield check_close(
            "values", name, f"{player}'s loss at eight batches of logits", torch.stack(told), due, 1e-6, 1e-9
        )
        which = slice(0, 2) if player == "D" else slice(1, 2)  # G moves by its fakes alone
        found = [torch.autograd.grad(v, b)[0][which].flatten() for v, b in zip(told, batches, strict=True)]
        slopes = [s for b in BATCHES for s in _slopes(value, b)[which.start * len(b[0]) :]]
        yield check_close("values", name, f"{player}'s gradient at each logit", torch.cat(found), slopes, 1e-5, 1e-6)


def _slopes(value: Callable[..., float], batch: tuple[Logits, Logits], h: float = 1e-4) -> Logits:
    """The derivative by each logit, reals first, by central differences."""
    flat, n = [*batch[0], *batch[1]], len(batch[0])

    def at(i: int, shift: float) -> float:
        moved = [v + shift * (i == j) for j, v in enumerate(flat)]
        return value(moved[:n], moved[n:])

    return [(at(i, h) - at(i, -h)) / (2 * h) for i in range(len(flat))]


def samples(pair: Pair, n: int) -> tuple[Tensor, Tensor]:
    """Reals and fakes at equally probable quantiles."""
    return tuple(torch.from_numpy(values) for values in pair.quantiles(n))


PAIRS = (Pair(0, 1), Pair(1, 1), Pair(2, 1), Pair(4, 1), Pair(0, 2))


def _jensen_shannon(pair: Pair) -> float:
    """2 ln 2 - 2 JSD(p, q) (Goodfellow et al. 2014, theorem 1)."""
    return pair.integral(lambda p, q: -p * np.log(p / (p + q)) - q * np.log(q / (p + q)))


def _harmonic(pair: Pair) -> float:
    return pair.integral(lambda p, q: p * q / (p + q))


def _ranking(pair: Pair) -> float:
    """E softplus(l(y) - l(x)) over x real, y fake, with l = log p/q: the best critic of pairs is log p/q itself.

    It is the entropy of which of two samples is the real one: ln 2 - JSD(p x q, q x p).
    """
    x = np.linspace(-9, 13, 2201)
    p, q = pair.real.pdf(x), pair.fake.pdf(x)
    ratio = pair.real.logpdf(x) - pair.fake.logpdf(x)
    inner = [integrate.simpson(q * np.logaddexp(0, ratio - at), x=x) for at in ratio]
    return float(integrate.simpson(p * np.array(inner), x=x))


# What D's loss comes to at the best critic, by the name of the option, and how closely the search below finds it.
OPTIMA: dict[str, tuple[Callable[[Pair, dict], float], float]] = {
    "gan": (lambda pair, s: _jensen_shannon(pair), 0.01),
    "minimax": (lambda pair, s: _jensen_shannon(pair), 0.01),
    "lsgan": (lambda pair, s: s["scale"] * (s["b"] - s["a"]) ** 2 * _harmonic(pair), 0.01),
    "lsgan_pearson": (lambda pair, s: s["scale"] * (s["b"] - s["a"]) ** 2 * _harmonic(pair), 0.01),
    "hinge": (lambda pair, s: pair.integral(lambda p, q: 2 * np.minimum(p, q)), 0.06),  # 2 (1 - TV)
    "rpgan": (lambda pair, s: _ranking(pair), 0.01),
    "rsgan": (lambda pair, s: _ranking(pair), 0.01),
}


class Table(torch.nn.Module):
    """A critic of one number: logits at knots, straight lines between them."""

    def __init__(self, x: Tensor, knots: int):
        super().__init__()
        self.low, self.width = x.min(), (x.max() - x.min()) / (knots - 1)
        self.logits = torch.nn.Parameter(torch.zeros(knots, dtype=x.dtype))

    def forward(self, x: Tensor) -> Tensor:
        at = ((x - self.low) / self.width).clamp(0, len(self.logits) - 1.001)
        left = at.long()
        return torch.lerp(self.logits[left], self.logits[left + 1], at - left)


def best_critic(loss, pair: Pair, steps: int = 400) -> tuple[Table, Tensor, Tensor]:
    """The critic that minimises loss.d between the two distributions, and its logits of their samples.

    A loss that compares gets every real with every fake; others 20,000 of each.
    """
    all_pairs = is_relativistic(loss)
    n, knots = (400, 20) if all_pairs else (20_000, 150)
    real, fake = samples(pair, n)
    D = Table(torch.cat([real, fake]), knots)
    optimizer = torch.optim.Adam(D.parameters(), 0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        on_real, on_fake = D(real), D(fake)
        if all_pairs:
            on_real, on_fake = on_real.repeat(n), on_fake.repeat_interleave(n)
        value = loss.d(on_real, on_fake)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return D, on_real.detach(), on_fake.detach()


def optimum(name: str, loss, s: dict[str, Any]) -> Checks:
    """The least value of D's loss is a divergence of the two distributions."""
    value, rel = OPTIMA[name]
    for pair in PAIRS:
        _, real, fake = best_critic(loss, pair)
        claim, due = f"D's loss, N(0,1) against {pair.name}", value(pair, s)
        yield check_close("best critic", name, claim, loss.d(real, fake), due, rel, 3e-4)
        if name == "lsgan_pearson" and (s["b"] - s["c"], s["b"] - s["a"]) == (1, 2):
            yield _chi_squared(loss, pair, real, fake, s["scale"])


def _chi_squared(loss, pair: Pair, real: Tensor, fake: Tensor, scale: float) -> Check:
    """The integral of (p - q)^2 / (p + q), which Mao et al. 2016 call Pearson's chi^2 between p + q and 2q."""
    due = pair.integral(lambda p, q: (p - q) ** 2 / (p + q))
    found = (loss.g(fake) + loss.g(real)) / scale
    return check_close("best critic", "lsgan_pearson", f"Pearson's chi-squared, {pair.name}", found, due, 0.01, 1e-3)


def shape(name: str, loss) -> Checks:
    """The best critic of N(0,1) against N(1,1) is 1/2 - x for gan, and its sigmoid for lsgan with targets 0 and 1."""
    D, _, _ = best_critic(loss, PAIRS[1])
    x = torch.linspace(-1, 2, 7, dtype=torch.float64)
    due = 0.5 - x if name == "gan" else torch.sigmoid(0.5 - x)
    yield check_close("best critic", name, "D(x) itself, N(0,1) against N(1,1)", D(x), due, abs=0.03)


# The best critic of N(0,1) against N(theta,1) at x, for each loss; of wgan the best of slope 1.
BEST: dict[str, Callable[[Tensor, float], Tensor]] = {
    "gan": lambda x, theta: theta**2 / 2 - theta * x,
    "minimax": lambda x, theta: theta**2 / 2 - theta * x,
    "lsgan": lambda x, theta: torch.sigmoid(theta**2 / 2 - theta * x),
    "rpgan": lambda x, theta: theta**2 / 2 - theta * x,
    "wgan": lambda x, theta: -x,
}


def vanishing(name: str, loss, scale: float) -> Checks:
    """|dL_G/dtheta| before the best critic, as the two distributions part.

    Minimax and least squares vanish, the non-saturating loss grows, Wasserstein's stays (Arjovsky and Bottou 2017,
    arXiv:1701.04862, section 2).
    """
    n = 400 if is_relativistic(loss) else 200_000
    real, noise = samples(Pair(0, 1), n)
    for apart in (0.5, 1.0, 2.0, 4.0, 6.0):
        theta = torch.tensor(apart, dtype=torch.float64, requires_grad=True)
        fakes, reals = BEST[name](noise + theta, apart), BEST[name](real, apart)
        if is_relativistic(loss):
            fakes, reals = fakes.repeat(n), reals.repeat_interleave(n)
        (found,) = torch.autograd.grad(generator_loss(loss, fakes, reals), theta)
        claim = f"what is left of G's gradient, {apart:g} apart"
        yield check_close("vanishing gradient", name, claim, found.abs(), scale * LEFT[name](apart), rel=0.01)
