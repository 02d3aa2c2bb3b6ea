"""Generators map z [N, z_dim] to samples; critics map samples to raw logits [N], each sample by itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """A look that leaves no trace: neither batch norm's statistics nor spectral norm's power iteration move."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)


def wrapper(norm: str) -> Callable[[nn.Module], nn.Module]:
    """What each layer with weights is wrapped in: spectral norm, if it is that, and else nothing."""
    return spectral_norm if norm == "spectral" else lambda layer: layer
