"""Multilayer perceptrons for points."""

from typing import Literal

from torch import Tensor, nn

from ganbench.models.layers import norm_wrapper


class Generator(nn.Module):
    """Map z [N, z_dim] to points [N, d]; `depth` counts hidden layers."""

    def __init__(self, shape: tuple[int], z_dim: int, width: int, depth: int = 3):
        super().__init__()
        self.body = _layers(z_dim, width, depth, shape[0])

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z)


class Critic(nn.Module):
    """Map points [N, d] to logits [N]; `depth` counts hidden layers."""

    def __init__(
        self, shape: tuple[int], width: int, norm: Literal["none", "layer", "spectral"] = "none", depth: int = 3
    ):
        super().__init__()
        self.body = _layers(shape[0], width, depth, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).squeeze(1)


def _layers(n: int, width: int, depth: int, m: int, norm: str = "none") -> nn.Module:
    wrap = norm_wrapper(norm)
    layers: list[nn.Module] = []
    for fan_in in (n, *[width] * (depth - 1)):
        norm_layer = [nn.LayerNorm(width)] if norm == "layer" else []
        layers += [wrap(nn.Linear(fan_in, width)), *norm_layer, nn.ReLU()]
    return nn.Sequential(*layers, wrap(nn.Linear(width, m)))
