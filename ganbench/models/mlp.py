"""Small perceptrons for points."""

from torch import Tensor, nn


class Generator(nn.Module):
    """z [N, z_dim] -> points [N, d]."""

    def __init__(self, shape: tuple[int], z_dim: int, width: int):
        super().__init__()
        self.body = _layers(z_dim, width, shape[0])

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z)


class Critic(nn.Module):
    """Points [N, d] -> logits [N]."""

    def __init__(self, shape: tuple[int], width: int):
        super().__init__()
        self.body = _layers(shape[0], width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).squeeze(1)


def _layers(n: int, width: int, m: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(n, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, m),
    )  # fmt: skip
