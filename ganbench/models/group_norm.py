"""Group norm with an analytic second derivative, for critics under a gradient penalty: torch composes its own of some
150 small operations, which take longer than all convolutions where the nets are small or the device is a GPU.

In the notation below, means are over the elements of a group, x̂ = (x - mean(x)) r with r = 1 / std(x), and
P(q) = q - mean(q) - x̂ mean(q x̂). The first derivative is r P(q) with q = w by_y, which torch has a kernel for.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from ganbench.models.layers import match_memory_format

Gradients = tuple[Tensor | None, ...]
aten = torch.ops.aten


def norm_layer(norm: str, channels: int, fast_double_backward: bool) -> nn.Module:
    """Return "layer" or "instance" norm of images with so many channels; for another name, what does nothing."""
    groups = {"layer": 1, "instance": channels}.get(norm)
    return GroupNorm(groups, channels, fast_double_backward) if groups else nn.Identity()


class GroupNorm(nn.GroupNorm):
    """torch's GroupNorm on images [N, C, H, W], by `group_norm` unless `fast_double_backward` is false.

    It works on a copy if the channels are innermost: on those it takes up to ten times as long.
    """

    def __init__(self, groups: int, channels: int, fast_double_backward: bool = True):
        super().__init__(groups, channels)
        self.fast_double_backward = fast_double_backward

    def forward(self, x: Tensor) -> Tensor:
        return match_memory_format(x, self._normalize(x.contiguous()))

    def _normalize(self, x: Tensor) -> Tensor:
        if not self.fast_double_backward:
            return super().forward(x)
        if x.is_cuda and torch.is_autocast_enabled("cuda"):
            x = x.to(self.weight.dtype)  # as autocast does with torch's
        if x.dtype != self.weight.dtype:  # in bf16 on a CPU
            return super().forward(x)
        return group_norm(x, self.weight, self.bias, self.num_groups, self.eps)


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """Normalize images x [N, C, H, W] in `groups` groups of channels, then scale and shift each channel."""
    return _Norm.apply(x, weight, bias, groups, eps)


class _Norm(Function):
    """The norm. Its gradient is a function of its own, so that it can be differentiated in turn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        y, mean, r = aten.native_group_norm(x, weight, bias, *_sizes(x), groups, eps)
        ctx.save_for_backward(x, weight, mean, r)
        ctx.groups = groups
        return y

    @staticmethod
    def backward(ctx: Any, by_y: Tensor) -> Gradients:
        x, weight, mean, r = ctx.saved_tensors
        by_x, by_weight, by_bias = _Gradient.apply(by_y.contiguous(), x, weight, mean, r, ctx.groups)
        return by_x, by_weight, by_bias, None, None


class _Gradient(Function):
    """The gradients by x, weight and bias, from that by y."""

    @staticmethod
    def forward(
        ctx: Any, by_y: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor, groups: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        by_x, by_weight, by_bias = _first_derivative(by_y, x, mean, r, weight, groups)
        ctx.save_for_backward(by_y, x, weight, mean, r, by_x)
        ctx.groups = groups
        ctx.set_materialize_grads(False)
        return by_x, by_weight, by_bias

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, v_weight: Tensor | None, v_bias: Tensor | None) -> Gradients:
        """Differentiate <v, by_x> + <v_weight, by_weight> + <v_bias, by_bias>."""
        by_y, x, weight, mean, r, by_x = ctx.saved_tensors
        terms: list[Gradients] = [(None, None, None)]
        if v is not None:
            terms.append(_of_by_x(v.contiguous(), by_y, x, weight, mean, r, by_x, ctx.groups))
        if v_weight is not None:
            terms.append(_of_by_weight(v_weight, by_y, x, mean, r, ctx.groups))
        if v_bias is not None:
            terms.append((v_bias.view(-1, 1, 1).expand_as(by_y), None, None))
        by_by_y, by_x_again, by_weight = (_sum(parts) for parts in zip(*terms, strict=True))
        return by_by_y, by_x_again, by_weight, None, None, None


def _of_by_x(
    v: Tensor, by_y: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor, by_x: Tensor, groups: int
) -> Gradients:
    """Return the gradients by by_y, x and weight of <v, by_x> = <u, w by_y> with u = r P(v).

    By x: -r (mean(v by_x) x̂ + mean(v x̂) by_x + mean(w by_y x̂) u), since x̂ moves by r P and r by -r² x̂ / m.
    """
    u, _, _ = _first_derivative(v, x, mean, r, None, groups)
    w = weight.view(-1, 1, 1)
    parts = (v, by_x, u, _normalized(x, mean, r, groups), w * by_y)
    v_, by_x_, u_, normalized, q = (part.view(len(x), groups, -1) for part in parts)
    of_x = (v_ * by_x_).mean(2, keepdim=True) * normalized
    of_x = torch.addcmul(of_x, (v_ * normalized).mean(2, keepdim=True), by_x_)
    of_x = torch.addcmul(of_x, (q * normalized).mean(2, keepdim=True), u_)
    return w * u, (-r[:, :, None] * of_x).view_as(x), (by_y * u).sum((0, 2, 3))


def _of_by_weight(v: Tensor, by_y: Tensor, x: Tensor, mean: Tensor, r: Tensor, groups: int) -> Gradients:
    """Return the gradients by by_y and x of <v, by_weight>, the sum of v by_y x̂."""
    by_x, _, _ = _first_derivative(by_y, x, mean, r, v, groups)
    return v.view(-1, 1, 1) * _normalized(x, mean, r, groups), by_x, None


def _first_derivative(
    by_y: Tensor, x: Tensor, mean: Tensor, r: Tensor, weight: Tensor | None, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return r P(w by_y), and the gradients by weight and bias."""
    wanted = [True, weight is not None, weight is not None]
    return aten.native_group_norm_backward(by_y, x, mean, r, weight, *_sizes(x), groups, wanted)


def _normalized(x: Tensor, mean: Tensor, r: Tensor, groups: int) -> Tensor:
    """Return x̂."""
    grouped = x.view(len(x), groups, -1)
    return ((grouped - mean[:, :, None]) * r[:, :, None]).view_as(x)


def _sum(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return sum(known[1:], start=known[0]) if known else None


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """Return the numbers of samples, of channels, and of pixels, as torch's kernels want them."""
    n, channels, height, width = x.shape
    return n, channels, height * width
