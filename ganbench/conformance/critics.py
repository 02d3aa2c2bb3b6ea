"""Checks of critics: one logit per sample, independent of the other samples; spectral norms of 1."""

import math
from functools import partial

import torch
from torch import Tensor, nn

from ganbench.conformance.checks import Checks, check_close, check_true, run_checks
from ganbench.training.preflight import check_critic


def check(name: str, D: nn.Module, x: Tensor, spectral: bool = False) -> Checks:
    """Check the critic on samples x [N, ...]; `spectral` says that its layers should have spectral norm."""
    checks = [partial(_sample_independence, name, D, x)]
    if spectral:
        checks.append(partial(_spectral_norms, name, D, x))
    yield from run_checks("critic", name, checks)


def _sample_independence(name: str, D: nn.Module, x: Tensor) -> Checks:
    check_critic(D, x)
    yield check_true("critic", name, "one logit per sample, independent of the other samples", True)
    D.eval()
    with torch.no_grad():
        in_a_batch = D(x)
        alone = torch.cat([D(sample) for sample in x.split(1)])
    yield check_close("critic", name, "same logit alone and in a batch", alone, in_a_batch, rel=1e-4, abs=1e-5)


def _spectral_norms(name: str, D: nn.Module, x: Tensor) -> Checks:
    """Compare each layer's largest singular value, by SVD, with 1 once the power iterations have converged."""
    D.train()
    with torch.no_grad():
        for _ in range(200):
            D(x)
    layers = [layer for layer in D.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    normed = [layer for layer in layers if nn.utils.parametrize.is_parametrized(layer, "weight")]
    largest = torch.stack([torch.linalg.matrix_norm(layer.weight.flatten(1), 2) for layer in normed])
    yield check_true("critic", name, "every layer with weights has spectral norm", len(normed) == len(layers))
    yield check_close("critic", name, "largest singular value of every layer", largest, 1.0, rel=0.01)


class LinearCritic(nn.Module):
    """D(x) = w·x with |w| = `norm`, in a random direction: the norm of its gradient is the same everywhere."""

    def __init__(self, shape: tuple[int, ...], norm: float, seed: int = 0, dtype: torch.dtype = torch.float32):
        super().__init__()
        w = torch.randn(math.prod(shape), generator=torch.Generator().manual_seed(seed), dtype=dtype)
        self.w = nn.Parameter(norm * w / w.norm())

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w
