"""Penalties on critics whose gradient is known."""

import pytest
import torch
from conftest import settings
from torch import Tensor, nn

from ganbench.config import build
from ganbench.penalties import Clip, around, dragan, gp, lp, none, r1, slope

SHAPES = [(2,), (1, 5, 5), (3, 4, 4)]


class Linear(nn.Module):
    """D(x) = w . x, whose slope is |w| everywhere."""

    def __init__(self, w: Tensor):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.w).flatten(1).sum(1)


def quadratic(x: Tensor) -> Tensor:
    """D(x) = |x|^2 / 2, whose slope is |x|: it tells where a penalty looks."""
    return x.flatten(1).square().sum(1) / 2


def along_first_axis(value: float, n: int, d: int = 4) -> Tensor:
    x = torch.zeros(n, d, dtype=torch.float64)
    x[:, 0] = value
    return x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [0.3, 1.0, 2.5])
def test_linear_critic(shape: tuple[int, ...], size: float, rng: torch.Generator) -> None:
    w = torch.randn(shape, generator=rng, dtype=torch.float64)
    D = Linear(w * size / w.norm())
    real, fake = torch.randn(2, 6, *shape, generator=rng, dtype=torch.float64)
    expected = {gp: 10 * (size - 1) ** 2, dragan: 10 * (size - 1) ** 2, lp: 10 * max(0, size - 1) ** 2, r1: 5 * size**2}
    outward = {gp: 20 * (size - 1), dragan: 20 * (size - 1), lp: 20 * max(0, size - 1), r1: 10 * size}
    for penalty, value in expected.items():
        found = penalty(D, real, fake, rng, weight=10.0)
        assert found.item() == pytest.approx(value, rel=1e-9, abs=1e-12)
        (gradient,) = torch.autograd.grad(found, D.w)
        torch.testing.assert_close(gradient, outward[penalty] * D.w.detach() / size, rtol=1e-9, atol=1e-9)


def test_where_line_penalties_look(rng: torch.Generator) -> None:
    """Slopes on the segment from 0 to 1 are uniform there: gp is weight / 3, lp 0; from 3 to 5 both weight * 28 / 3."""
    n = 100_000
    near, far = (along_first_axis(0, n), along_first_axis(1, n)), (along_first_axis(3, n), along_first_axis(5, n))
    assert gp(quadratic, *near, rng, weight=1.0).item() == pytest.approx(1 / 3, abs=3 * 0.298 / n**0.5)
    assert lp(quadratic, *near, rng, weight=1.0).item() == 0
    for penalty in (gp, lp):
        assert penalty(quadratic, *far, rng, weight=1.0).item() == pytest.approx(28 / 3, abs=3 * 3.55 / n**0.5)


def test_one_position_for_each_sample(rng: torch.Generator) -> None:
    """Every coordinate of a point lies equally far along its segment, and no two samples share the share."""
    real, fake = torch.zeros(50, 3, 4, 4), torch.ones(50, 3, 4, 4)
    seen: list[Tensor] = []
    gp(lambda x: (seen.append(x.detach()), x.flatten(1).sum(1))[1], real, fake, rng, weight=1.0)
    shares = seen[0].flatten(1)
    assert (shares == shares[:, :1]).all()
    assert len(shares[:, 0].unique()) == 50
    assert 0 <= shares.min() < 0.2 and 0.8 < shares.max() <= 1


def test_dragan_stays_near_the_real_samples_and_ignores_fakes() -> None:
    real = torch.linspace(-1, 1, 800).view(8, 1, 10, 10)
    values = [
        dragan(quadratic, real, fake, torch.Generator().manual_seed(1), weight=1.0).item()
        for fake in (torch.zeros_like(real), torch.full_like(real, 9.0))
    ]
    assert values[0] == values[1]
    std = real.std(correction=0)
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        x = around(real, rng, (-1.0, 1.0), "uniform", 0.5, clip=True)
        assert (x - real).abs().max() <= 0.5 * std
        assert x.min() >= -1 and x.max() <= 1
        moved = (x - real).flatten(1)
        inner = (x.flatten(1) > -1) & (x.flatten(1) < 1)
        assert all(len(row[keep].sign().unique()) == 1 for row, keep in zip(moved, inner, strict=True))


@pytest.mark.parametrize(
    ("option", "mean", "rms"),
    [
        ("dragan-notebook", 0.125, (1 / 9) ** 0.5 / 2),  # alpha and noise uniform on [0, 1]
        ("dragan-perturbed", 0.25, (1 / 3) ** 0.5 / 2),
        ("dragan-normal", 0.0, 0.5),
    ],
)
def test_the_authors_variants(option: str, mean: float, rms: float, rng: torch.Generator) -> None:
    """Mean and root mean square of the shift, in units of the batch's standard deviation."""
    seen: list[Tensor] = []
    real = torch.randn(4000, 20, generator=rng)
    penalty = build(settings(f"penalty={option}").penalty)
    penalty(lambda x: (seen.append(x.detach()), x.sum(1))[1], real, real, rng)
    shift = (seen[0] - real) / real.std(correction=0)
    assert shift.mean().item() == pytest.approx(mean, abs=0.005)
    assert shift.square().mean().sqrt().item() == pytest.approx(rms, rel=0.02)


def test_r1_looks_at_real_samples_only(rng: torch.Generator) -> None:
    assert r1(quadratic, along_first_axis(3, 8), along_first_axis(7, 8), rng, weight=2.0).item() == pytest.approx(9)


@pytest.mark.parametrize(("penalty", "value"), [(gp, 10), (lp, 0), (dragan, 10), (r1, 0)])
def test_no_nan_where_the_gradient_is_zero(penalty, value: float, rng: torch.Generator) -> None:
    D = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    for weight in D.parameters():
        nn.init.zeros_(weight)
    found = penalty(D, torch.randn(5, 4), torch.randn(5, 4), rng, weight=10.0)
    found.backward()
    assert found.item() == value
    assert all(w.grad is None or w.grad.isfinite().all() for w in D.parameters())


def test_slope_is_per_sample_over_all_dimensions() -> None:
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(slope(quadratic, x).detach(), x.flatten(1).norm(dim=1))


def test_none_and_clip(rng: torch.Generator) -> None:
    D, x = Linear(torch.tensor([0.5, -0.001, -3.0])), torch.ones(2, 3)
    clip = Clip(c=0.01)
    assert none(D, x, x, rng).item() == clip(D, x, x, rng).item() == 0
    clip.project(D)
    assert D.w.tolist() == pytest.approx([0.01, -0.001, -0.01])


def test_noise_comes_from_rng_alone() -> None:
    x = torch.randn(6, 1, 4, 4)
    for penalty in (gp, lp, dragan):
        torch.manual_seed(1)
        a = penalty(quadratic, x, -x, torch.Generator().manual_seed(5), weight=1.0)
        state = torch.random.get_rng_state()
        torch.manual_seed(2)
        b = penalty(quadratic, x, -x, torch.Generator().manual_seed(5), weight=1.0)
        assert a.item() == b.item()
        torch.manual_seed(1)
        assert (torch.random.get_rng_state() == state).all()
