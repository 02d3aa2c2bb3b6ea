"""The residual nets of SNGAN for images of 32x32, 48x48, 64x64 and 128x128 (Miyato et al. 2018, arXiv:1802.05957).

Tables 4 (32x32), 5 (48x48) and 6 (128x128) of the paper; for 64x64 the authors' code, which is table 6 without its
middle. `width` is the number of channels at the full resolution. The paper has 256 in the generator and 128 in the
critic for 32x32, and 64 in both for larger images. Inside a block of the critic there are as many channels as before
it, inside one of the generator as many as after it, as in the authors' code.

Every change of resolution is fused into the convolution next to it. Both are linear, so this is an identity, not an
approximation: the same weights and the same function, except for rounding, for less than half of the products.
`fuse_rescaling=False` computes them one after the other, as the paper writes them.
"""

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from ganbench.models import layers
from ganbench.models.fast_conv import Conv, doubling
from ganbench.models.group_norm import norm_layer


class Table(NamedTuple):
    """Channels as multiples of the width, from block to block."""

    generator: tuple[int, ...]  # after the first layer, and after each block, which doubles the resolution
    critic: tuple[int, ...]  # after each block
    halvings: int  # how many of the critic's blocks halve the resolution; the others follow


TABLES = {  # by the side of the images
    32: Table(generator=(1, 1, 1, 1), critic=(1, 1, 1, 1), halvings=2),
    48: Table(generator=(8, 4, 2, 1), critic=(1, 2, 4, 8, 16), halvings=4),
    64: Table(generator=(16, 8, 4, 2, 1), critic=(1, 2, 4, 8, 16), halvings=5),
    128: Table(generator=(16, 16, 8, 4, 2, 1), critic=(1, 2, 4, 8, 16, 16), halvings=5),
}


class Generator(nn.Module):
    """Map z [N, z_dim] to images [N, C, S, S] in [-1, 1]; S is 32, 48, 64 or 128."""

    def __init__(self, shape: tuple[int, int, int], z_dim: int, width: int, fuse_rescaling: bool = True):
        super().__init__()
        widths = [width * multiple for multiple in TABLES[shape[1]].generator]
        side = shape[1] >> (len(widths) - 1)
        self.stem = nn.Sequential(nn.Linear(z_dim, widths[0] * side**2), nn.Unflatten(1, (widths[0], side, side)))
        self.body = nn.Sequential(*(_Up(n, m, fuse_rescaling) for n, m in pairwise(widths)))
        self.head = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, shape[0], 3, padding=1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        last_conv = self.head[2]
        assert isinstance(last_conv, nn.Conv2d)
        return self.head(self.body(layers.match_memory_format(last_conv.weight, self.stem(z))))


