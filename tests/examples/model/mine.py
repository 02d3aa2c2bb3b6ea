from torch import nn


class Generator(nn.Module):
    """z [N, z_dim] -> points [N, 2]."""

    def __init__(self, shape: tuple[int], z_dim: int, width: int):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(z_dim, width), nn.SiLU(), nn.Linear(width, shape[0]))

    def forward(self, z):
        return self.body(z)


class Critic(nn.Module):
    """Points [N, 2] -> raw logits [N], each sample by itself: no batch norm."""

    def __init__(self, shape: tuple[int], width: int):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(shape[0], width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, x):
        return self.body(x).squeeze(1)
