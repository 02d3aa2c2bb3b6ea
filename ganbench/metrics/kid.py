"""The kernel distance (KID) between two sets of features."""

import torch
from torch import Tensor

from ganbench.metrics.scores import BLOCK_ROWS, COMPARING
from ganbench.progress import tracked


def kernel_distance(x: Tensor, y: Tensor, mean_kernel_x: Tensor | None = None) -> float:
    """Return the squared maximum mean discrepancy of x [n, d] and y [m, d] under the kernel (x·y / d + 1)^3.

    This is KID (Binkowski et al. 2018, arXiv:1801.01401). Unbiased, so it may be negative for equal distributions.
    It is taken over all pairs at once, which the usual mean over random subsets estimates with more noise.
    Pass `mean_kernel(x)` to compute it once for many y.
    """
    x, y = x.double(), y.double()
    within = mean_kernel(y) + (mean_kernel(x) if mean_kernel_x is None else mean_kernel_x)
    return float(within - 2 * _kernel_sum(x, y) / (len(x) * len(y)))


def mean_kernel(x: Tensor) -> Tensor:
    """Return the mean kernel of two different samples of x [n, d], in float64."""
    x = x.double()
    total = -_kernel((x * x).sum(1), x).sum()  # pairs of a sample with itself do not count
    for first in tracked(range(0, len(x), BLOCK_ROWS), COMPARING):
        block = x[first : first + BLOCK_ROWS]
        later = x[first + BLOCK_ROWS :]
        total += _kernel(block @ block.T, x).sum() + 2 * _kernel(block @ later.T, x).sum()  # k(a, b) = k(b, a)
    return total / (len(x) * (len(x) - 1))


def _kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    """Return the sum of the kernel over all pairs, a block of rows at a time."""
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for block in tracked(x.split(BLOCK_ROWS), COMPARING):
        total += _kernel(block @ y.T, x).sum()
    return total


def _kernel(products: Tensor, x: Tensor) -> Tensor:
    """Return the kernel for inner products of features like x [n, d]; in place where it can be, to save memory."""
    k = (products / x.shape[1]).add_(1)
    return (k * k).mul_(k)
