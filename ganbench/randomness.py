"""All randomness of a run: a pure function of (seed, stream, counter). Nothing else draws.

Two runs that differ in their loss therefore see the same initial weights, batches and noise, a penalty that
draws shifts nothing else, and a step can be repeated without knowing the ones before it.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

SCHEME = 1  # counts up when the same (seed, stream, counter) comes to mean other numbers


def key(seed: int, stream: str, counter: int = 0) -> int:
    """63 bits that differ for every (seed, stream, counter) and never between machines."""
    digest = hashlib.sha256(f"{seed}/{stream}/{counter}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, stream: str, counter: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(key(seed, stream, counter))


def normal(shape: tuple[int, ...], seed: int, stream: str, counter: int, device: torch.device | str) -> Tensor:
    """Standard normal noise, such as z."""
    return torch.randn(shape, generator=generator(seed, stream, counter, device), device=device)


@contextmanager
def seeded_initialization(seed: int, stream: str) -> Iterator[None]:
    """Modules built inside draw their weights from this stream; torch's global state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, stream))
        yield
