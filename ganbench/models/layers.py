"""Layers and helpers that the nets share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.parametrizations import spectral_norm


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """A look that leaves no trace: neither batch norm's statistics nor spectral norm's power iteration move."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)


def norm_wrapper(norm: str) -> Callable[[nn.Module], nn.Module]:
    """What each layer with weights is wrapped in: spectral norm, if it is that, and else nothing."""
    return spectral_norm if norm == "spectral" else lambda layer: layer


def match_memory_format(weight: Tensor, x: Tensor) -> Tensor:
    """Images [N, C, H, W] in memory as a convolution's weights are; to mix two layouts costs more than a copy."""
    both = (torch.contiguous_format, torch.channels_last)
    return x.contiguous(memory_format=next(f for f in both if weight.is_contiguous(memory_format=f)))


class GroupNorm(nn.GroupNorm):
    """torch's own, on a copy where the channels are innermost: on those it takes up to ten times as long."""

    def forward(self, x: Tensor) -> Tensor:
        return match_memory_format(x, super().forward(x.contiguous()))


class LogitHead(nn.Linear):
    """Features [N, C, H, W] -> [N, 1]. The weights go to where the features lie, and neither they nor their gradient
    are copied.
    """

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight.view(1, *x.shape[1:])
        if not x.is_contiguous():
            x, w = x.permute(0, 2, 3, 1), w.permute(0, 2, 3, 1)
        return linear(x.flatten(1), w.flatten(1), self.bias)
