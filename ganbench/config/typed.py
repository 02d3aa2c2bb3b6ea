"""What was typed: the arguments of this process, or the settings that a script or a notebook has given to `run`."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_instead: list[list[str]] = []  # of the process's own arguments; the last counts


def typed_arguments() -> list[str]:
    """Return the flags and overrides that messages and records repeat as they were typed."""
    return _instead[-1] if _instead else sys.argv[1:]


@contextmanager
def typed_instead(arguments: Sequence[str]) -> Iterator[None]:
    """Have these count as typed inside the block, rather than what the process was started with."""
    _instead.append(list(arguments))
    try:
        yield
    finally:
        _instead.pop()
