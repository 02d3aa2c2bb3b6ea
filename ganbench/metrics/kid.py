"""The kernel distance between two sets of features."""

from torch import Tensor

from ganbench.metrics.scores import BLOCK_ROWS


def kernel_distance(x: Tensor, y: Tensor, within_x: Tensor | None = None) -> float:
    """Squared maximum mean discrepancy under (x·y / d + 1)^3 (KID of Binkowski et al. 2018, arXiv:1801.01401).

    Unbiased, so that it may fall below 0 for equal distributions. Taken over all pairs at once: what the mean over
    random subsets estimates with more noise. Pass `within(x)` as `within_x` to compute it once for many y.
    """
    x, y = x.double(), y.double()
    own = within(y) + (within(x) if within_x is None else within_x)
    return float(own - 2 * _total(x, y) / (len(x) * len(y)))


def within(x: Tensor) -> Tensor:
    """The mean kernel of two samples."""
    x = x.double()
    total = -_cubed((x * x).sum(1), x).sum()
    for first in range(0, len(x), BLOCK_ROWS):
        part, others = (
            x[first : first + BLOCK_ROWS],
            x[first + BLOCK_ROWS :],
        )
        total += _cubed(part @ part.T, x).sum() + 2 * _cubed(part @ others.T, x).sum()  # k(a, b) = k(b, a)
    return total / (len(x) * (len(x) - 1))


def _total(x: Tensor, y: Tensor) -> Tensor:
    """Of all pairs, a block at a time."""
    return sum(_cubed(part @ y.T, x).sum() for part in x.split(BLOCK_ROWS))


def _cubed(product: Tensor, x: Tensor) -> Tensor:
    k = (product / x.shape[1]).add_(1)
    return (k * k).mul_(k)
