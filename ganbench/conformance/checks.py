"""The row that every check yields, and the helpers that make rows."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

NO_ERROR = "raises no error"  # the description of a check that raised one


class Check(NamedTuple):
    """One comparison with a known answer; `target` is the loss, penalty, critic, pair or metric that is checked."""

    topic: str
    target: str
    description: str
    expected: str
    actual: str
    error_over_tolerance: float  # fails above 1

    @property
    def passed(self) -> bool:
        return self.error_over_tolerance <= 1


Checks = Iterator[Check]


def check_close(
    topic: str, target: str, description: str, actual: Any, expected: Any, *, rel: float = 0.0, abs: float = 0.0
) -> Check:
    """Compare numbers or tensors and keep the worst pair; the tolerance is abs + rel * |expected|.

    An `actual` of None, a score without a value, fails.
    """
    actual = _to_numbers(math.nan if actual is None else actual)
    actual, expected = torch.broadcast_tensors(actual, _to_numbers(expected))
    errors = ((actual - expected).abs() / (abs + rel * expected.abs())).nan_to_num(math.inf, posinf=math.inf)
    errors = torch.where(actual == expected, 0.0, errors)  # also equal infinities, and 0 at a tolerance of 0
    worst = int(errors.argmax())
    return Check(topic, target, description, f"{expected[worst]:.6g}", f"{actual[worst]:.6g}", float(errors[worst]))


def _to_numbers(values: Any) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64).detach().flatten()


def check_true(topic: str, target: str, description: str, holds: bool) -> Check:
    """Make a row for a statement that is either true or false."""
    return Check(topic, target, description, "yes", "yes" if holds else "no", 0.0 if holds else math.inf)


def run_checks(topic: str, target: str, checks: Sequence[Callable[[], Checks]]) -> Checks:
    """Yield the rows of all checks; a check that raises becomes a failed row with the error, and the next one runs."""
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # a user's own class may fail in any way
            message = " ".join(str(error).split())
            yield Check(topic, target, NO_ERROR, "yes", message or type(error).__name__, math.inf)


def seeded_rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
