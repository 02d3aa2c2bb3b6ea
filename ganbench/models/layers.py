"""Layers and helpers that the nets share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.parametrizations import spectral_norm


class LogitHead(nn.Linear):
    """Map features [N, C, H, W] to [N, 1], in either memory format.

    The weights are permuted to match the features, so neither the features nor their gradient are copied.
    """

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight.view(1, *x.shape[1:])
        if not x.is_contiguous():
            x, w = x.permute(0, 2, 3, 1), w.permute(0, 2, 3, 1)
        return linear(x.flatten(1), w.flatten(1), self.bias)


def norm_wrapper(norm: str) -> Callable[[nn.Module], nn.Module]:
    """Return what each layer with weights is wrapped in: spectral norm for "spectral", else nothing."""
    return spectral_norm if norm == "spectral" else lambda layer: layer


def match_memory_format(weight: Tensor, x: Tensor) -> Tensor:
    """Return images x [N, C, H, W] in the memory format of a convolution's weight: a copy costs less than mixing."""
    formats = (torch.contiguous_format, torch.channels_last)
    return x.contiguous(memory_format=next(f for f in formats if weight.is_contiguous(memory_format=f)))


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Run `net` in eval mode, so that batch-norm statistics and spectral-norm power iterations do not change."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)
