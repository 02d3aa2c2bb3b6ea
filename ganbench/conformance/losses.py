"""Checks of losses against closed forms: values, gradients, and the loss and gradient at the optimal critic."""

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy import integrate
from torch import Tensor

from ganbench.conformance.checks import Check, Checks, check_close, check_true, run_checks, seeded_rng
from ganbench.interfaces import Loss
from ganbench.theory import GENERATOR_GRADIENT, NormalPair
from ganbench.training.preflight import check_loss, generator_loss, is_relativistic

Logits = list[float]
Settings = dict[str, Any]  # of the option, such as the targets of lsgan
Equation = Callable[[Logits, Logits, Settings], float]  # of real and fake logits, in plain numbers
FixedEquation = Callable[[Logits, Logits], float]  # with the settings filled in


def softplus(t: float) -> float:
    """Return log(1 + e^t), without overflow."""
    return max(t, 0.0) + math.log1p(math.exp(-abs(t)))


def _mean(f: Callable[..., float], *logits: Logits) -> float:
    return float(np.mean([f(*values) for values in zip(*logits, strict=True)]))


def _gan(r: Logits, f: Logits, s: Settings) -> float:
    return _mean(lambda t: softplus(-t), r) + _mean(softplus, f)


def _least_squares(r: Logits, f: Logits, s: Settings) -> float:
    return s["scale"] * (_mean(lambda t: (t - s["b"]) ** 2, r) + _mean(lambda t: (t - s["a"]) ** 2, f))


def _least_squares_g(r: Logits, f: Logits, s: Settings) -> float:
    return s["scale"] * _mean(lambda t: (t - s["c"]) ** 2, f)


def _hinge(r: Logits, f: Logits, s: Settings) -> float:
    return _mean(lambda t: max(0.0, 1 - t), r) + _mean(lambda t: max(0.0, 1 + t), f)


def _relativistic_pairs(higher: Logits, lower: Logits) -> float:
    """Penalize each logit of `higher` that is not above its partner in `lower`."""
    return _mean(lambda a, b: softplus(b - a), higher, lower)


def _relativistic_average(higher: Logits, lower: Logits) -> float:
    """Penalize logits of `higher` below the mean of `lower`, and logits of `lower` above the mean of `higher`."""
    return _mean(lambda t: softplus(np.mean(lower) - t), higher) + _mean(lambda t: softplus(t - np.mean(higher)), lower)


# The critic's and the generator's loss in plain numbers, from the papers' equations, by the name of the option.
EQUATIONS: dict[str, tuple[Equation, Equation]] = {
    "gan": (_gan, lambda r, f, s: _mean(lambda t: softplus(-t), f)),
    "minimax": (_gan, lambda r, f, s: -_mean(softplus, f)),
    "lsgan": (_least_squares, _least_squares_g),
    "lsgan_pearson": (_least_squares, _least_squares_g),
    "wgan": (lambda r, f, s: _mean(float, f) - _mean(float, r), lambda r, f, s: -_mean(float, f)),
    "hinge": (_hinge, lambda r, f, s: -_mean(float, f)),
    "rpgan": (lambda r, f, s: _relativistic_pairs(r, f), lambda r, f, s: _relativistic_pairs(f, r)),
    "ragan": (lambda r, f, s: _relativistic_average(r, f), lambda r, f, s: _relativistic_average(f, r)),
}
EQUATIONS["rsgan"] = EQUATIONS["rpgan"]


def check(name: str, loss: Loss, settings: Settings) -> Checks:
    """Check all that is known of the loss option `name`; for an unknown one, what holds for every loss."""
    checks = [partial(contract, name, loss)]
    if name in EQUATIONS:
        checks.append(partial(values, name, loss, settings))
    if name in OPTIMAL_VALUES:
        checks.append(partial(optimal_value, name, loss, settings))
    if name in OPTIMAL_CRITICS and (name != "lsgan" or _targets(settings) == (0, 1, 1)):
        checks.append(partial(generator_gradient, name, loss, settings.get("scale", 1.0)))
    if name == "gan" or (name == "lsgan" and _targets(settings)[:2] == (0, 1)):
        checks.append(partial(optimal_critic, name, loss))
    yield from run_checks("loss", name, checks)


def _targets(settings: Settings) -> tuple[float, float, float]:
    return settings["a"], settings["b"], settings["c"]


