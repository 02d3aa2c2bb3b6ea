"""DCGAN for square images (Radford et al. 2015, arXiv:1511.06434), with a critic that has no batch norm.

Channels double with each halving of the image, from `width` channels at half its side down to 4x4 pixels. The paper's
generator for 64x64 has width 128 (1024, 512, 256 and 128 channels) and 100 latent dimensions. Filters are 4x4, as most
code has them; figure 1 of the paper draws 5x5. Layers before a batch norm have a bias, which it takes away again.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from ganbench.models import layers
from ganbench.models.blocks import up_block
from ganbench.models.fast_conv import Conv, Doubling
from ganbench.models.group_norm import norm_layer

Norm = Literal["none", "layer", "instance", "spectral"]


class Generator(nn.Module):
    """Map z [N, z_dim] to images [N, C, S, S] in [-1, 1]; S is a power of 2, at least 16."""

    def __init__(self, shape: tuple[int, int, int], z_dim: int, width: int):
        super().__init__()
        widths = _widths(shape[1], width)[::-1]
        w = widths[0]
        self.stem = nn.Sequential(nn.Linear(z_dim, w * 16), nn.Unflatten(1, (w, 4, 4)), nn.BatchNorm2d(w), nn.ReLU())
        self.body = nn.Sequential(*(up_block(n, m) for n, m in pairwise(widths)))
        self.head = nn.Sequential(Doubling(width, shape[0]), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        first_filters = next(self.body.parameters())
        x = layers.match_memory_format(first_filters, self.stem[:2](z))
        return self.head(self.body(self.stem[2:](x)))


class Critic(nn.Module):
    """Map images [N, C, S, S] to logits [N].

    `fast_double_backward` uses layers that cost less under a gradient penalty (see fast_conv.py and group_norm.py).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        width: int,
        norm: Literal["none", "layer", "instance", "spectral"] = "none",
        fast_double_backward: bool = True,
    ):
        super().__init__()
        widths = _widths(shape[1], width)
        wrap = layers.norm_wrapper(norm)
        self.body = nn.Sequential(
            wrap(Conv(shape[0], width, 4, 2, 1, fast_double_backward)),
            nn.LeakyReLU(0.2),
            *(_down(n, m, norm, wrap, fast_double_backward) for n, m in pairwise(widths)),
        )
        self.head = wrap(layers.LogitHead(widths[-1] * 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)).squeeze(1)


def _widths(side: int, width: int) -> list[int]:
    """Return the channels at half the image's side, at a quarter of it, … and at 4x4."""
    return [width << k for k in range(side.bit_length() - 3)]


def _down(n: int, m: int, norm: Norm, wrap: Callable[[nn.Module], nn.Module], fast_double_backward: bool) -> nn.Module:
    return nn.Sequential(wrap(nn.Conv2d(n, m, 4, 2, 1)), norm_layer(norm, m, fast_double_backward), nn.LeakyReLU(0.2))
