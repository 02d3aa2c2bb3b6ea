"""Generators map z [N, z_dim] to samples; critics map samples to raw logits [N], each sample by itself."""

import torch
from torch import Tensor, nn

from ganbench.config import Refused


def refuse_mixing(D: nn.Module, x: Tensor) -> None:
    """Raise ValueError if the logit of one sample of x (two or more) depends on another.

    Batch statistics in a critic make a per-sample gradient, and so every gradient penalty, meaningless.
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(D(x)[0], x, allow_unused=True)
    if gradient is not None and gradient[1:].abs().max() > 0:
        raise Refused(
            f"{type(D).__name__} mixes the samples of a batch (is there a BatchNorm in it?): "
            "a critic must judge each sample alone; use layer, instance or spectral norm, or none."
        )