def contract(name: str, loss: Loss) -> Checks:
    """Check what holds for every loss."""
    check_loss(loss, name)
    yield check_true("loss", name, "d and g each return one number with a gradient", True)
    yield from _batch_mean(name, loss)
    yield from _directions(name, loss)
    yield from _extremes(name, loss)


def _batch_mean(name: str, loss: Loss) -> Checks:
    real, fake = torch.randn(2, 6, generator=seeded_rng(), dtype=torch.float64)
    once = _both_losses(loss, real, fake)
    repeated = _both_losses(loss, real.repeat(3), fake.repeat(3))
    description = "a batch and three copies of it give the same losses"
    yield check_close("loss", name, description, repeated, once, rel=1e-9, abs=1e-12)


def _both_losses(loss: Loss, real: Tensor, fake: Tensor) -> list[float]:
    return [loss.d(real, fake).item(), generator_loss(loss, fake, real).item()]


def _directions(name: str, loss: Loss) -> Checks:
    """Check that at equal logits D gains by raising real above fake logits, and G by raising fake logits."""
    right = []
    for logit in (-0.9, -0.5, -0.1):
        real, fake = (torch.full((4,), logit, dtype=torch.float64, requires_grad=True) for _ in range(2))
        d_real, d_fake = torch.autograd.grad(loss.d(real, fake), [real, fake])
        (g_fake,) = torch.autograd.grad(generator_loss(loss, fake, real), fake)
        right.append(bool(d_real.sum() < d_fake.sum() and g_fake.sum() < 0))
    yield check_true("loss", name, "D raises real above fake logits, and G raises fake logits", all(right))


def _extremes(name: str, loss: Loss) -> Checks:
    finite = []
    for dtype, extreme in product((torch.float32, torch.bfloat16), (1e4, -1e4)):
        real, fake = (torch.tensor([v, 0.0], dtype=dtype, requires_grad=True) for v in (extreme, -extreme))
        for value in (loss.d(real, fake), generator_loss(loss, fake, real)):
            gradients = torch.autograd.grad(value, [real, fake], allow_unused=True)
            finite += [_is_finite(tensor) for tensor in (value, *gradients)]
    yield check_true("values", name, "losses and gradients are finite at logits of ±10,000", all(finite))


def _is_finite(x: Tensor | None) -> bool:
    return x is None or bool(x.isfinite().all())


# Logits of real and fake samples: equal and not, near and far (where an exponential overflows), and several at once.
BATCHES: list[tuple[Logits, Logits]] = [
    ([0.0], [0.0]),
    ([2.0], [-2.0]),
    ([-1.0], [0.5]),
    ([0.3], [3.0]),
    ([-200.0], [150.0]),
    ([-1e4], [1e4]),
    ([1e4], [-1e4]),
    tuple((3 * torch.randn(2, 9, generator=seeded_rng(1))).tolist()),
]


def values(name: str, loss: Loss, settings: Settings) -> Checks:
    """Compare both losses and their gradients with the equations in plain numbers."""
    d_equation, g_equation = EQUATIONS[name]

    def g(real: Tensor, fake: Tensor) -> Tensor:
        return generator_loss(loss, fake, real)

    yield from _player_values("D", name, loss.d, lambda r, f: d_equation(r, f, settings))
    yield from _player_values("G", name, g, lambda r, f: g_equation(r, f, settings))


def _player_values(player: str, name: str, loss: Callable[[Tensor, Tensor], Tensor], equation: FixedEquation) -> Checks:
    """Compare one player's loss, and its gradient: of G at fake logits only, since G cannot move the real ones."""
    batches = [torch.tensor(batch, dtype=torch.float64, requires_grad=True) for batch in BATCHES]
    values = [loss(real, fake) for real, fake in batches]
    expected_values = [equation(real, fake) for real, fake in BATCHES]
    description = f"{player}'s loss at eight batches of logits"
    yield check_close("values", name, description, torch.stack(values), expected_values, rel=1e-6, abs=1e-9)
    kinds = slice(0, 2) if player == "D" else slice(1, 2)  # of real and fake
    gradients = [torch.autograd.grad(value, batch)[0][kinds] for value, batch in zip(values, batches, strict=True)]
    expected_gradients = [_numerical_gradient(equation, batch)[kinds] for batch in BATCHES]
    description = f"gradient of {player}'s loss at each logit"
    yield check_close(
        "values", name, description, _flatten(gradients), _flatten(expected_gradients), rel=1e-5, abs=1e-6
    )


