"""Metrics: built from the data, called with generated samples, they return named numbers.

A metric has `name` (the key of the ranked score), `n_fake` (how many samples it wants) and `floor` (what real
training data score).
"""

from collections.abc import Callable, Iterable

from torch import Tensor

from ganbench.config import Refused

# A score of None comes with its reason under `<name>_why`. Shares of modes or classes are lists.
Scores = dict[str, float | str | list[float] | None]


def none(names: Iterable[str], why: str) -> Scores:
    """No score under any of these names, and why."""
    return {key: value for name in names for key, value in ((name, None), (f"{name}_why", why))}


def held_out(test: Tensor, n: int | None) -> Tensor:
    """The first n held-out samples, all for None."""
    if n is not None and n > len(test):
        raise Refused(f"metric.n_real={n}: the dataset holds out {len(test)} samples; allowed is up to that, or null.")
    return test[:n]


def floor(scores: Callable[[Tensor], Scores], names: Iterable[str], train: Tensor, n: int) -> Scores:
    """The scores of as many real training samples (or their features) as generated ones, where there are as many."""
    if n > len(train):
        return none(names, f"{n} samples are scored, and {len(train)} real ones are at hand")
    return scores(train[:n])
