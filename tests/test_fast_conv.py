"""Our convolutions are torch's: values, gradients, gradients of gradients, and what these cost."""

import pytest
import torch
from conftest import settings
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d
from torch.utils.flop_counter import FlopCounterMode

from ganbench.config.compose import build
from ganbench.models.fast_conv import Conv, Doubling, conv, doubling, torch_conv

FORMATS = [torch.contiguous_format, torch.channels_last]


def drawn(*shape: int, format: torch.memory_format = torch.contiguous_format, dtype=torch.float64) -> Tensor:
    made = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))
    return (made.to(memory_format=format) if made.dim() == 4 else made).requires_grad_()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("side", "stride", "padding"), [(4, 2, 1), (3, 1, 1), (1, 1, 0)])
def test_a_convolution_s_two_derivatives(n: int, side: int, stride: int, padding: int) -> None:
    given = drawn(2, n, 6, 8), drawn(2, n, side, side), drawn(2)
    assert torch.autograd.gradcheck(lambda x, w, b: conv(x, w, b, stride, padding), given)
    assert torch.autograd.gradgradcheck(lambda x, w, b: conv(x, w, b, stride, padding), given)


@pytest.mark.parametrize(("groups", "side", "padding"), [(2, 3, 1), (4, 4, 0)])
def test_in_groups_and_without_bias(groups: int, side: int, padding: int) -> None:
    given = drawn(2, 4, 5, 4), drawn(4, 4 // groups, side, side)
    assert torch.autograd.gradcheck(lambda x, w: conv(x, w, None, 1, padding, groups), given)
    assert torch.autograd.gradgradcheck(lambda x, w: conv(x, w, None, 1, padding, groups), given)
    torch.testing.assert_close(conv(*given, None, 1, padding, groups), conv2d(*given, None, 1, padding, groups=groups))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("m", [1, 3])
def test_a_doubling_is_a_transposed_convolution(m: int, format: torch.memory_format) -> None:
    x, w, b = drawn(3, 4, 5, 5, format=format), drawn(4, m, 4, 4), drawn(m)
    ours, theirs = doubling(x, w, b), conv_transpose2d(x, w, b, 2, 1)
    torch.testing.assert_close(ours, theirs)
    upstream = drawn(*ours.shape).detach()
    torch.testing.assert_close(*(torch.autograd.grad(y, (x, w, b), upstream) for y in (ours, theirs)))
    assert torch.autograd.gradgradcheck(doubling, (x, w, b))


@pytest.mark.parametrize("format", FORMATS)
def test_to_a_single_channel_in_single_precision(format: torch.memory_format) -> None:
    """Which goes another way on a CPU: doubling's value, and conv's gradient by x."""
    x, w, b = (drawn(*s, format=format, dtype=torch.float32) for s in ((8, 16, 16, 12), (16, 1, 4, 4), (1,)))
    torch.testing.assert_close(doubling(x, w, b), conv_transpose2d(x, w, b, 2, 1), rtol=1e-5, atol=1e-4)
    images, bias = drawn(8, 1, 32, 24, format=format, dtype=torch.float32), drawn(16, dtype=torch.float32)
    found = [torch.autograd.grad(f(images, w, bias, 2, 1).square().sum(), images) for f in (conv, conv2d)]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("half", [False, True])
def test_without_a_penalty_no_bit_differs_from_torch(half: bool, format: torch.memory_format) -> None:
    x, w, b = (drawn(*s, format=format, dtype=torch.float32) for s in ((4, 8, 16, 16), (8, 8, 3, 3), (8,)))
    found = []
    for f in (conv, conv2d):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = f(x, w, b, 1, 1)
        assert y.dtype == (torch.bfloat16 if half else torch.float32) and y.is_contiguous(memory_format=format)
        found.append([y, *torch.autograd.grad(y.float().square().sum(), (x, w, b))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_gradient_by_x_alone_leaves_the_filters_out() -> None:
    x, w, b = drawn(2, 3, 8, 8), drawn(5, 3, 3, 3), drawn(5)
    y = conv(x, w, b, 1, 1).sum()
    counted = {}
    for name, wanted in (("x", [x]), ("all", [x, w, b])):
        with FlopCounterMode(display=False) as counter:
            torch.autograd.grad(y, wanted, create_graph=True)
        counted[name] = counter.get_total_flops()
    assert counted["all"] == 2 * counted["x"] > 0


def test_what_was_changed_in_place_is_reported() -> None:
    x, w, b = drawn(2, 3, 8, 8).detach(), drawn(5, 3, 3, 3), drawn(5)
    y = conv(x, w, b, 1, 1).sum()
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_the_switch_reaches_the_critic() -> None:
    for direct in (True, False):
        D = build(
            settings(
                "model=sngan_resnet", "model.width=4", f"model.fast_double_backward={str(direct).lower()}"
            ).model.critic
        )
        assert {m.conv for m in D.modules() if isinstance(m, Conv)} == {conv if direct else torch_conv}


def test_layers_have_torch_s_weights() -> None:
    for ours, theirs in (
        (Conv(3, 5, 4, 2, 1), nn.Conv2d(3, 5, 4, 2, 1)),
        (Conv(3, 6, 3, 1, 1, groups=3, bias=False), nn.Conv2d(3, 6, 3, 1, 1, groups=3, bias=False)),
        (Doubling(3, 5), nn.ConvTranspose2d(3, 5, 4, 2, 1)),
    ):
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(2, 3, 8, 8)
        torch.testing.assert_close(ours(x), theirs(x))
        assert str(ours).split("(")[1:] == str(theirs).split("(")[1:]
