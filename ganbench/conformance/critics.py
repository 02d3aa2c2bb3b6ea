"""Critics: one logit a sample, no sample mixed with another, spectral norms of 1."""

from functools import partial

import torch
from torch import Tensor, nn

from ganbench.conformance.checks import Checks, check_close, check_true, run_checks
from ganbench.training.preflight import check_critic


def check(name: str, D: nn.Module, x: Tensor, spectral: bool = False) -> Checks:
    yield from run_checks("critic", name, [partial(_alone, name, D, x)] + [partial(_spectral, name, D, x)] * spectral)


def _alone(name: str, D: nn.Module, x: Tensor) -> Checks:
    check_critic(D, x)
    yield check_true("critic", name, "one logit a sample, and no other sample moves it", True)
    with torch.no_grad():
        D.eval()
        whole, single = D(x), torch.cat([D(one) for one in x.split(1)])
    yield check_close("critic", name, "the same logit alone and in a batch", single, whole, rel=1e-4, abs=1e-5)


def _spectral(name: str, D: nn.Module, x: Tensor) -> Checks:
    """The largest singular value of each layer's weight, by SVD."""
    D.train()
    with torch.no_grad():
        for _ in range(200):
            D(x)
    largest = [torch.linalg.matrix_norm(w.weight.flatten(1), 2) for w in D.modules() if _normed(w)]
    yield check_true(
        "critic", name, "every layer with weights is normed", len(largest) == sum(map(_weighted, D.modules()))
    )
    yield check_close("critic", name, "largest singular value of every layer", torch.stack(largest), 1.0, rel=0.01)


def _weighted(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d | nn.Linear)


def _normed(layer: nn.Module) -> bool:
    return _weighted(layer) and nn.utils.parametrize.is_parametrized(layer, "weight")
