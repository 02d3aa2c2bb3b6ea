"""Checks of penalties against closed forms: critics of known gradient norm, and the points that are penalized.

Two critics are used: D(x) = w·x, whose gradient norm is |w| everywhere, and D(x) = |x|^2/2, whose gradient norm is |x|.
"""

import copy
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from ganbench.conformance.checks import Checks, check_close, check_true, run_checks, seeded_rng
from ganbench.conformance.critics import LinearCritic
from ganbench.conformance.descent import descending
from ganbench.interfaces import Penalty
from ganbench.losses import WGAN
from ganbench.training.batches import CriticBatch
from ganbench.training.preflight import check_penalty
from ganbench.training.updates import Objective, critic_update

Settings = dict[str, Any]  # of the option, such as its weight

SHAPES = ((2,), (1, 8, 8), (3, 5, 7))
GRADIENT_NORMS = (0.0, 0.5, 1.0, 3.0)


def one_sided(norm: Tensor) -> Tensor:
    return (norm - 1).clamp(min=0) ** 2


def two_sided(norm: Tensor) -> Tensor:
    return (norm - 1) ** 2


def squared(norm: Tensor) -> Tensor:
    return norm**2


def half_squared(norm: Tensor) -> Tensor:
    return norm**2 / 2


def zero(norm: Tensor) -> Tensor:
    return torch.zeros_like(norm)


# The value of a penalty of weight 1 where the gradient norm is the same everywhere, by the name of its option.
VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": zero,
    "clip": zero,
    "gp": two_sided,
    "lp": one_sided,
    "dragan": two_sided,
    "dragan-notebook": two_sided,
    "dragan-perturbed": two_sided,
    "dragan-normal": two_sided,
    "r1": half_squared,
    "r2": half_squared,
    "r1r2": squared,
    "zero_centered": squared,
    "maxgp": squared,
}


def check(name: str, penalty: Penalty, settings: Settings) -> Checks:
    """Check all that is known of the penalty option `name`; for an unknown one, what holds for every penalty."""
    weight = settings.get("weight", 1.0)
    checks = [partial(contract, name, penalty)]
    if name in VALUES:
        checks.append(partial(linear_critic, name, penalty, weight))
        checks.append(partial(constant_critic, name, penalty, weight))
    if name in ON_LINE:
        checks.append(partial(mean_over_lines, name, penalty, weight))
        checks.append(partial(positions_on_lines, name, penalty))
    if name in AT_SAMPLES:
        checks.append(partial(at_samples, name, penalty, weight))
    if name.startswith("dragan") and name in VALUES:
        checks.append(partial(around_real, name, penalty, weight, settings))
    if name == "clip":
        checks.append(partial(clipping, penalty, settings["c"]))
    yield from run_checks("penalty", name, checks)


def contract(name: str, penalty: Penalty) -> Checks:
    """Check what holds for every penalty."""
    for shape in SHAPES:
        check_penalty(penalty, name, LinearCritic(shape, 3.0), torch.zeros(4, *shape), torch.ones(4, *shape))
    yield check_true("penalty", name, "one number with a gradient in the critic's weights", True)
    D, real, fake = LinearCritic(SHAPES[1], 3.0), torch.zeros(8, *SHAPES[1]), torch.ones(8, *SHAPES[1])
    weights_before = D.w.detach().clone()
    global_state = torch.random.get_rng_state()
    values = [penalty(D, real[:n], fake[:n], seeded_rng()).item() for n in (1, 4, 8)]
    description = "same value for 1, 4 and 8 identical samples"
    yield check_close("penalty", name, description, values, values[0], rel=1e-5)
    once, again = (penalty(Quadratic(), real + 1, fake * 3, seeded_rng()).item() for _ in range(2))
    critic_unchanged = torch.equal(D.w, weights_before) and D.w.grad is None
    only_rng_used = once == again and torch.equal(torch.random.get_rng_state(), global_state)
    description = "draws from rng only, and leaves the critic unchanged"
    yield check_true("penalty", name, description, critic_unchanged and only_rng_used)


def linear_critic(name: str, penalty: Penalty, weight: float) -> Checks:
    """For D(x) = w·x, compare the value and its gradient in w, whichever points are drawn."""
    cases = list(product(SHAPES, GRADIENT_NORMS))
    critics = [LinearCritic(shape, norm, dtype=torch.float64) for shape, norm in cases]
    batches = [torch.randn(2, 7, *shape, generator=seeded_rng(), dtype=torch.float64) for shape, _ in cases]
    values = [penalty(D, real, fake, seeded_rng()) for D, (real, fake) in zip(critics, batches, strict=True)]
    expected = [weight * VALUES[name](D.w.norm()) for D in critics]
    yield check_close(
        "linear critic", name, "value at 4 gradient norms, in 3 shapes",
        torch.stack(values), torch.stack(expected), rel=1e-5, abs=1e-9,
    )  # fmt: skip
    if VALUES[name] is not zero:
        actual_gradient, expected_gradient = _gradients(values, critics), _gradients(expected, critics)
        yield check_close(
            "linear critic", name, "gradient in w", actual_gradient, expected_gradient, rel=1e-5, abs=1e-9
        )


