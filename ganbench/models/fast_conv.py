"""Convolutions where torch's own take longer than they need to: the same functions, but for rounding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import conv2d, conv_transpose2d, fold

Grads = tuple[Tensor | None, ...]


def doubling(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A transposed convolution by 4x4 filters: [N, n, H, W] -> [N, m, 2H, 2W].

    Where the channels are innermost the bias is added apart: its gradient takes torch as long as all others together.
    """
    if _is_grey(x, weight):
        return _to_grey(x, weight, [2 * n for n in x.shape[2:]]) + bias.view(-1, 1, 1)
    if x.is_contiguous():
        return conv_transpose2d(x, weight, bias, stride=2, padding=1)
    y = conv_transpose2d(x, weight, stride=2, padding=1)
    return y + bias.to(y.dtype).view(-1, 1, 1)


def _is_grey(y: Tensor, weight: Tensor) -> bool:
    """On a CPU a single channel is where torch takes four times as long as it needs to; in fp32, whose digits last."""
    exact = y.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return exact and y.device.type == "cpu" and weight.shape[1:] == (1, 4, 4)


def _to_grey(y: Tensor, weight: Tensor, size: Sequence[int]) -> Tensor:
    """What y [N, n, H, W] adds to images of this size by filters [n, 1, 4, 4]: all products, then their sums."""
    return fold(weight.flatten(1).T @ y.flatten(2), size, 4, padding=1, stride=2)


class Doubling(nn.ConvTranspose2d):
    """`doubling` as a layer."""

    def __init__(self, n: int, m: int):
        super().__init__(n, m, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return doubling(x, self.weight, self.bias)


def conv(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """torch's conv2d, for critics whose slope is trained: its gradient by x, differentiated, costs two more gradients.

    In torch the filters' part of that is a convolution by filters as large as the images, which takes twice as long.
    torch.func cannot look into it.
    """
    device = x.device.type
    if x.dtype != torch.float64 and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        x, weight, bias = (t.to(torch.get_autocast_dtype(device)) for t in (x, weight, bias))
    return _Images.apply(x, weight, bias, _Filters.apply(weight, bias, (x,), stride, padding), stride, padding)


class Conv(nn.Conv2d):
    """`conv` as a layer; `fast_double_backward` false: torch's."""

    def __init__(self, n: int, m: int, side: int, stride: int = 1, padding: int = 0, fast_double_backward: bool = True):
        super().__init__(n, m, side, stride, padding)
        self.conv = conv if fast_double_backward else conv2d

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.weight, self.bias, self.stride[0], self.padding[0])


class _Images(Function):
    """The convolution as a function of x alone: a penalty's first gradient is by x, and then `_Filters` is left out."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, filters: Tensor, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how, ctx.linear_in_each = (stride, padding), True
        ctx.set_materialize_grads(False)
        return conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, by_y: Tensor | None) -> Grads:
        by_x = None
        if by_y is not None and ctx.needs_input_grad[0]:
            x, weight = ctx.saved_tensors
            by_x = _ByImages.apply(by_y, x.detach(), weight, *ctx.how)
        return by_x, None, None, by_y, None, None


class _Filters(Function):
    """The same as a function of filters and bias: 0 [N, m, H, W], without memory, for the sake of its gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, x: tuple[Tensor], stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x[0], weight)  # x is no argument: no gradient by it goes through here
        ctx.how = stride, padding
        ctx.set_materialize_grads(False)
        side = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x[0].shape[2:], weight.shape[2:], strict=True)]
        return weight.new_zeros(()).expand(len(x[0]), len(bias), *side)

    @staticmethod
    def backward(ctx: Any, by_y: Tensor | None) -> Grads:
        if by_y is None:
            return (None,) * 5
        return *_gradients(by_y, *ctx.saved_tensors, *ctx.how, (False, True, True))[1:], None, None, None


class _ByImages(Function):
    """The gradient by x, which is linear in that by y and in the filters; of x only the shape matters."""

    @staticmethod
    def forward(ctx: Any, by_y: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(by_y, weight)
        ctx.how = stride, padding
        if _is_grey(by_y, weight) and ctx.how == (2, 1):
            return _to_grey(by_y, weight, x.shape[2:])
        return _gradients(by_y, x, weight, stride, padding, (True, False, False))[0]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Grads:
        by_y, weight = ctx.saved_tensors
        by_weight = _gradients(by_y, v, weight, *ctx.how, (False, True, False))[1]
        return conv2d(v, weight, None, *ctx.how), None, by_weight, None, None


def _gradients(
    by_y: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, wanted: tuple[bool, ...]
) -> tuple[Tensor, ...]:
    """By x, weight and bias, as far as wanted."""
    return torch.ops.aten.convolution_backward(
        by_y, x, weight, [len(weight)], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, wanted
    )
