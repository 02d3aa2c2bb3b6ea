"""Blocks of layers that several nets share."""

from torch import nn

from ganbench.models.fast_conv import Doubling


def up_block(n: int, m: int, activation: nn.Module | None = None) -> nn.Module:
    """Return a generator's doubling: [N, n, H, W] -> [N, m, 2H, 2W]; a ReLU is the default activation."""
    return nn.Sequential(Doubling(n, m), nn.BatchNorm2d(m), activation or nn.ReLU())
