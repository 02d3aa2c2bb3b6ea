"""Rescaling fused into convolutions is an identity: values, gradients and gradients of gradients, in float64."""

from pathlib import Path

import pytest
import torch
from conftest import rows, settings
from torch import nn

from ganbench.config.validate import validate
from ganbench.errors import Refused
from ganbench.models import dcgan, layers, sngan_resnet
from ganbench.models.group_norm import GroupNorm
from ganbench.penalties import input_gradient_norm
from ganbench.training.train import train

SMALL = (
    "model.width=8",
    "experiment=smoke",
    "wandb=disabled",
    "device=cpu",
    "protocol.images=128",
    "protocol.log_every=1",
)


@pytest.mark.parametrize("layer", [sngan_resnet.UpConv, sngan_resnet.DownConv])
@pytest.mark.parametrize("size", [(2, 2), (4, 6), (16, 16)])
def test_a_fused_layer_is_the_two_one_after_another(layer: type, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    fused, plain = layer(3, 5, True).double(), layer(3, 5, False).double()
    plain.load_state_dict(fused.state_dict())
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    ours, theirs = fused(x), plain(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(ours)
    for net, y in ((fused, ours), (plain, theirs)):
        net.reported = torch.autograd.grad(y, [x, *net.parameters()], upstream, retain_graph=True)
    for mine, its in zip(fused.reported, plain.reported, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("norm", ["none", "layer", "spectral"])
def test_fused_nets_are_the_paper_s(norm: str) -> None:
    """The critic with the gradient of its slope, which takes two derivatives; the generator with its gradient."""
    critics = _pair(lambda fused: sngan_resnet.Critic((3, 32, 32), 8, norm, fused))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    _same(*(_told(D, input_gradient_norm(D, x)) for D in critics))
    _same(*(_told(D, D(x)) for D in critics))
    generators = _pair(lambda fused: sngan_resnet.Generator((3, 32, 32), 16, 8, fused))
    z = torch.randn(4, 16, dtype=torch.float64)
    _same(*(_told(G, G(z)) for G in generators))


@pytest.mark.slow
def test_a_run_with_them(tmp_path: Path) -> None:
    """Fused or not, the records agree: to what rounding leaves after a few steps."""
    reported = []
    for fused in ("true", "false"):
        cfg = settings("model=sngan_resnet", f"model.fuse_rescaling={fused}", "loss=wgan-gp", *SMALL)
        train(cfg, tmp_path / fused)
        reported.append(rows(tmp_path / fused))
    steps = [[row for row in run if "d_loss" in row] for run in reported]
    assert len(steps[0]) == 4
    for ours, theirs in zip(*steps, strict=True):
        for name in ("d_loss", "d_penalty", "g_loss", "d_grad_norm", "g_grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-3, abs=1e-4)


def test_the_resnet_is_for_images_of_its_size() -> None:
    with pytest.raises(
        Refused, match="model=sngan_resnet needs images of 32x32, 48x48, 64x64, 128x128, and dataset=ring"
    ):
        validate(settings("dataset=ring", "model=sngan_resnet"))


def _pair(build) -> list[nn.Module]:
    torch.manual_seed(1)
    fused, plain = build(True).double(), build(False).double()
    plain.load_state_dict(fused.state_dict())
    return [fused, plain]


def _told(net: nn.Module, y: torch.Tensor) -> list[torch.Tensor]:
    gradients = torch.autograd.grad(y.square().sum(), list(net.parameters()), allow_unused=True)
    return [y, *(g for g in gradients if g is not None)]


def _same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs) > 10
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("norm", ["none", "instance", "spectral"])
@pytest.mark.parametrize("side", [16, 32, 64, 128])
def test_dcgan_halves_down_to_four(side: int, norm: str) -> None:
    """Channels double with each halving; so four times the pixels cost about twice the products."""
    G, D = dcgan.Generator((3, side, side), 8, 4), dcgan.Critic((3, side, side), 4, norm)
    x = G(torch.randn(2, 8))
    assert x.shape == (2, 3, side, side) and D(x).shape == (2,)
    convolutions = [m for m in D.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [m.out_channels * side // 2 ** (k + 1) for k, m in enumerate(convolutions)] == [2 * side] * len(convolutions)
    assert convolutions[-1].out_channels * 16 == D.head.in_features


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "ours, torchs", [(GroupNorm(2, 6), nn.GroupNorm(2, 6)), (layers.LogitHead(54, 1), nn.Linear(54, 1))]
)
def test_in_any_layout_layers_are_what_torch_has(format, ours: nn.Module, torchs: nn.Module) -> None:
    """Values, gradients, and a gradient penalty's gradients of gradients; images come back as they came."""
    for net in (ours.double(), torchs.double()):
        net.load_state_dict({k: torch.linspace(-1, 2, v.numel()).view_as(v) for k, v in ours.state_dict().items()})
    x = torch.randn(4, 6, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = []
    for net in (ours, torchs):
        seen = x.to(memory_format=format if net is ours else torch.contiguous_format).requires_grad_()
        y = net(seen) if net is not torchs or isinstance(net, nn.GroupNorm) else net(seen.flatten(1))
        assert y.dim() == 2 or y.is_contiguous(memory_format=format if net is ours else torch.contiguous_format)
        (slope,) = torch.autograd.grad((y**2).sum(), seen, create_graph=True)
        found.append([y, slope, *torch.autograd.grad((slope**2).sum(), [seen, *net.parameters()])])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
