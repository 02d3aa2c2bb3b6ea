"""Zeros that are dropped leave every gradient as it is, bit by bit, and are dropped only where they are zeros."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import TINY, rows, settings
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ganbench import penalties
from ganbench.bench.costs import NoModuleTracking
from ganbench.models import dcgan, infogan, linear_regions, mlp, r3gan, sngan_cnn, sngan_resnet
from ganbench.training.train import train

IMAGES, POINTS = (3, 32, 32), (2,)
CRITICS = {
    **{f"dcgan {norm}": partial(dcgan.Critic, IMAGES, 4, norm) for norm in ("none", "layer", "instance", "spectral")},
    **{f"sngan_resnet {norm}": partial(sngan_resnet.Critic, IMAGES, 4, norm) for norm in ("none", "layer", "spectral")},
    "sngan_resnet plain": partial(
        sngan_resnet.Critic, IMAGES, 4, "none", fuse_rescaling=False, fast_double_backward=False
    ),
    **{f"sngan_cnn {norm}": partial(sngan_cnn.Critic, IMAGES, 2, norm) for norm in ("none", "layer", "spectral")},
    **{f"infogan {norm}": partial(infogan.Critic, IMAGES, 2, norm) for norm in ("none", "layer", "spectral")},
    "r3gan": partial(r3gan.Critic, IMAGES, 8, 1),
    **{f"mlp {norm}": partial(mlp.Critic, POINTS, 16, norm) for norm in ("none", "layer", "spectral")},
}
LINEAR_BETWEEN_KINKS = [name for name in CRITICS if not name.endswith(("layer", "instance"))]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    linear_regions.enabled = True


def penalised(D: nn.Module, x: Tensor, skip: bool, half: bool = False) -> tuple[list[Tensor], int]:
    """Gradients of a loss and a penalty by all weights, and the products that the way back took."""
    linear_regions.enabled = skip
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        value = penalties.gp(D, x, x.flip(0), torch.Generator().manual_seed(0), 10.0) + D(x).sum()
    counted = FlopCounterMode(display=False)
    counted.mod_tracker = NoModuleTracking()
    with counted:
        found = torch.autograd.grad(value, list(D.parameters()))
    return list(found), counted.get_total_flops()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", CRITICS)
def test_no_bit_moves(name: str, format: torch.memory_format, half: bool) -> None:
    torch.manual_seed(0)
    D = CRITICS[name]().to(memory_format=format).eval()
    x = torch.randn(4, *(POINTS if "mlp" in name else IMAGES))
    x = x.to(memory_format=format) if x.dim() == 4 else x
    (expected, before), (found, after) = (penalised(D, x, skip, half) for skip in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert any(g.any() for g in found)
    assert after < 0.8 * before if name in LINEAR_BETWEEN_KINKS else after == before


class Own(nn.Module):
    """A critic of one's own with a layer that is not linear between kinks."""

    def __init__(self, f: Callable[[Tensor], Tensor]):
        super().__init__()
        self.first, self.last, self.f = nn.Linear(2, 8), nn.Linear(8, 1), f

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.f(self.first(x))).squeeze(1)


@pytest.mark.parametrize(
    "f",
    [
        torch.tanh,
        torch.nn.functional.silu,
        torch.square,
        lambda x: x * x.relu(),
        lambda x: x @ (x.T @ x),  # a product, but of x with itself
        lambda x: torch.bmm(x[:, :, None], x[:, None]).sum(2),
        lambda x: torch.nn.functional.conv1d(x[:, :, None], x[:, :, None]).sum(1).expand_as(x),
        lambda x: torch.layer_norm(x, (8,)),
    ],
)
def test_what_is_curved_keeps_its_gradients(f: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    D, x = Own(f).double(), torch.randn(5, 2, dtype=torch.float64)
    (expected, before), (found, after) = (penalised(D, x, skip) for skip in (False, True))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert after == before


class Relu(torch.autograd.Function):
    """Not what its name says."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, by_y: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * by_y


def test_names_are_not_trusted_to_others() -> None:
    torch.manual_seed(0)
    D, x = Own(Relu.apply).double(), torch.randn(5, 2, dtype=torch.float64)
    (expected, before), (found, after) = (penalised(D, x, skip) for skip in (False, True))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert after == before


def test_a_slope_that_anyone_may_ask_for_keeps_all() -> None:
    """A penalty of one's own may make something of D's layers as well: only shipped ones drop anything."""
    torch.manual_seed(0)
    D, x = Own(torch.relu), torch.randn(5, 2)
    seen: list[Tensor] = []
    D.first.register_forward_hook(lambda *call: seen.append(call[2]))
    found = []
    for skip in (False, True):
        linear_regions.enabled = skip
        value = penalties.input_gradient_norm(D, x).sum() + seen[-1].square().sum()
        found.append(torch.autograd.grad(value, list(D.parameters()), allow_unused=True)[0])
    assert torch.equal(*found)


def test_a_curved_critic_would_lose_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above can fail."""
    torch.manual_seed(0)
    D, x = Own(torch.tanh).double(), torch.randn(5, 2, dtype=torch.float64)
    expected, _ = penalised(D, x, False)
    monkeypatch.setattr(linear_regions, "PIECEWISE_LINEAR", linear_regions.PIECEWISE_LINEAR | {"Tanh"})
    found, _ = penalised(D, x, True)
    assert not torch.allclose(found[0], expected[0], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("other", [(), ("dataset=ring", "metric.n_real=256"), ("model=sngan_resnet",)])
def test_the_same_run_without(other: tuple[str, ...], tmp_path: Path) -> None:
    reported = []
    for skip in ("true", "false"):
        train(settings("loss=wgan-gp", *TINY, *other, f"speed.skip_zeros={skip}"), tmp_path / skip)
        assert linear_regions.enabled is (skip == "true")
        reported.append([{k: v for k, v in row.items() if not k.startswith("t_")} for row in rows(tmp_path / skip)])
    assert reported[0] == reported[1] and any("d_penalty" in row for row in reported[0])
