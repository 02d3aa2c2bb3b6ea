"""The residual nets of R3GAN, which have no norm (Huang et al. 2024, arXiv:2501.05441, section 4).

There are `blocks` residual blocks at each resolution. `width` is the number of channels up to 32x32; with each further
doubling of the resolution they halve. The paper has width 768, two blocks and 64 latent dimensions for CIFAR-10 and
FFHQ. Blocks begin as the identity, because their last convolution begins at zero (fix-up initialization).
"""

import math
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from ganbench.models import layers
from ganbench.models.fast_conv import Conv

SLOPE = 0.2  # of the leaky ReLUs
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # keeps the variance through a leaky ReLU (He et al. 2015, arXiv:1502.01852)
GROUP = 16  # channels of a group of the 3x3 convolutions


class Generator(nn.Module):
    """Map z [N, z_dim] to images [N, C, S, S]; S is a power of 2.

    As in the paper nothing holds them in [-1, 1] in training; in eval mode they are clamped.
    """

    def __init__(self, shape: tuple[int, int, int], z_dim: int, width: int, blocks: int):
        super().__init__()
        widths = _widths(shape[1], width)
        gain = _gain(blocks * len(widths))
        self.basis = nn.Parameter(torch.randn(width, 4, 4))
        self.modulation = _normal(nn.Linear(z_dim, width, bias=False))
        self.body = nn.Sequential(
            *_blocks(width, blocks, gain),
            *(nn.Sequential(_Up(n, m), *_blocks(m, blocks, gain)) for n, m in pairwise(widths)),
        )
        self.head = _normal(nn.Conv2d(widths[-1], shape[0], 1, bias=False))

    def forward(self, z: Tensor) -> Tensor:
        x = self.basis * self.modulation(z)[:, :, None, None]
        filters = next(w for w in self.body.parameters() if w.shape[-1] == 3)  # 1x1 ones are contiguous in any format
        x = self.head(self.body(layers.match_memory_format(filters, x)))
        return x if self.training else x.clamp(-1, 1)


class Critic(nn.Module):
    """Map images [N, C, S, S] to logits [N].

    `fast_double_backward` uses convolutions that cost less under a gradient penalty (see fast_conv.py).
    """

    def __init__(self, shape: tuple[int, int, int], width: int, blocks: int, fast_double_backward: bool = True):
        super().__init__()
        widths = _widths(shape[1], width)[::-1]
        gain = _gain(blocks * len(widths))
        fast = fast_double_backward
        self.body = nn.Sequential(
            _normal(Conv(shape[0], widths[0], 1, fast_double_backward=fast, bias=False)),
            *(nn.Sequential(*_blocks(n, blocks, gain, fast), _Down(n, m, fast)) for n, m in pairwise(widths)),
            *_blocks(width, blocks, gain, fast),
            _normal(Conv(width, width, 4, fast_double_backward=fast, groups=width, bias=False)),
        )
        self.head = _normal(nn.Linear(width, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1)).squeeze(1)


class _Block(nn.Module):
    """A residual block: [N, w, H, W] -> [N, w, H, W], by twice as many channels inside."""

    def __init__(self, w: int, gain: float, fast_double_backward: bool):
        super().__init__()
        fast = fast_double_backward
        self.body = nn.Sequential(
            _normal(Conv(w, 2 * w, 1, fast_double_backward=fast), gain),
            nn.LeakyReLU(SLOPE),
            _normal(Conv(2 * w, 2 * w, 3, padding=1, fast_double_backward=fast, groups=2 * w // GROUP), gain),
            nn.LeakyReLU(SLOPE),
            _normal(Conv(2 * w, w, 1, fast_double_backward=fast, bias=False), gain=0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class _Up(nn.Module):
    """A 1x1 convolution where the channels change, then bilinear doubling: [N, n, H, W] -> [N, m, 2H, 2W]."""

    taps: Tensor

    def __init__(self, n: int, m: int):
        super().__init__()
        self.conv = nn.Identity() if n == m else _normal(nn.Conv2d(n, m, 1, bias=False))
        self.register_buffer("taps", 4 * _bilinear(), persistent=False)  # a buffer moves to the device of the weights

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return conv_transpose2d(x, self.taps.expand(x.shape[1], -1, -1, -1), stride=2, padding=1, groups=x.shape[1])


class _Down(nn.Module):
    """Bilinear halving, then a 1x1 convolution where the channels change: [N, n, 2H, 2W] -> [N, m, H, W]."""

    taps: Tensor

    def __init__(self, n: int, m: int, fast_double_backward: bool):
        super().__init__()
        is_same = n == m
        self.conv = nn.Identity() if is_same else _normal(Conv(n, m, 1, 1, 0, fast_double_backward, bias=False))
        self.register_buffer("taps", _bilinear(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        return self.conv(conv2d(x, self.taps.expand(n, -1, -1, -1), stride=2, padding=1, groups=n))


def _bilinear() -> Tensor:
    """Return a pixel's share in those around it where images are halved linearly, along both axes [1, 1, 4, 4]."""
    shares = torch.tensor([1.0, 3, 3, 1]) / 8
    return torch.outer(shares, shares)[None, None]


def _widths(side: int, width: int) -> list[int]:
    """Return the channels at 4x4, at 8x8, … and at the image's side."""
    return [min(width, width * 32 >> power) for power in range(2, side.bit_length())]


def _blocks(w: int, blocks: int, gain: float, fast_double_backward: bool = False) -> list[nn.Module]:
    return [_Block(w, gain, fast_double_backward) for _ in range(blocks)]


def _gain(blocks: int) -> float:
    """Return the gain of the first two of a block's three convolutions, in a net of so many blocks.

    With it all blocks together change the output as fast as a single one (Zhang et al. 2019, arXiv:1901.09321).
    """
    return GAIN * blocks**-0.25


Layer = TypeVar("Layer", bound=nn.Linear | nn.Conv2d)


def _normal(layer: Layer, gain: float = 1) -> Layer:
    """Draw a layer's weights from a normal distribution that keeps the variance times gain², and set its bias to 0."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