def _flatten(gradients: list[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def _numerical_gradient(equation: FixedEquation, batch: tuple[Logits, Logits], h: float = 1e-4) -> Tensor:
    """Return the derivative in each logit by central differences: [2, n], real first."""
    logits = np.array(batch)
    gradient = np.zeros_like(logits)
    for index in np.ndindex(logits.shape):
        shift = np.zeros_like(logits)
        shift[index] = h
        above = equation(*(logits + shift).tolist())
        below = equation(*(logits - shift).tolist())
        gradient[index] = (above - below) / (2 * h)
    return torch.from_numpy(gradient)


def samples(pair: NormalPair, n: int) -> tuple[Tensor, Tensor]:
    """Return n real and n fake samples at equally probable quantiles."""
    real, fake = pair.quantiles(n)
    return torch.from_numpy(real), torch.from_numpy(fake)


PAIRS = (NormalPair(0, 1), NormalPair(1, 1), NormalPair(2, 1), NormalPair(4, 1), NormalPair(0, 2))


def _jensen_shannon(pair: NormalPair) -> float:
    """Return 2 ln 2 - 2 JSD(p, q) (Goodfellow et al. 2014, arXiv:1406.2661, theorem 1)."""
    return pair.integral(lambda p, q: -p * np.log(p / (p + q)) - q * np.log(q / (p + q)))


def _harmonic(pair: NormalPair) -> float:
    return pair.integral(lambda p, q: p * q / (p + q))


def _ranking(pair: NormalPair) -> float:
    """Return E softplus(l(y) - l(x)) over x real, y fake, with l = log p/q, the optimal critic of pairs.

    It is the entropy of which of two samples is the real one: ln 2 - JSD(p x q, q x p).
    """
    x = np.linspace(-9, 13, 2201)
    p, q = pair.real.pdf(x), pair.fake.pdf(x)
    log_ratio = pair.real.logpdf(x) - pair.fake.logpdf(x)
    inner = [integrate.simpson(q * np.logaddexp(0, log_ratio - at_x), x=x) for at_x in log_ratio]
    return float(integrate.simpson(p * np.array(inner), x=x))


def _least_squares_optimum(pair: NormalPair, s: Settings) -> float:
    return s["scale"] * (s["b"] - s["a"]) ** 2 * _harmonic(pair)


# D's loss at the optimal critic, by the name of the option, and the relative error of the search for it below.
OPTIMAL_VALUES: dict[str, tuple[Callable[[NormalPair, Settings], float], float]] = {
    "gan": (lambda pair, s: _jensen_shannon(pair), 0.01),
    "minimax": (lambda pair, s: _jensen_shannon(pair), 0.01),
    "lsgan": (_least_squares_optimum, 0.01),
    "lsgan_pearson": (_least_squares_optimum, 0.01),
    "hinge": (lambda pair, s: pair.integral(lambda p, q: 2 * np.minimum(p, q)), 0.06),  # 2 (1 - TV)
    "rpgan": (lambda pair, s: _ranking(pair), 0.01),
    "rsgan": (lambda pair, s: _ranking(pair), 0.01),
}


class PiecewiseLinear(torch.nn.Module):
    """A critic of one-dimensional samples: logits at equally spaced knots, straight lines between them."""

    def __init__(self, x: Tensor, knots: int):
        super().__init__()
        self.low = x.min()
        self.width = (x.max() - x.min()) / (knots - 1)
        self.logits = torch.nn.Parameter(torch.zeros(knots, dtype=x.dtype))

    def forward(self, x: Tensor) -> Tensor:
        position = ((x - self.low) / self.width).clamp(0, len(self.logits) - 1.001)
        left = position.long()
        at_left, at_right = self.logits.index_select(0, left), self.logits.index_select(0, left + 1)
        return torch.lerp(at_left, at_right, position - left)


def train_to_optimum(loss: Loss, pair: NormalPair, steps: int = 300) -> tuple[PiecewiseLinear, Tensor, Tensor]:
    """Return the critic that minimizes loss.d between the two distributions, and its logits of real and fake samples.

    A relativistic loss is given every pair of 400 real and 400 fake samples; others 8,000 samples of each.
    """
    all_pairs = is_relativistic(loss)
    n, knots = (400, 20) if all_pairs else (8_000, 150)
    real, fake = samples(pair, n)
    D = PiecewiseLinear(torch.cat([real, fake]), knots)
    optimizer = torch.optim.Adam(D.parameters(), 0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        d_real, d_fake = D(real), D(fake)
        if all_pairs:
            d_real, d_fake = d_real.repeat(n), d_fake.repeat_interleave(n)
        value = loss.d(d_real, d_fake)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return D, d_real.detach(), d_fake.detach()


def optimal_value(name: str, loss: Loss, settings: Settings) -> Checks:
    """Compare the minimum of D's loss with the divergence between the two distributions that it should be."""
    divergence, rel = OPTIMAL_VALUES[name]
    for pair in PAIRS:
        _, d_real, d_fake = train_to_optimum(loss, pair)
        value, expected = loss.d(d_real, d_fake), divergence(pair, settings)
        description = f"minimum of D's loss, N(0,1) vs. {pair.name}"
        yield check_close("best critic", name, description, value, expected, rel=rel, abs=3e-4)
        if name == "lsgan_pearson" and _is_chi_squared(*_targets(settings)):
            yield _chi_squared(loss, pair, d_real, d_fake, settings["scale"])


def _is_chi_squared(a: float, b: float, c: float) -> bool:
    """Tell whether with these targets G minimizes Pearson's chi^2 (Mao et al. 2016, arXiv:1611.04076)."""
    return b - c == 1 and b - a == 2


def _chi_squared(loss: Loss, pair: NormalPair, d_real: Tensor, d_fake: Tensor, scale: float) -> Check:
    """Compare with the integral of (p - q)^2 / (p + q): Pearson's chi^2 between p + q and 2q."""
    expected = pair.integral(lambda p, q: (p - q) ** 2 / (p + q))
    actual = (loss.g(d_fake) + loss.g(d_real)) / scale
    description = f"Pearson's chi-squared, N(0,1) vs. {pair.name}"
    return check_close("best critic", "lsgan_pearson", description, actual, expected, rel=0.01, abs=1e-3)


def optimal_critic(name: str, loss: Loss) -> Checks:
    """Check the best critic of N(0,1) vs. N(1,1): 1/2 - x for gan, its sigmoid for lsgan with targets 0 and 1."""
    D, _, _ = train_to_optimum(loss, PAIRS[1])
    x = torch.linspace(-1, 2, 7, dtype=torch.float64)
    expected = 0.5 - x if name == "gan" else torch.sigmoid(0.5 - x)
    yield check_close("best critic", name, "optimal D(x), N(0,1) vs. N(1,1)", D(x), expected, abs=0.03)


# The optimal critic of N(0,1) vs. N(theta,1) at x, for each loss; for wgan the optimal one of slope 1.
OPTIMAL_CRITICS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "gan": lambda x, theta: theta**2 / 2 - theta * x,
    "minimax": lambda x, theta: theta**2 / 2 - theta * x,
    "lsgan": lambda x, theta: torch.sigmoid(theta**2 / 2 - theta * x),
    "rpgan": lambda x, theta: theta**2 / 2 - theta * x,
    "wgan": lambda x, theta: -x,
}


def generator_gradient(name: str, loss: Loss, scale: float) -> Checks:
    """Compare |dL_G/dtheta| at the optimal critic with its closed form, as the two distributions move apart.

    Minimax and least squares vanish, the non-saturating loss grows, Wasserstein's stays (Arjovsky and Bottou 2017,
    arXiv:1701.04862, section 2).
    """
    D = OPTIMAL_CRITICS[name]
    n = 400 if is_relativistic(loss) else 200_000
    real, noise = samples(NormalPair(0, 1), n)
    for distance in (0.5, 1.0, 2.0, 4.0, 6.0):
        theta = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
        d_real, d_fake = D(real, distance), D(noise + theta, distance)
        if is_relativistic(loss):
            d_real, d_fake = d_real.repeat_interleave(n), d_fake.repeat(n)
        (gradient,) = torch.autograd.grad(generator_loss(loss, d_fake, d_real), theta)
        description = f"gradient of G at the optimal critic, means {distance:g} apart"
        expected = scale * GENERATOR_GRADIENT[name](distance)
        yield check_close("vanishing gradient", name, description, gradient.abs(), expected, rel=0.01)
