"""The residual nets of SNGAN for 32x32 images (Miyato et al. 2018, arXiv:1802.05957, table 4).

Every change of resolution is fused into the convolution next to it. Both are linear, so this is an identity, not an
approximation: the same weights and the same function, except for rounding, for less than half of the products.
`fuse_rescaling=False` computes them one after the other, as the paper writes them.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from ganbench.models import layers
from ganbench.models.fast_conv import Conv, doubling
from ganbench.models.group_norm import GroupNorm


class Generator(nn.Module):
    """Map z [N, z_dim] to images [N, C, 32, 32] in [-1, 1]."""

    def __init__(self, shape: tuple[int, int, int], z_dim: int, width: int, fuse_rescaling: bool = True):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(z_dim, width * 16), nn.Unflatten(1, (width, 4, 4)))
        self.body = nn.Sequential(*(_Up(width, fuse_rescaling) for _ in range(3)))
        self.head = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, shape[0], 3, padding=1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        last_conv = self.head[2]
        assert isinstance(last_conv, nn.Conv2d)
        return self.head(self.body(layers.match_memory_format(last_conv.weight, self.stem(z))))


class Critic(nn.Module):
    """Map images [N, C, 32, 32] to logits [N].

    `fast_double_backward` uses layers that cost less under a gradient penalty (see fast_conv.py and group_norm.py).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        width: int,
        norm: Literal["none", "layer", "spectral"] = "spectral",
        fuse_rescaling: bool = True,
        fast_double_backward: bool = True,
    ):
        super().__init__()
        wrap = layers.norm_wrapper(norm)

        def norm_layer() -> nn.Module:
            return GroupNorm(1, width, fast_double_backward) if norm == "layer" else nn.Identity()

        def conv(channels: int, side: int = 3) -> nn.Module:
            """Make a convolution that keeps the resolution."""
            return wrap(Conv(channels, width, side, padding=side // 2, fast_double_backward=fast_double_backward))

        def down_conv() -> nn.Module:
            """Make a convolution that halves it."""
            return wrap(DownConv(width, width, fuse_rescaling, fast_double_backward))

        self.body = nn.Sequential(
            _First(shape[0], conv, down_conv),
            _Down(width, norm_layer, conv, down_conv, fuse_rescaling),
            _Flat(width, norm_layer, conv),
            _Flat(width, norm_layer, conv),
            nn.ReLU(),
        )
        self.head = wrap(nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).sum((2, 3))).squeeze(1)


class _Up(nn.Module):
    """A generator block: [N, w, H, W] -> [N, w, 2H, 2W]."""

    def __init__(self, w: int, fuse_rescaling: bool):
        super().__init__()
        first = [nn.BatchNorm2d(w), nn.ReLU(), UpConv(w, w, fuse_rescaling)]
        self.body = nn.Sequential(*first, nn.BatchNorm2d(w), nn.ReLU(), nn.Conv2d(w, w, 3, padding=1))
        self.shortcut = nn.Conv2d(w, w, 1)
        self.fuse_rescaling = fuse_rescaling

    def forward(self, x: Tensor) -> Tensor:
        if self.fuse_rescaling:  # a 1x1 convolution commutes with doubling, and has a quarter of the pixels before it
            return self.body(x) + interpolate(self.shortcut(x), scale_factor=2)
        return self.body(x) + self.shortcut(interpolate(x, scale_factor=2))


class _First(nn.Module):
    """The critic's first block: [N, C, H, W] -> [N, w, H/2, W/2]. It sees pixels, so no activation comes first."""

    def __init__(self, channels: int, conv: Callable[..., nn.Module], down_conv: Callable[[], nn.Module]):
        super().__init__()
        self.body = nn.Sequential(conv(channels), nn.ReLU(), down_conv())
        self.shortcut = conv(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(avg_pool2d(x, 2))


class _Down(nn.Module):
    """A critic block: [N, w, H, W] -> [N, w, H/2, W/2]."""

    def __init__(
        self,
        w: int,
        norm_layer: Callable[[], nn.Module],
        conv: Callable[..., nn.Module],
        down_conv: Callable[[], nn.Module],
        fuse_rescaling: bool,
    ):
        super().__init__()
        self.body = nn.Sequential(norm_layer(), nn.ReLU(), conv(w), norm_layer(), nn.ReLU(), down_conv())
        self.shortcut = conv(w, 1)
        self.fuse_rescaling = fuse_rescaling

    def forward(self, x: Tensor) -> Tensor:
        if self.fuse_rescaling:  # a 1x1 convolution commutes with the mean, too
            return self.body(x) + self.shortcut(avg_pool2d(x, 2))
        return self.body(x) + avg_pool2d(self.shortcut(x), 2)


class _Flat(nn.Module):
    """A critic block that keeps the resolution."""

    def __init__(self, w: int, norm_layer: Callable[[], nn.Module], conv: Callable[..., nn.Module]):
        super().__init__()
        self.body = nn.Sequential(norm_layer(), nn.ReLU(), conv(w), norm_layer(), nn.ReLU(), conv(w))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x


# Which taps of a 3-tap filter add up to each tap of the 4-tap filter that does the same and rescales.
# Nearest-neighbor doubling, then the filter: y[2i] = w0 x[i-1] + (w1 + w2) x[i], y[2i+1] = (w0 + w1) x[i] + w2 x[i+1].
# The filter, then the mean of two: y[i] = (w0 x[2i-1] + (w0 + w1) x[2i] + (w1 + w2) x[2i+1] + w2 x[2i+2]) / 2.
UP = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
DOWN = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]) / 2


class UpConv(nn.Conv2d):
    """Nearest-neighbor doubling, then a 3x3 convolution: [N, n, H, W] -> [N, m, 2H, 2W]."""

    bias: nn.Parameter  # always there
    taps: Tensor

    def __init__(self, n: int, m: int, fuse_rescaling: bool):
        super().__init__(n, m, 3, padding=1)
        self.fuse_rescaling = fuse_rescaling
        self.register_buffer("taps", UP.clone(), persistent=False)  # a buffer moves to the device of the weights

    def forward(self, x: Tensor) -> Tensor:
        if not self.fuse_rescaling:
            return super().forward(interpolate(x, scale_factor=2))
        filters = _filters_4x4(self.weight, self.taps).transpose(0, 1)
        return doubling(x, filters, self.bias)


class DownConv(Conv):
    """A 3x3 convolution, then the mean of each 2x2 pixels: [N, n, 2H, 2W] -> [N, m, H, W]."""

    taps: Tensor

    def __init__(self, n: int, m: int, fuse_rescaling: bool, fast_double_backward: bool = True):
        super().__init__(n, m, 3, padding=1, fast_double_backward=fast_double_backward)
        self.fuse_rescaling = fuse_rescaling
        self.register_buffer("taps", DOWN.clone(), persistent=False)  # a buffer moves to the device of the weights

    def forward(self, x: Tensor) -> Tensor:
        if not self.fuse_rescaling:
            return avg_pool2d(super().forward(x), 2)
        return self.conv(x, _filters_4x4(self.weight, self.taps), self.bias, 2, 1)


def _filters_4x4(weight: Tensor, taps: Tensor) -> Tensor:
    """Turn 3x3 filters [m, n, 3, 3] into 4x4 ones, by `taps` along both axes: one product for all filters."""
    m, n = weight.shape[:2]
    return (weight.reshape(m * n, 9) @ torch.kron(taps, taps).T).view(m, n, 4, 4)
