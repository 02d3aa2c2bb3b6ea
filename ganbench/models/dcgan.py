"""DCGAN for 32x32 images (Radford et al. 2015, arXiv:1511.06434), with a critic that has no batch norm."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from ganbench.models import wrapper

Norm = Literal["none", "layer", "instance", "spectral"]


class Generator(nn.Module):
    """z [N, z_dim] -> images [N, C, 32, 32] in [-1, 1]."""

    def __init__(self, shape: tuple[int, int, int], z_dim: int, width: int):
        super().__init__()
        w = width
        self.stem = nn.Sequential(
            nn.Linear(z_dim, 4 * w * 16), nn.Unflatten(1, (4 * w, 4, 4)), nn.BatchNorm2d(4 * w), nn.ReLU()
        )
        self.body = nn.Sequential(_up(4 * w, 2 * w), _up(2 * w, w))
        self.head = nn.Sequential(nn.ConvTranspose2d(w, shape[0], 4, 2, 1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.head(self.body(self.stem(z)))


class Critic(nn.Module):
    """Images [N, C, 32, 32] -> logits [N]."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        width: int,
        norm: Literal["none", "layer", "instance", "spectral"] = "none",
    ):
        super().__init__()
        w = width
        wrap = wrapper(norm)
        self.body = nn.Sequential(
            wrap(nn.Conv2d(shape[0], w, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            _down(w, 2 * w, norm, wrap),
            _down(2 * w, 4 * w, norm, wrap),
        )
        self.head = wrap(nn.Linear(4 * w * 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1)).squeeze(1)


def _up(n: int, m: int) -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(n, m, 4, 2, 1), nn.BatchNorm2d(m), nn.ReLU())


def _down(n: int, m: int, norm: Norm, wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    groups = {"layer": 1, "instance": m}.get(norm)
    between = nn.GroupNorm(groups, m) if groups else nn.Identity()
    return nn.Sequential(wrap(nn.Conv2d(n, m, 4, 2, 1)), between, nn.LeakyReLU(0.2))
