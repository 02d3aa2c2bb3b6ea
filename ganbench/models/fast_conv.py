"""Convolutions that take less time than torch's own: the same functions, except for rounding.

`doubling` is a transposed convolution, for generators. `conv` is a convolution for critics under a gradient penalty,
which differentiates twice. Its autograd Functions stand in the order of a penalty's passes: _Images and _Filters are
the convolution, _ImageGradient is the first derivative by the images.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import conv2d, conv_transpose2d, fold

Gradients = tuple[Tensor | None, ...]


class Doubling(nn.ConvTranspose2d):
    """`doubling` as a layer."""

    bias: nn.Parameter  # always there

    def __init__(self, n: int, m: int):
        super().__init__(n, m, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # the output size is always twice the input's
        return doubling(x, self.weight, self.bias)


class Conv(nn.Conv2d):
    """`conv` as a layer, or torch's convolution if `fast_double_backward` is false."""

    padding: tuple[int, int]  # never a word

    def __init__(
        self,
        n: int,
        m: int,
        side: int,
        stride: int = 1,
        padding: int = 0,
        fast_double_backward: bool = True,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__(n, m, side, stride, padding, groups=groups, bias=bias)
        self.conv = conv if fast_double_backward else torch_conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.weight, self.bias, self.stride[0], self.padding[0], self.groups)


def doubling(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the transposed convolution by filters [n, m, 4, 4] that doubles the size: [N, n, H, W] -> [N, m, 2H, 2W].

    If the channels are innermost, the bias is added separately: torch takes as long for the bias's gradient as for all
    others together.
    """
    if _is_slow_gray(x, weight):
        return _gray_products(x, weight, (2 * x.shape[2], 2 * x.shape[3])) + bias.view(-1, 1, 1)
    if x.is_contiguous():
        return conv_transpose2d(x, weight, bias, stride=2, padding=1)
    y = conv_transpose2d(x, weight, stride=2, padding=1)
    return y + bias.to(y.dtype).view(-1, 1, 1)


def _is_slow_gray(y: Tensor, weight: Tensor) -> bool:
    """Return whether filters [n, 1, 4, 4] make a single channel on a CPU, where torch takes four times too long.

    Only in fp32, since the sums of `_gray_products` would lose digits in bf16.
    """
    fp32 = y.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return fp32 and y.device.type == "cpu" and weight.shape[1:] == (1, 4, 4)


def _gray_products(y: Tensor, weight: Tensor, size: tuple[int, ...]) -> Tensor:
    """Apply the transposed convolution to y [N, n, H, W]: all products at once, then their sums at each pixel."""
    return fold(weight.flatten(1).T @ y.flatten(2), size, 4, padding=1, stride=2)


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    """Return torch's conv2d, with a gradient by x whose own gradients cost only two more convolutions.

    In torch the gradient by the filters among them is a convolution by filters as large as the images, which takes
    twice as long. torch.func cannot differentiate this function.
    """
    device = x.device.type
    if x.dtype != torch.float64 and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight, bias = x.to(dtype), weight.to(dtype), bias if bias is None else bias.to(dtype)
    zero = _Filters.apply(weight, bias, (x,), stride, padding, groups)
    return _Images.apply(x, weight, bias, zero, stride, padding, groups)


def torch_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, groups: int = 1) -> Tensor:
    """Return torch's conv2d, with the arguments of `conv`."""
    return conv2d(x, weight, bias, stride, padding, groups=groups)


class _Images(Function):
    """The convolution as a function of x alone. The gradients by filters and bias are left to `_Filters`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, zero: Tensor, stride: int, padding: int, groups: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sizes = stride, padding, groups
        ctx.linear_in_each = True  # for linear_regions.py
        ctx.set_materialize_grads(False)
        return torch_conv(x, weight, bias, stride, padding, groups)

    @staticmethod
    def backward(ctx: Any, by_y: Tensor | None) -> Gradients:
        by_x = None
        if by_y is not None and ctx.needs_input_grad[0]:
            x, weight = ctx.saved_tensors
            by_x = _ImageGradient.apply(by_y, x.detach(), weight, *ctx.sizes)
        return by_x, None, None, by_y, None, None, None


class _Filters(Function):
    """The convolution's share of the graph for filters and bias: its value is zero, and only its gradient is used.

    A penalty first asks for the gradient by x alone, but torch does not say which gradients are wanted
    (`needs_input_grad` is true for every argument that requires one: github.com/pytorch/pytorch/issues/56500).
    So filters and bias have a node of their own, which autograd runs only when their gradients are asked for.
    `_Images` takes its value as an argument and ignores it, but hands back the gradient by y to it. The value has the
    shape of y, as autograd requires, and is a single expanded zero, so that it takes no memory.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor | None, x: tuple[Tensor], stride: int, padding: int, groups: int
    ) -> Tensor:
        (images,) = x  # in a tuple, so that autograd does not see it: no gradient by x goes through here
        ctx.save_for_backward(images, weight)
        ctx.sizes = stride, padding, groups
        ctx.set_materialize_grads(False)
        height, width = (
            (n + 2 * padding - k) // stride + 1 for n, k in zip(images.shape[2:], weight.shape[2:], strict=True)
        )
        return weight.new_zeros(()).expand(len(images), len(weight), height, width)

    @staticmethod
    def backward(ctx: Any, by_y: Tensor | None) -> Gradients:
        if by_y is None:
            return (None,) * 6
        x, weight = ctx.saved_tensors
        wanted = (False, True, ctx.needs_input_grad[1])
        _, by_weight, by_bias = _convolution_gradients(by_y, x, weight, wanted, *ctx.sizes)
        return by_weight, by_bias, None, None, None, None


class _ImageGradient(Function):
    """The gradient by x. It is linear in the gradient by y and in the filters; of x only the shape matters."""

    @staticmethod
    def forward(ctx: Any, by_y: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, groups: int) -> Tensor:
        ctx.save_for_backward(by_y, weight)
        ctx.sizes = stride, padding, groups
        if _is_slow_gray(by_y, weight) and ctx.sizes == (2, 1, 1):
            return _gray_products(by_y, weight, x.shape[2:])
        return _convolution_gradients(by_y, x, weight, (True, False, False), stride, padding, groups)[0]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Gradients:
        by_y, weight = ctx.saved_tensors
        _, by_weight, _ = _convolution_gradients(by_y, v, weight, (False, True, False), *ctx.sizes)
        return torch_conv(v, weight, None, *ctx.sizes), None, by_weight, None, None, None


def _convolution_gradients(
    by_y: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool], stride: int, padding: int, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a convolution's gradients by x, filters and bias, from that by y; None for those that are not wanted."""
    return torch.ops.aten.convolution_backward(
        by_y, x, weight, [len(weight)], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups, wanted
    )