class Critic(nn.Module):
    """Map images [N, C, S, S] to logits [N]; S is 32, 48, 64 or 128.

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
        table = TABLES[shape[1]]
        widths = [width * multiple for multiple in table.critic]
        options = _Options(norm, fuse_rescaling, fast_double_backward)
        self.body = nn.Sequential(
            _First(shape[0], width, options),
            *(_Down(n, m, options) for n, m in pairwise(widths[: table.halvings])),
            *(_Flat(n, m, options) for n, m in pairwise(widths[table.halvings - 1 :])),
            nn.ReLU(),
        )
        self.head = layers.norm_wrapper(norm)(nn.Linear(widths[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).sum((2, 3))).squeeze(1)


class _Options(NamedTuple):
    """How the layers of a critic are made."""

    norm: str
    fuse_rescaling: bool
    fast_double_backward: bool

    def norm_layer(self, channels: int) -> nn.Module:
        return norm_layer(self.norm, channels, self.fast_double_backward)

    def conv(self, n: int, m: int, side: int = 3) -> nn.Module:
        """Make a convolution that keeps the resolution."""
        conv = Conv(n, m, side, padding=side // 2, fast_double_backward=self.fast_double_backward)
        return layers.norm_wrapper(self.norm)(conv)

    def down_conv(self, n: int, m: int) -> nn.Module:
        """Make a convolution that halves it."""
        return layers.norm_wrapper(self.norm)(DownConv(n, m, self.fuse_rescaling, self.fast_double_backward))


class _Up(nn.Module):
    """A generator block: [N, n, H, W] -> [N, m, 2H, 2W]."""

    def __init__(self, n: int, m: int, fuse_rescaling: bool):
        super().__init__()
        first = [nn.BatchNorm2d(n), nn.ReLU(), UpConv(n, m, fuse_rescaling)]
        self.body = nn.Sequential(*first, nn.BatchNorm2d(m), nn.ReLU(), nn.Conv2d(m, m, 3, padding=1))
        self.shortcut = nn.Conv2d(n, m, 1)
        self.fuse_rescaling = fuse_rescaling

    def forward(self, x: Tensor) -> Tensor:
        if self.fuse_rescaling:  # a 1x1 convolution commutes with doubling, and has a quarter of the pixels before it
            return self.body(x) + interpolate(self.shortcut(x), scale_factor=2)
        return self.body(x) + self.shortcut(interpolate(x, scale_factor=2))


class _First(nn.Module):
    """The critic's first block: [N, C, H, W] -> [N, w, H/2, W/2]. It sees pixels, so no activation comes first."""

    def __init__(self, channels: int, w: int, options: _Options):
        super().__init__()
        self.body = nn.Sequential(options.conv(channels, w), nn.ReLU(), options.down_conv(w, w))
        self.shortcut = options.conv(channels, w, side=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(avg_pool2d(x, 2))


class _Down(nn.Module):
    """A critic block: [N, n, H, W] -> [N, m, H/2, W/2]."""

    def __init__(self, n: int, m: int, options: _Options):
        super().__init__()
        first = [options.norm_layer(n), nn.ReLU(), options.conv(n, n)]
        self.body = nn.Sequential(*first, options.norm_layer(n), nn.ReLU(), options.down_conv(n, m))
        self.shortcut = options.conv(n, m, side=1)
        self.fuse_rescaling = options.fuse_rescaling

    def forward(self, x: Tensor) -> Tensor:
        if self.fuse_rescaling:  # a 1x1 convolution commutes with the mean, too
            return self.body(x) + self.shortcut(avg_pool2d(x, 2))
        return self.body(x) + avg_pool2d(self.shortcut(x), 2)


class _Flat(nn.Module):
    """A critic block that keeps the resolution: [N, n, H, W] -> [N, m, H, W]."""

    def __init__(self, n: int, m: int, options: _Options):
        super().__init__()
        first = [options.norm_layer(n), nn.ReLU(), options.conv(n, n)]
        self.body = nn.Sequential(*first, options.norm_layer(n), nn.ReLU(), options.conv(n, m))
        self.shortcut = nn.Identity() if n == m else options.conv(n, m, side=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


# Which taps of a 3-tap filter add up to each tap of the 4-tap filter that does the same and rescales.
# Nearest-neighbor doubling, then the filter: y[2i] = w0 x[i-1] + (w1 + w2) x[i], y[2i+1] = (w0 + w1) x[i] + w2 x[i+1].
# The filter, then the mean of two: y[i] = (w0 x[2i-1] + (w0 + w1) x[2i] + (w1 + w2) x[2i+1] + w2 x[2i+2]) / 2.
UP = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
DOWN = ((0.5, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (0.0, 0.0, 0.5))


class UpConv(nn.Conv2d):
    """Nearest-neighbor doubling, then a 3x3 convolution: [N, n, H, W] -> [N, m, 2H, 2W]."""

    bias: nn.Parameter  # always there
    taps: Tensor

    def __init__(self, n: int, m: int, fuse_rescaling: bool):
        super().__init__(n, m, 3, padding=1)
        self.fuse_rescaling = fuse_rescaling
        self.register_buffer("taps", torch.tensor(UP), persistent=False)  # a buffer moves with the weights

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
        self.register_buffer("taps", torch.tensor(DOWN), persistent=False)  # a buffer moves with the weights

    def forward(self, x: Tensor) -> Tensor:
        if not self.fuse_rescaling:
            return avg_pool2d(super().forward(x), 2)
        return self.conv(x, _filters_4x4(self.weight, self.taps), self.bias, 2, 1)


def _filters_4x4(weight: Tensor, taps: Tensor) -> Tensor:
    """Turn 3x3 filters [m, n, 3, 3] into 4x4 ones, by `taps` along both axes: one product for all filters."""
    m, n = weight.shape[:2]
    return (weight.reshape(m * n, 9) @ torch.kron(taps, taps).T).view(m, n, 4, 4)
