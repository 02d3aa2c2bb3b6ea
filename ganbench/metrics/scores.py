"""What all metrics share: checks of their input, distances, missing scores, and the real-data reference."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ganbench.errors import Refused
from ganbench.interfaces import Scores

BLOCK_ROWS = 100  # rows of a matrix of pairs that are made at once: with 2,500 columns they stay in a CPU's caches
COMPARING = "comparing features"  # as long comparisons are announced
MAX_DOUBLE = 1e40  # KID's kernel raises features to the sixth power, which float64 still holds
MAX_SINGLE = 1e18  # points in single precision are squared


def all_usable(*sets: Tensor) -> bool:
    """Return whether all numbers are finite and small enough to compute with.

    Must be asked before comparing: a comparison with a NaN is false, and would be counted as such.
    """
    return all(bool(largest(x) < (MAX_DOUBLE if x.dtype == torch.float64 else MAX_SINGLE)) for x in sets)


def largest(x: Tensor) -> Tensor:
    """Return the largest absolute value, NaN if there is a NaN; needs no copy of x."""
    lowest, highest = torch.aminmax(x)
    return torch.maximum(-lowest, highest)


def missing(names: Iterable[str], reason: str) -> Scores:
    """Return None for each of these scores, and the reason under `<name>_why`."""
    scores: Scores = {}
    for name in names:
        scores[name] = None
        scores[f"{name}_why"] = reason
    return scores


def explain_non_finite(scores: Scores) -> Scores:
    """Replace scores that are not finite by None and a reason."""
    lost = [name for name, value in scores.items() if isinstance(value, float) and not math.isfinite(value)]
    return scores | missing(lost, "the score is not finite (NaN or infinity)")


def held_out_samples(test: Tensor, n: int | None) -> Tensor:
    """Return the first n held-out samples, or all for None; raise Refused if there are fewer."""
    return first_samples(test, n, "held-out samples")


def first_samples(x: Tensor, n: int | None, kind: str) -> Tensor:
    """Return the first n real samples of a kind, or all for None; raise Refused if there are fewer."""
    if n is not None and n > len(x):
        raise Refused(f"metric.n_real={n} must be at most {len(x)}, the number of {kind}, or null for all of them.")
    return x[:n]


def real_reference(score: Callable[[Tensor], Scores], names: Iterable[str], train: Tensor, n: int) -> Scores:
    """Score n real training samples (or their features), as many as there will be generated ones.

    The scores are missing where the dataset has fewer.
    """
    if n > len(train):
        return missing(names, f"{n} real training samples are needed and the dataset has {len(train)}")
    return score(train[:n])


def pairwise_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the Euclidean distances [n, m] between all of x [n, d] and all of y [m, d].

    Differentiable by x. Points in single precision that need no gradient (up to three coordinates) are taken by
    differences, since products would lose all digits of points that lie close together.
    """
    if x.shape[1] > 3 or x.dtype != torch.float32 or x.requires_grad:
        return torch.cdist(x, y)
    squares = torch.zeros((), device=x.device)
    for a, b in zip(x.T, y.T.contiguous(), strict=True):
        difference = a[:, None] - b
        squares = torch.addcmul(squares, difference, difference)
    return squares.sqrt_()
