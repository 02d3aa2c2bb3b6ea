"""Penalties against closed forms: a critic of constant slope, one of slope |x|, and where they look."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ganbench.conformance.checks import Checks, check_close, check_true, run_checks, seeded_rng
from ganbench.losses import WGAN
from ganbench.training.preflight import LinearCritic, check_penalty
from ganbench.training.steps import critic_step

Penalty = Callable[..., Tensor]

SHAPES = ((2,), (1, 8, 8), (3, 5, 7))
SLOPES = (0.0, 0.5, 1.0, 3.0)


def one_sided(s: Tensor) -> Tensor:
    return (s - 1).clamp(min=0) ** 2


def two_sided(s: Tensor) -> Tensor:
    return (s - 1) ** 2


def squared(s: Tensor) -> Tensor:
    return s**2


def half_squared(s: Tensor) -> Tensor:
    return s**2 / 2


# What a penalty of weight 1 is worth where the slope is s everywhere, by the name of its option.
TARGETS = {
    "none": torch.zeros_like,
    "clip": torch.zeros_like,
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


def check(name: str, penalty: Penalty, settings: dict[str, Any]) -> Checks:
    """All that is known of the penalty called `name`; of an unknown one, what holds for all penalties."""
    weight = settings.get("weight", 1.0)
    checks = [partial(contract, name, penalty)]
    if name in TARGETS:
        checks += [partial(linear, name, penalty, weight), partial(zero_slope, name, penalty, weight)]
    if name in ON_LINE:
        checks += [partial(quadratic, name, penalty, weight), partial(positions, name, penalty)]
    if name in AT_SAMPLES:
        checks += [partial(at_samples, name, penalty, weight)]
    if name.startswith("dragan") and name in TARGETS:
        checks += [partial(near_real, name, penalty, weight, settings)]
    if name == "clip":
        checks += [partial(clips, penalty, settings)]
    yield from run_checks("penalty", name, checks)


def contract(name: str, penalty: Penalty) -> Checks:
    """What holds for every penalty."""
    for shape in SHAPES:
        D, real, fake = LinearCritic(shape, 3.0), torch.zeros(4, *shape), torch.ones(4, *shape)
        check_penalty(penalty, name, D, real, fake)
    yield check_true("penalty", name, "is one number, with a gradient for the critic's weights", True)
    shape = SHAPES[1]
    D, real, fake = LinearCritic(shape, 3.0), torch.zeros(8, *shape), torch.ones(8, *shape)
    before, state = D.w.detach().clone(), torch.random.get_rng_state()
    values = [penalty(D, real[:n], fake[:n], seeded_rng()).item() for n in (1, 4, 8)]
    yield check_close(
        "penalty", name, "is the same for batches of 1, 4 and 8 where every sample is", values, values[0], 1e-5
    )
    pair = [penalty(Quadratic(), real + 1, fake * 3, seeded_rng()).item() for _ in range(2)]
    still = torch.equal(D.w, before) and D.w.grad is None and torch.equal(torch.random.get_rng_state(), state)
    yield check_true(
        "penalty", name, "draws from rng alone, and leaves the critic as it was", still and pair[0] == pair[1]
    )


def linear(name: str, penalty: Penalty, weight: float) -> Checks:
    """D(x) = w·x: the value and its gradient in w, whatever is drawn."""
    values, expected, gradients, due = [], [], [], []
    for shape in SHAPES:
        for slope in SLOPES:
            D, w = (LinearCritic(shape, slope, dtype=torch.float64) for _ in range(2))
            real, fake = torch.randn(2, 7, *shape, generator=seeded_rng(), dtype=torch.float64)
            value, truth = penalty(D, real, fake, seeded_rng()), weight * TARGETS[name](w.w.norm())
            values.append(value.item())
            expected.append(truth.item())
            if slope and value.requires_grad:
                gradients += torch.autograd.grad(value, D.w)
                due += torch.autograd.grad(truth, w.w)
            elif slope and truth != 0:
                gradients, due = [*gradients, torch.zeros_like(w.w)], [*due, *torch.autograd.grad(truth, w.w)]
    said = f"{len(SLOPES)} slopes in {len(SHAPES)} shapes"
    yield check_close("linear critic", name, f"value, {said}", values, expected, rel=1e-5, abs=1e-9)
    if due:
        yield check_close("linear critic", name, "its gradient in w", torch.cat(gradients), torch.cat(due), 1e-5, 1e-9)


def zero_slope(name: str, penalty: Penalty, weight: float) -> Checks:
    """A flat critic: the value at slope 0, and no NaN in what it sends to the weights."""
    D = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1), torch.nn.Flatten(0))
    for w in D.parameters():
        torch.nn.init.zeros_(w)
    value = penalty(D, torch.ones(5, 4), -torch.ones(5, 4), seeded_rng())
    due = weight * TARGETS[name](torch.zeros(())).item()
    yield check_close("linear critic", name, "value where the critic is flat", value.item(), due, rel=1e-5, abs=1e-9)
    if value.requires_grad:
        found = torch.autograd.grad(value, list(D.parameters()), allow_unused=True)
        finite = all(g is None or g.isfinite().all() for g in found)
        yield check_true("linear critic", name, "no NaN where the critic is flat", finite)


ON_LINE = ("gp", "lp", "zero_centered", "maxgp")


def quadratic(name: str, penalty: Penalty, weight: float, n: int = 100_000) -> Checks:
    """D(x) = |x|^2/2 has slope |x|, and so tells where it was asked: reals at a*e, fakes at b*e with |e| = 1.

    Slopes are then uniform on [a, b]: mean and standard error of the penalty by quadrature over them.
    """
    for a, b in ((0.0, 1.0), (0.0, 3.0), (3.0, 5.0)):
        found = penalty(Quadratic(), along(a, n), along(b, n), seeded_rng()).item()
        each = TARGETS[name](a + (b - a) * _equally_probable(n))
        due, error = (each.max(), each.max() / 1e3) if name == "maxgp" else (each.mean(), 3 * each.std() / n**0.5)
        claim = f"mean for reals at {a:g}, fakes at {b:g} along one direction"
        yield check_close("quadratic critic", name, claim, found, weight * due, rel=1e-6, abs=weight * error)


def positions(name: str, penalty: Penalty, n: int = 100_000) -> Checks:
    """x = real + u (fake - real), with one u for each sample, uniform on [0, 1]; to three standard errors."""
    real, apart, sign = torch.randn(3, n, 3, 1, 2, generator=seeded_rng(), dtype=torch.float64)
    fake = real + (1 + apart.abs()) * sign.sign()
    u = ((asked(penalty, real, fake) - real) / (fake - real)).flatten(1)
    yield check_close(
        "points", name, "one position along the line for all of a sample", u, u[:, :1].expand_as(u), abs=1e-9
    )
    first = u[:, 0].sort().values
    yield check_close("points", name, "positions uniform on [0, 1]", first, _equally_probable(n), abs=1.63 / n**0.5)
    ends = [first[0] * n, (1 - first[-1]) * n]
    yield check_close("points", name, "positions from end to end", torch.stack(ends), 7, abs=7)
    yield check_true("points", name, "a position of its own for each sample", len(first.unique()) > 0.999 * n)


def _equally_probable(n: int) -> Tensor:
    """n equally probable values of a uniform number on [0, 1]."""
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


# At which samples, and what share of the weight each kind has.
AT_SAMPLES = {"r1": (1.0, 0.0), "r2": (0.0, 1.0), "r1r2": (1.0, 1.0)}


def at_samples(name: str, penalty: Penalty, weight: float) -> Checks:
    """Half the mean of |x|^2 over samples in all directions and at all distances."""
    far = torch.linspace(0, 3, 64).view(64, 1, 1, 1)
    real, fake = torch.randn(2, 64, 1, 4, 4, generator=seeded_rng(), dtype=torch.float64) * far
    squares = torch.stack([x.flatten(1).square().sum(1).mean() for x in (real, fake + 1)])
    due = weight / 2 * (squares * torch.tensor(AT_SAMPLES[name])).sum()
    found = penalty(Quadratic(), real, fake + 1, seeded_rng()).item()
    yield check_close("quadratic critic", name, "value at 64 reals and 64 fakes, all different", found, due, rel=1e-6)


def near_real(name: str, penalty: Penalty, weight: float, settings: dict[str, Any], n: int = 100_000) -> Checks:
    """Around reals at 5 and 9 on a line, the mean of (|x| - 1)^2 by quadrature over alpha and noise; fakes far away."""
    real = torch.tensor([5.0, 9.0], dtype=torch.float64).repeat(n)[:, None]
    found = [penalty(Quadratic(), real, torch.full_like(real, far), seeded_rng()).item() for far in (0.0, 99.0)]
    shift = settings["scale"] * 2 * torch.outer(*_quantiles(settings, 2000)).flatten()  # their std is 2
    x = real[:2] + shift
    each = two_sided((x.clamp(5, 9) if settings["clip"] else x).abs())
    error = 3 * each.std(1).square().mean().sqrt() / (2 * n) ** 0.5
    yield check_close(
        "points", name, "mean around reals on a line", found[0], weight * each.mean(), 2e-3, weight * error
    )
    yield check_true("points", name, "does not look at the fakes", found[0] == found[1])
    if settings["scale"] > 0:
        yield from shifts(name, penalty, settings)


def _quantiles(settings: dict[str, Any], n: int) -> tuple[Tensor, Tensor]:
    """alpha and noise at n equally probable values each."""
    u, (low, high) = _equally_probable(n), settings["alpha"]
    return low + (high - low) * u, torch.special.ndtri(u) if settings["noise"] == "normal" else u


def shifts(name: str, penalty: Penalty, settings: dict[str, Any], n: int = 4000) -> Checks:
    """shift = alpha * scale * std * noise: the batch has one std, a sample one alpha, an element its own noise.

    The last two reals lie so far out that no other is clipped.
    """
    real = torch.randn(n, 4, 5, generator=seeded_rng(), dtype=torch.float64) * torch.linspace(0.2, 3, 5)
    real[-2:] = torch.tensor([-1, 1])[:, None, None] * 100 * (1 + settings["scale"])
    x = asked(penalty, real, real + 50)
    if settings["clip"]:
        inside = bool(real.min() <= x.min() and x.max() <= real.max())
        yield check_true("points", name, "stays within the range of the reals", inside)
    shift = ((x - real) / (settings["scale"] * real.std(correction=0)))[:-2]
    alpha, noise = _quantiles(settings, 5000)
    each = torch.outer(alpha.square(), noise.square())
    found, error = shift.square().mean((0, 1)), 4 * each.std() / n**0.5
    yield check_close(
        "points", name, "mean square of the shift, the same in every column", found, each.mean(), 1e-3, error
    )
    together, due = (shift[:, :2] * shift[:, 2:]).mean(), alpha.square().mean() * noise.mean() ** 2
    claim = "a sample moves by one alpha, its elements by their own noise"
    yield check_close("points", name, claim, together, due, abs=4 * each.std() / (10 * n) ** 0.5)


def clips(penalty: Penalty, settings: dict[str, Any]) -> Checks:
    """A step of the critic leaves each weight and bias where descent puts it, or at the bound."""
    c = settings["c"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        D = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))
    with torch.no_grad():
        for w in D.parameters():
            w *= 3 * c
    twin, G = copy.deepcopy(D), nn.Identity()
    real, z = torch.randn(2, 8, 4, generator=seeded_rng())
    critic_step(D, G, real, z, WGAN(), penalty, torch.optim.SGD(D.parameters(), 0.1 * c), seeded_rng())
    slopes = torch.autograd.grad(twin(z).mean() - twin(real).mean(), list(twin.parameters()), allow_unused=True)
    moved = [w - 0.1 * c * (g if g is not None else 0) for w, g in zip(twin.parameters(), slopes, strict=True)]
    due = torch.cat([w.flatten() for w in moved]).clamp(-c, c)
    found = torch.cat([w.flatten() for w in D.parameters()])
    yield check_close("clip", "clip", f"every weight within ±{c:g} after a step", found, due, rel=1e-5, abs=1e-6 * c)
    yield check_true(
        "clip", "clip", "some at the bound and some inside", 0 < int((found.abs() == c).sum()) < len(found)
    )


def asked(penalty: Penalty, real: Tensor, fake: Tensor) -> Tensor:
    """Where the penalty differentiates the critic."""
    D = Watching()
    penalty(D, real, fake, seeded_rng())
    return torch.cat(D.seen)


def along(length: float, n: int) -> Tensor:
    """n equal samples of that length, in a direction in which all of 16 coordinates take part."""
    return torch.full((n, 1, 4, 4), length / 4, dtype=torch.float64)


class Quadratic(nn.Module):
    """D(x) = |x|^2/2, times a weight of 1."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.flatten(1).square().sum(1) / 2


class Watching(Quadratic):
    """Remembers where it was asked."""

    def __init__(self):
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        return super().forward(x)
