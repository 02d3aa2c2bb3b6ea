"""What every check of the suite is made of."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch


class Check(NamedTuple):
    """One claim about one subject: what was expected and found, and how much of the tolerance that takes up."""

    topic: str
    subject: str
    claim: str
    expected: str
    found: str
    off: float  # in tolerances: above 1 fails

    @property
    def ok(self) -> bool:
        return self.off <= 1


Checks = Iterator[Check]


def check_close(
    topic: str, subject: str, claim: str, found: Any, expected: Any, rel: float = 0.0, abs: float = 0.0
) -> Check:
    """The worst of one or many pairs of numbers; the tolerance is abs + rel * |expected|. None is no number."""
    found = math.nan if found is None else found
    found, expected = (torch.as_tensor(v, dtype=torch.float64).detach().flatten() for v in (found, expected))
    found, expected = torch.broadcast_tensors(found, expected)
    off = ((found - expected).abs() / (abs + rel * expected.abs())).nan_to_num(math.inf, posinf=math.inf)
    off = torch.where(found == expected, 0.0, off)
    at = int(off.argmax())
    return Check(topic, subject, claim, f"{expected[at]:.6g}", f"{found[at]:.6g}", float(off[at]))


def check_true(topic: str, subject: str, claim: str, ok: bool) -> Check:
    """A row for what is either so or not."""
    return Check(topic, subject, claim, "yes", "yes" if ok else "no", 0.0 if ok else math.inf)


def run_checks(topic: str, subject: str, checks: Sequence[Callable[[], Checks]]) -> Checks:
    """The rows of all checks. A check that raises fails with its error as what was found, and the next one goes on."""
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # someone's own code may fail in any way
            said = " ".join(str(error).split())
            yield Check(topic, subject, "can be asked", "yes", said or type(error).__name__, math.inf)


def seeded_rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
