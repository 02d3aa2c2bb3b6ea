"""Players that move by plain gradient descent, so that an update can be written out by hand."""

import torch
from torch import nn

from ganbench.training.players import Players


def descending(D: nn.Module, G: nn.Module, rate: float) -> Players:
    """Return the nets with plain gradient descent for each; the average is G itself."""
    return Players(G, D, G, _sgd(G, rate), _sgd(D, rate))


def _sgd(net: nn.Module, rate: float) -> torch.optim.SGD:
    weights = list(net.parameters())
    return torch.optim.SGD(weights or [torch.zeros(())], rate)  # SGD refuses a net without weights
