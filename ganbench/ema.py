"""The averaged generator."""

import torch
from torch import nn


@torch.no_grad()
def update(average: nn.Module, G: nn.Module, decay: float) -> None:
    """Move the average's weights towards G's by 1 - decay, and copy the buffers (batch norm's statistics)."""
    torch._foreach_lerp_(list(average.parameters()), list(G.parameters()), 1 - decay)
    for mean, now in zip(average.buffers(), G.buffers(), strict=True):
        mean.copy_(now)
