"""The averaged generator."""

import torch
from torch import nn


@torch.no_grad()
def update(average: nn.Module, G: nn.Module, decay: float) -> None:
    """Move the average's weights, and batch norm's statistics with them, towards G's by 1 - decay.

    Statistics copied from G would belong to other weights than the averaged ones.
    """
    means, values = ([t for t in net.state_dict().values() if t.is_floating_point()] for net in (average, G))
    torch._foreach_lerp_(means, values, 1 - decay)
