"""The plain convolutional nets of SNGAN for images of 32x32 and 48x48 (Miyato et al. 2018, arXiv:1802.05957, table 3).

The paper's width is 64. Its table is followed, not the authors' code, which has a batch norm after the generator's
first layer and doubles the critic's channels one convolution earlier.
"""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from ganbench.models import layers
from ganbench.models.blocks import up_block
from ganbench.models.fast_conv import Conv
from ganbench.models.group_norm import norm_layer


class Generator(nn.Module):
    """Map z [N, z_dim] to images [N, C, S, S] in [-1, 1]; S is a multiple of 8."""

    def __init__(self, shape: tuple[int, int, int], z_dim: int, width: int):
        super().__init__()
        widths = [8 * width, 4 * width, 2 * width, width]
        side = shape[1] // 8
        self.stem = nn.Sequential(nn.Linear(z_dim, widths[0] * side**2), nn.Unflatten(1, (widths[0], side, side)))
        self.body = nn.Sequential(*(up_block(n, m) for n, m in pairwise(widths)))
        self.head = nn.Sequential(nn.Conv2d(width, shape[0], 3, padding=1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        first_filters = next(self.body.parameters())
        return self.head(self.body(layers.match_memory_format(first_filters, self.stem(z))))


class Critic(nn.Module):
    """Map images [N, C, S, S] to logits [N].

    `fast_double_backward` uses layers that cost less under a gradient penalty (see fast_conv.py and group_norm.py).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        width: int,
        norm: Literal["none", "layer", "instance", "spectral"] = "spectral",
        fast_double_backward: bool = True,
    ):
        super().__init__()
        wrap = layers.norm_wrapper(norm)

        def conv(n: int, m: int, side: int, stride: int) -> nn.Module:
            return wrap(Conv(n, m, side, stride, padding=1, fast_double_backward=fast_double_backward))

        def block(n: int, m: int, side: int, stride: int) -> nn.Module:
            return nn.Sequential(conv(n, m, side, stride), norm_layer(norm, m, fast_double_backward), nn.LeakyReLU(0.1))

        body = [conv(shape[0], width, 3, 1), nn.LeakyReLU(0.1)]
        for n in (width, 2 * width, 4 * width):
            body += [block(n, n, 4, 2), block(n, 2 * n, 3, 1)]
        self.body = nn.Sequential(*body)
        self.head = wrap(layers.LogitHead(8 * width * (shape[1] // 8) ** 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)).squeeze(1)
