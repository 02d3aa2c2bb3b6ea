"""Generators map z [N, z_dim] to samples; critics map samples to raw logits [N], each sample by itself."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """A look that leaves no trace: neither batch norm's statistics nor spectral norm's power iteration move."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)
