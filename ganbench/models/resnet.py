"""The residual nets of SNGAN for 32x32 images (Miyato et al. 2018, arXiv:1802.05957, table 4).

Every rescaling is fused into the convolution beside it. Both are linear, so this is an identity, not an approximation:
the same weights, and the same function but for rounding, for less than half of the products. `fuse_rescaling=False` computes
them one after another, as the paper writes them.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from ganbench.models import layers
from ganbench.models.fast_conv import Conv, doubling

# Which taps of a 3-tap filter meet in each tap of the 4-tap one. Nearest doubling, then the filter:
# y[2i] = w0 x[i-1] + (w1 + w2) x[i] and y[2i+1] = (w0 + w1) x[i] + w2 x[i+1]. The filter, then the mean of two:
# y[i] = (w0 x[2i-1] + (w0 + w1) x[2i] + (w1 + w2) x[2i+1] + w2 x[2i+2]) / 2.
UP = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
DOWN = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]) / 2


class UpConv(nn.Conv2d):
    """Nearest doubling, then a 3x3 convolution: [N, n, H, W] -> [N, m, 2H, 2W]."""

    def __init__(self, n: int, m: int, fuse_rescaling: bool):
        super().__init__(n, m, 3, padding=1)
        self.fuse_rescaling = fuse_rescaling
        self.register_buffer("taps", UP.clone(), persistent=False)  # where the weights are

    def forward(self, x: Tensor) -> Tensor:
        if not self.fuse_rescaling:
            return super().forward(interpolate(x, scale_factor=2))
        taps = _spread(self.weight, self.taps).transpose(0, 1)
        return doubling(x, taps, self.bias)


class DownConv(Conv):
    """A 3x3 convolution, then the mean of each 2x2: [N, n, 2H, 2W] -> [N, m, H, W]."""

    def __init__(self, n: int, m: int, fuse_rescaling: bool, fast_double_backward: bool = True):
        super().__init__(n, m, 3, padding=1, fast_double_backward=fast_double_backward)
        self.fuse_rescaling = fuse_rescaling
        self.register_buffer("taps", DOWN.clone(), persistent=False)  # where the weights are

    def forward(self, x: Tensor) -> Tensor:
        if not self.fuse_rescaling:
            return avg_pool2d(super().forward(x), 2)
        return self.conv(x, _spread(self.weight, self.taps), self.bias, 2, 1)


class Generator(nn.Module):
    """z [N, z_dim] -> images [N, C, 32, 32] in [-1, 1]."""

    def __init__(self, shape: tuple[int, int, int], z_dim: int, width: int, fuse_rescaling: bool = True):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(z_dim, width * 16), nn.Unflatten(1, (width, 4, 4)))
        self.body = nn.Sequential(*(_Up(width, fuse_rescaling) for _ in range(3)))
        self.head = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, shape[0], 3, padding=1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.head(self.body(layers.match_memory_format(self.head[2].weight, self.stem(z))))


class Critic(nn.Module):
    """Images [N, C, 32, 32] -> logits [N]. `fast_double_backward`: by convolutions that cost less where the slope is trained."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        width: int,
        norm: Literal["none", "layer", "spectral"] = "spectral",
        fuse_rescaling: bool = True,
        fast_double_backward: bool = True,
    ):
        super().__init__()
        w, wrap = width, layers.norm_wrapper(norm)
        between = (lambda: layers.GroupNorm(1, w)) if norm == "layer" else nn.Identity

        def flat(n: int, side: int = 3) -> nn.Module:
            return wrap(Conv(n, w, side, padding=side // 2, fast_double_backward=fast_double_backward))

        def down() -> nn.Module:
            return wrap(DownConv(w, w, fuse_rescaling, fast_double_backward))

        self.body = nn.Sequential(
            _First(shape[0], flat, down),
            _Down(w, between, flat, down, fuse_rescaling),
            _Flat(w, between, flat),
            _Flat(w, between, flat),
            nn.ReLU(),
        )
        self.head = wrap(nn.Linear(w, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).sum((2, 3))).squeeze(1)


class _Up(nn.Module):
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
    """The critic's first block sees pixels: no activation comes before it."""

    def __init__(self, n: int, flat: Callable[..., nn.Module], down: Callable[[], nn.Module]):
        super().__init__()
        self.body = nn.Sequential(flat(n), nn.ReLU(), down())
        self.shortcut = flat(n, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(avg_pool2d(x, 2))


class _Down(nn.Module):
    def __init__(
        self,
        w: int,
        between: Callable,
        flat: Callable[..., nn.Module],
        down: Callable[[], nn.Module],
        fuse_rescaling: bool,
    ):
        super().__init__()
        self.body = nn.Sequential(between(), nn.ReLU(), flat(w), between(), nn.ReLU(), down())
        self.shortcut = flat(w, 1)
        self.fuse_rescaling = fuse_rescaling

    def forward(self, x: Tensor) -> Tensor:
        if self.fuse_rescaling:  # a 1x1 convolution commutes with the mean, too
            return self.body(x) + self.shortcut(avg_pool2d(x, 2))
        return self.body(x) + avg_pool2d(self.shortcut(x), 2)


class _Flat(nn.Module):
    def __init__(self, w: int, between: Callable, flat: Callable[..., nn.Module]):
        super().__init__()
        self.body = nn.Sequential(*(part for _ in range(2) for part in (between(), nn.ReLU(), flat(w))))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x


def _spread(weight: Tensor, taps: Tensor) -> Tensor:
    """3x3 filters [m, n, 3, 3] as 4x4 ones, by `taps` along both axes: one product for all."""
    m, n = weight.shape[:2]
    return (weight.reshape(m * n, 9) @ torch.kron(taps, taps).T).view(m, n, 4, 4)
