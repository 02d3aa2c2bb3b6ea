"""Penalties against closed forms: a critic of constant slope, one of slope |x|, and where they look."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ganbench.conformance import Rows, close, guarded, holds
from ganbench.contract import LinearCritic, refuse_penalty

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
    "zero_centred": squared,
    "maxgp": squared,
}


def check(name: str, penalty: Penalty, settings: dict[str, Any]) -> Rows:
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
    yield from guarded("penalty", name, checks)


def contract(name: str, penalty: Penalty) -> Rows:
    """What holds for every penalty."""
    for shape in SHAPES:
        refuse_penalty(penalty, name, shape)
    yield holds("penalty", name, "is one number, with a gradient for the critic's weights", True)
    shape = SHAPES[1]
    D, real, fake = LinearCritic(shape, 3.0), torch.zeros(8, *shape), torch.ones(8, *shape)
    values = [penalty(D, real[:n], fake[:n], rng()).item() for n in (1, 4, 8)]
    yield close("penalty", name, "is the same for batches of 1, 4 and 8 where every sample is", values, values[0], 1e-5)
    before, state = D.w.detach().clone(), torch.random.get_rng_state()
    pair = [penalty(_quadratic, real + 1, fake * 3, rng()).item() for _ in range(2)]
    still = torch.equal(D.w, before) and D.w.grad is None and torch.equal(torch.random.get_rng_state(), state)
    yield holds("penalty", name, "draws from rng alone, and leaves the critic as it was", still and pair[0] == pair[1])


def linear(name: str, penalty: Penalty, weight: float) -> Rows:
    """D(x) = w·x: the value and its gradient in w, whatever is drawn."""
    values, expected, gradients, due = [], [], [], []
    for shape in SHAPES:
        for slope in SLOPES:
            D, w = (LinearCritic(shape, slope, dtype=torch.float64) for _ in range(2))
            real, fake = torch.randn(2, 7, *shape, generator=rng(), dtype=torch.float64)
            value, truth = penalty(D, real, fake, rng()), weight * TARGETS[name](w.w.norm())
            values.append(value.item())
            expected.append(truth.item())
            if slope and value.requires_grad:
                gradients += torch.autograd.grad(value, D.w)
                due += torch.autograd.grad(truth, w.w)
            elif slope and truth != 0:
                gradients, due = [*gradients, torch.zeros_like(w.w)], [*due, *torch.autograd.grad(truth, w.w)]
    said = f"{len(SLOPES)} slopes in {len(SHAPES)} shapes"
    yield close("linear critic", name, f"value, {said}", values, expected, rel=1e-5, abs=1e-9)
    if due:
        yield close("linear critic", name, "its gradient in w", torch.cat(gradients), torch.cat(due), 1e-5, 1e-9)


def zero_slope(name: str, penalty: Penalty, weight: float) -> Rows:
    """A flat critic: the value at slope 0, and no NaN in what it sends to the weights."""
    D = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1), torch.nn.Flatten(0))
    for w in D.parameters():
        torch.nn.init.zeros_(w)
    value = penalty(D, torch.ones(5, 4), -torch.ones(5, 4), rng())
    due = weight * TARGETS[name](torch.zeros(())).item()
    yield close("linear critic", name, "value where the critic is flat", value.item(), due, rel=1e-5, abs=1e-9)
    if value.requires_grad:
        found = torch.autograd.grad(value, list(D.parameters()), allow_unused=True)
        finite = all(g is None or g.isfinite().all() for g in found)
        yield holds("linear critic", name, "no NaN where the critic is flat", finite)


# For |x| uniform on [a, b], the mean of a penalty of weight 1; of `maxgp` the largest.
ON_LINE = {
    "gp": lambda a, b: ((b - 1) ** 3 - (a - 1) ** 3) / (3 * (b - a)),
    "lp": lambda a, b: (max(b, 1) - 1) ** 3 / (3 * (b - a)) - (max(a, 1) - 1) ** 3 / (3 * (b - a)),
    "zero_centred": lambda a, b: (b**3 - a**3) / (3 * (b - a)),
    "maxgp": lambda a, b: b**2,
}


def quadratic(name: str, penalty: Penalty, weight: float, n: int = 100_000) -> Rows:
    """D(x) = |x|^2/2 has slope |x|, and so tells where it was asked: reals a*e, fakes b*e with |e| = 1."""
    for a, b in ((0.0, 1.0), (3.0, 5.0)):
        found = penalty(_quadratic, along(a, n), along(b, n), rng()).item()
        error = 3 * b**2 / math.sqrt(n)  # no penalty here has a standard deviation above b^2
        claim = f"mean for reals at {a:g}, fakes at {b:g} along one direction"
        yield close("quadratic critic", name, claim, found, weight * ON_LINE[name](a, b), abs=weight * error)


def positions(name: str, penalty: Penalty) -> Rows:
    """x = real + u (fake - real), with one u for each sample, uniform on [0, 1]."""
    n, shape = 1000, (3, 5, 7)
    real = torch.randn(n, *shape, generator=rng(), dtype=torch.float64)
    fake = real + 1 + torch.rand(n, *shape, generator=rng(), dtype=torch.float64)
    u = ((asked(penalty, real, fake) - real) / (fake - real)).flatten(1)
    yield close("points", name, "one position along the line for all of a sample", u, u[:, :1].expand_as(u), abs=1e-9)
    moments = [u[:, 0].mean(), u[:, 0].square().mean(), u.min() >= 0, u.max() <= 1]
    yield close("points", name, "positions uniform on [0, 1]", torch.tensor(moments), [1 / 2, 1 / 3, 1, 1], abs=0.03)


# Real at radius a, fake at radius b.
AT_SAMPLES = {
    "r1": lambda a, b: a**2 / 2,
    "r2": lambda a, b: b**2 / 2,
    "r1r2": lambda a, b: (a**2 + b**2) / 2,
}


def at_samples(name: str, penalty: Penalty, weight: float) -> Rows:
    found = [penalty(_quadratic, along(a, 6), along(b, 6), rng()).item() for a, b in ((0, 1), (3, 5))]
    due = [weight * AT_SAMPLES[name](a, b) for a, b in ((0, 1), (3, 5))]
    yield close("quadratic critic", name, "value for reals at 0 and 3, fakes at 1 and 5", found, due, rel=1e-5)


def near_real(name: str, penalty: Penalty, weight: float, settings: dict[str, Any]) -> Rows:
    """Around reals at 5 and 9 on a line, the mean of (|x| - 1)^2 by quadrature over alpha and noise; fakes far away."""
    real = torch.tensor([5.0, 9.0], dtype=torch.float64).repeat(100_000)[:, None]
    found = [penalty(_quadratic, real, torch.full_like(real, far), rng()).item() for far in (0.0, 99.0)]
    shift = settings["scale"] * 2 * torch.outer(*_quantiles(settings, 500)).flatten()  # their std is 2
    x = real[:2] + shift
    if settings["clip"]:
        x = x.clamp(5, 9)
    yield close("points", name, "mean around reals on a line", found[0], weight * two_sided(x).mean(), rel=5e-3)
    yield holds("points", name, "does not look at the fakes", found[0] == found[1])
    yield from shifts(name, penalty, settings)


def _quantiles(settings: dict[str, Any], n: int) -> tuple[Tensor, Tensor]:
    """alpha and noise at n equally probable values each."""
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    low, high = settings["alpha"]
    return low + (high - low) * u, torch.special.ndtri(u) if settings["noise"] == "normal" else u


def shifts(name: str, penalty: Penalty, settings: dict[str, Any]) -> Rows:
    """shift = alpha * scale * std * noise: the batch has one std, a sample one alpha, an element its own noise."""
    real = torch.randn(3000, 4, 5, generator=rng(), dtype=torch.float64) * torch.linspace(0.2, 3, 5)
    x = asked(penalty, real, real + 50)
    if settings["clip"]:
        inside = bool(real.min() <= x.min() and x.max() <= real.max())
        yield holds("points", name, "stays within the range of the reals", inside)
    shift, kept = (x - real) / (settings["scale"] * real.std(correction=0)), (x > real.min()) & (x < real.max())
    alpha, noise = _quantiles(settings, 5000)
    columns = torch.stack([shift[..., j][kept[..., j]].square().mean() for j in range(5)])
    due = alpha.square().mean() * noise.square().mean()
    yield close("points", name, "mean square of the shift, the same in every column", columns, due, rel=0.06)
    together = (shift[:, :2] * shift[:, 2:]).mean()
    due = alpha.square().mean() * noise.mean() ** 2
    yield close("points", name, "a sample moves by one alpha, its elements by their own noise", together, due, abs=0.02)


def clips(penalty: Penalty, settings: dict[str, Any]) -> Rows:
    D = LinearCritic((50,), 3.0)
    before = D.w.detach().clone()
    penalty.project(D)
    c = settings["c"]
    yield close("clip", "clip", f"every weight within ±{c:g} after a step", D.w.detach(), before.clamp(-c, c), 1e-6)


def asked(penalty: Penalty, real: Tensor, fake: Tensor) -> Tensor:
    """Where the penalty differentiates the critic."""
    seen: list[Tensor] = []

    def watching(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    penalty(watching, real, fake, rng())
    return torch.cat(seen)


def along(length: float, n: int) -> Tensor:
    """n equal samples of that length, in a direction in which all of 16 coordinates take part."""
    return torch.full((n, 1, 4, 4), length / 4, dtype=torch.float64)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _quadratic(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1) / 2
