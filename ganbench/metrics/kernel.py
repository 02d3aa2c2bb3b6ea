"""The kernel distance between two sets of features."""

from torch import Tensor


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Squared maximum mean discrepancy under (x·y / d + 1)^3 (KID of Binkowski et al. 2018, arXiv:1801.01401).

    Unbiased, so that it may fall below 0 for equal distributions. Taken over all pairs at once: what the mean over
    random subsets estimates with more noise.
    """
    x, y = x.double(), y.double()
    within = sum((_total(s, s) - _cubed((s * s).sum(1), s).sum()) / (len(s) * (len(s) - 1)) for s in (x, y))
    return float(within - 2 * _total(x, y) / (len(x) * len(y)))


def _total(x: Tensor, y: Tensor) -> Tensor:
    """Of all pairs, a block at a time."""
    return sum(_cubed(part @ y.T, x).sum() for part in x.split(250))


def _cubed(product: Tensor, x: Tensor) -> Tensor:
    k = (product / x.shape[1]).add_(1)
    return (k * k).mul_(k)
