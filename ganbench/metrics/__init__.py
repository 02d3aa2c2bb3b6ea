"""Metrics: built from the data, called with generated samples, they return named numbers.

A metric has `name` (the key of the ranked score), `n_fake` (how many samples it wants) and `floor` (what real
training data score).
"""

from collections.abc import Callable

from torch import Tensor

from ganbench.config import Refused

Scores = dict[str, float | str | None]  # a score of None comes with its reason under `<name>_why`


def held_out(test: Tensor, n: int | None) -> Tensor:
    """The first n held-out samples, all for None."""
    if n is not None and n > len(test):
        raise Refused(f"metric.n_real={n}: the dataset holds out {len(test)} samples; allowed is up to that, or null.")
    return test[:n]


def floor(metric: Callable[[Tensor], Scores], name: str, train: Tensor, n: int) -> Scores:
    """The scores of as many real training samples as generated ones are drawn, where there are as many."""
    if n > len(train):
        return {name: None, f"{name}_why": f"{n} samples are scored, and the dataset has {len(train)} to train on"}
    return metric(train[:n])