def _gradients(values: list[Tensor], critics: list[LinearCritic]) -> Tensor:
    """Concatenate each value's gradient in its critic's w, except at w = 0, where the norm has none."""
    return torch.cat([_gradient(value, D.w) for value, D in zip(values, critics, strict=True) if D.w.any()])


def _gradient(value: Tensor, w: Tensor) -> Tensor:
    return torch.autograd.grad(value, w)[0] if value.requires_grad else torch.zeros_like(w)


def constant_critic(name: str, penalty: Penalty, weight: float) -> Checks:
    """For a critic that is 0 everywhere, compare the value, and check that the gradient in the weights is no NaN."""
    D = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))
    for w in D.parameters():
        nn.init.zeros_(w)
    value = penalty(D, torch.ones(5, 4), -torch.ones(5, 4), seeded_rng())
    expected = weight * VALUES[name](torch.zeros(())).item()
    yield check_close("linear critic", name, "value at a constant critic", value.item(), expected, rel=1e-5, abs=1e-9)
    if value.requires_grad:
        gradients = torch.autograd.grad(value, list(D.parameters()), allow_unused=True)
        finite = all(g is None or bool(g.isfinite().all()) for g in gradients)
        yield check_true("linear critic", name, "no NaN in the gradient at a constant critic", finite)


ON_LINE = ("gp", "lp", "zero_centered", "maxgp")  # penalize points between real and fake samples


def mean_over_lines(name: str, penalty: Penalty, weight: float, n: int = 100_000) -> Checks:
    """For D(x) = |x|^2/2, compare the value for real samples at low * e and fake samples at high * e, with |e| = 1.

    Gradient norms are then uniform on [low, high], so that quadrature gives the penalty's mean and standard error.
    """
    for low, high in ((0.0, 1.0), (0.0, 3.0), (3.0, 5.0)):
        actual = penalty(Quadratic(), _at_distance(low, n), _at_distance(high, n), seeded_rng()).item()
        each = VALUES[name](low + (high - low) * _uniform_quantiles(n))
        if name == "maxgp":
            expected, error = each.max(), each.max() / 1e3
        else:
            expected, error = each.mean(), 3 * each.std() / n**0.5
        yield check_close(
            "quadratic critic", name, f"mean over lines from ‖x‖ = {low:g} (real) to ‖x‖ = {high:g} (fake)",
            actual, weight * expected, rel=1e-6, abs=weight * float(error),
        )  # fmt: skip


def positions_on_lines(name: str, penalty: Penalty, n: int = 100_000) -> Checks:
    """Check that x = real + u (fake - real), with one u per sample, uniform on [0, 1]; to three standard errors."""
    real, gap, sign = torch.randn(3, n, 3, 1, 2, generator=seeded_rng(), dtype=torch.float64)
    fake = real + (1 + gap.abs()) * sign.sign()
    u = ((_penalized_points(penalty, real, fake) - real) / (fake - real)).flatten(1)
    first = u[:, 0].sort().values
    both_ends = torch.stack([first[0], 1 - first[-1]]) * n
    close = partial(check_close, "points", name)
    yield close("one position on the line for all elements of a sample", u, u[:, :1].expand_as(u), abs=1e-9)
    yield close("positions uniform on [0, 1]", first, _uniform_quantiles(n), abs=1.63 / n**0.5)
    yield close("positions reach both ends of the line", both_ends, 7, abs=7)
    yield check_true("points", name, "each sample has its own position", len(first.unique()) > 0.999 * n)


def _uniform_quantiles(n: int) -> Tensor:
    """Return n equally probable values of a uniform variable on [0, 1]."""
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


# The factors of the means over real and over fake samples.
AT_SAMPLES = {"r1": (1.0, 0.0), "r2": (0.0, 1.0), "r1r2": (1.0, 1.0)}


def at_samples(name: str, penalty: Penalty, weight: float) -> Checks:
    """For D(x) = |x|^2/2, compare with half the mean of |x|^2 over samples in all directions, at all distances."""
    scale = torch.linspace(0, 3, 64).view(64, 1, 1, 1)
    real, fake = torch.randn(2, 64, 1, 4, 4, generator=seeded_rng(), dtype=torch.float64) * scale
    fake = fake + 1
    mean_squares = torch.stack([x.flatten(1).square().sum(1).mean() for x in (real, fake)])
    expected = weight / 2 * (mean_squares * torch.tensor(AT_SAMPLES[name])).sum()
    actual = penalty(Quadratic(), real, fake, seeded_rng()).item()
    description = "value for 64 distinct real and fake samples"
    yield check_close("quadratic critic", name, description, actual, expected, rel=1e-6)


