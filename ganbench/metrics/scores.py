"""What all metrics share: distances, missing scores with their reasons, and the real-data reference."""

# A score of None comes with its reason under `<name>_why`. Shares of modes or classes are lists.
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ganbench.errors import Refused

Scores = dict[str, float | str | list[float] | None]
BLOCK_ROWS = 100  # rows of a matrix of pairs that are made at once: with 2,500 columns they stay in a CPU's caches
MAX_DOUBLE = 1e40  # the kernel raises features to the sixth power, which float64 still holds
MAX_SINGLE = 1e18  # of points in single precision, which are squared


def pairwise_distances(x: Tensor, y: Tensor) -> Tensor:
    """Between all of x [n, d] and y [m, d]: [n, m]; differentiable but for points in single precision.

    For these, of up to three coordinates, by differences: products would lose all digits of what lies close.
    """
    if x.shape[1] > 3 or x.dtype != torch.float32 or x.requires_grad:
        return torch.cdist(x, y)
    squares = torch.zeros((), device=x.device)
    for a, b in zip(x.T, y.T.contiguous(), strict=True):
        apart = a[:, None] - b
        squares = torch.addcmul(squares, apart, apart)
    return squares.sqrt_()


def missing(names: Iterable[str], why: str) -> Scores:
    """No score under any of these names, and why."""
    return {key: value for name in names for key, value in ((name, None), (f"{name}_why", why))}


def all_usable(*sets: Tensor) -> bool:
    """Whether all numbers are finite, and none is too large: comparisons with a NaN are false, and would be counted."""
    return all(bool(x.abs().max() < (MAX_DOUBLE if x.dtype == torch.float64 else MAX_SINGLE)) for x in sets)


def explain_non_finite(scores: Scores) -> Scores:
    """A score that is not finite is none, and says so."""
    lost = [k for k, v in scores.items() if isinstance(v, float) and not math.isfinite(v)]
    return scores | missing(lost, "it came out as a number that is not finite")


def held_out_samples(test: Tensor, n: int | None) -> Tensor:
    """The first n held-out samples, all for None."""
    if n is not None and n > len(test):
        raise Refused(f"metric.n_real={n}: the dataset holds out {len(test)} samples; allowed is up to that, or null.")
    return test[:n]


def real_reference(scores: Callable[[Tensor], Scores], names: Iterable[str], train: Tensor, n: int) -> Scores:
    """The scores of as many real training samples (or their features) as generated ones, where there are as many."""
    if n > len(train):
        return missing(names, f"{n} samples are scored, and {len(train)} real ones are at hand")
    return scores(train[:n])
