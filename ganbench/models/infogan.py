"""The nets of InfoGAN (Chen et al. 2016, arXiv:1606.03657, table 1) as Lucic et al. compare GANs on them
(2018, arXiv:1711.10337), without the code that InfoGAN infers, and without batch norm in the critic.

The papers' width is 64: 64 and 128 channels, and 1,024 units in the fully connected layers.
"""

from typing import Literal

from torch import Tensor, nn

from ganbench.models import layers
from ganbench.models.blocks import up_block
from ganbench.models.fast_conv import Conv, Doubling
from ganbench.models.group_norm import norm_layer

SLOPE = 0.2  # of the leaky ReLUs in both nets, as in Lucic et al.'s code


class Generator(nn.Module):
    """Map z [N, z_dim] to images [N, C, S, S] in [-1, 1]; S is a multiple of 4."""

    def __init__(self, shape: tuple[int, int, int], z_dim: int, width: int):
        super().__init__()
        units, side = 16 * width, shape[1] // 4
        self.stem = nn.Sequential(
            *_dense(z_dim, units), *_dense(units, 2 * width * side**2), nn.Unflatten(1, (2 * width, side, side))
        )
        self.body = up_block(2 * width, width, nn.LeakyReLU(SLOPE))
        self.head = nn.Sequential(Doubling(width, shape[0]), nn.Tanh())

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
        norm: Literal["none", "layer", "spectral"] = "none",
        fast_double_backward: bool = True,
    ):
        super().__init__()
        wrap = layers.norm_wrapper(norm)
        units = 16 * width
        self.body = nn.Sequential(
            wrap(Conv(shape[0], width, 4, 2, 1, fast_double_backward)),
            nn.LeakyReLU(SLOPE),
            wrap(Conv(width, 2 * width, 4, 2, 1, fast_double_backward)),
            norm_layer(norm, 2 * width, fast_double_backward),
            nn.LeakyReLU(SLOPE),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            wrap(nn.Linear(2 * width * (shape[1] // 4) ** 2, units)),
            nn.LayerNorm(units) if norm == "layer" else nn.Identity(),
            nn.LeakyReLU(SLOPE),
            wrap(nn.Linear(units, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)).squeeze(1)


def _dense(n: int, m: int) -> list[nn.Module]:
    return [nn.Linear(n, m), nn.BatchNorm1d(m), nn.LeakyReLU(SLOPE)]