def around_real(name: str, penalty: Penalty, weight: float, settings: Settings, n: int = 100_000) -> Checks:
    """For real samples at 5 and 9 on a line, compare with the mean of (|x| - 1)^2 by quadrature over alpha and noise.

    Fake samples, near or far, must not matter.
    """
    real = torch.tensor([5.0, 9.0], dtype=torch.float64).repeat(n)[:, None]
    near, far = (penalty(Quadratic(), real, torch.full_like(real, at), seeded_rng()).item() for at in (0.0, 99.0))
    alpha, noise = _perturbation_quantiles(settings, 2000)
    shift = settings["scale"] * 2 * torch.outer(alpha, noise).flatten()  # the standard deviation of 5 and 9 is 2
    x = real[:2] + shift
    each = two_sided((x.clamp(5, 9) if settings["clip"] else x).abs())
    error = 3 * each.std(1).square().mean().sqrt() / (2 * n) ** 0.5
    description = "mean around real samples on a line"
    yield check_close("points", name, description, near, weight * each.mean(), rel=2e-3, abs=weight * float(error))
    yield check_true("points", name, "independent of the fake samples", near == far)
    if settings["scale"] > 0:
        yield from shifts(name, penalty, settings)


def _perturbation_quantiles(settings: Settings, n: int) -> tuple[Tensor, Tensor]:
    """Return alpha and noise at n equally probable values each."""
    u = _uniform_quantiles(n)
    low, high = settings["alpha"]
    return low + (high - low) * u, torch.special.ndtri(u) if settings["noise"] == "normal" else u


def shifts(name: str, penalty: Penalty, settings: Settings, n: int = 4000) -> Checks:
    """Check shift = alpha * scale * std * noise: one std per batch, one alpha per sample, one noise per element."""
    real = torch.randn(n, 4, 5, generator=seeded_rng(), dtype=torch.float64) * torch.linspace(0.2, 3, 5)
    real[-2:] = torch.tensor([-1, 1])[:, None, None] * 100 * (1 + settings["scale"])  # so far that no other is clipped
    x = _penalized_points(penalty, real, real + 50)
    if settings["clip"]:
        inside = bool(real.min() <= x.min() and x.max() <= real.max())
        yield check_true("points", name, "points stay within the range of the real samples", inside)
    relative_shift = ((x - real) / (settings["scale"] * real.std(correction=0)))[:-2]
    alpha, noise = _perturbation_quantiles(settings, 5000)
    squares = torch.outer(alpha.square(), noise.square())
    spread = float(squares.std())
    yield check_close(
        "points", name, "same mean squared shift in every column",
        relative_shift.square().mean((0, 1)), squares.mean(), rel=1e-3, abs=4 * spread / n**0.5,
    )  # fmt: skip
    yield check_close(
        "points", name, "one alpha per sample, independent noise per element",
        (relative_shift[:, :2] * relative_shift[:, 2:]).mean(), alpha.square().mean() * noise.mean() ** 2,
        abs=4 * spread / (10 * n) ** 0.5,
    )  # fmt: skip


def clipping(penalty: Penalty, c: float) -> Checks:
    """Check that a critic update leaves each weight and bias where gradient descent puts it, or at the bound."""
    rate = 0.1 * c
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        D = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))
    with torch.no_grad():
        for w in D.parameters():
            w.mul_(3 * c)
    before = copy.deepcopy(D)
    real, fake = torch.randn(2, 8, 4, generator=seeded_rng())
    batch = CriticBatch(real, z=fake, rng=seeded_rng(), when={})
    critic_update(descending(D, nn.Identity(), rate), batch, Objective(WGAN(), penalty))
    loss = before(fake).mean() - before(real).mean()
    gradients = torch.autograd.grad(loss, list(before.parameters()), allow_unused=True, materialize_grads=True)
    moved = [w - rate * g for w, g in zip(before.parameters(), gradients, strict=True)]
    expected = torch.cat([w.flatten() for w in moved]).clamp(-c, c)
    actual = torch.cat([w.flatten() for w in D.parameters()])
    at_bound = int((actual.abs() == c).sum())
    description = f"all weights within ±{c:g} after an update"
    yield check_close("clip", "clip", description, actual, expected, rel=1e-5, abs=1e-6 * c)
    yield check_true("clip", "clip", "some weights at the bound, some inside", 0 < at_bound < len(actual))


def _penalized_points(penalty: Penalty, real: Tensor, fake: Tensor) -> Tensor:
    """Return the points at which the penalty differentiates the critic."""
    D = RecordingCritic()
    penalty(D, real, fake, seeded_rng())
    return torch.cat(D.inputs)


def _at_distance(length: float, n: int) -> Tensor:
    """Return n equal samples of norm `length`, with the same value in each of their 16 coordinates."""
    return torch.full((n, 1, 4, 4), length / 4, dtype=torch.float64)


class Quadratic(nn.Module):
    """The critic D(x) = |x|^2/2, times a weight of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.flatten(1).square().sum(1) / 2


class RecordingCritic(Quadratic):
    """Keep the samples that it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x.detach())
        return super().forward(x)
