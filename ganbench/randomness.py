"""Every random number of a run, as a pure function of (seed, stream, counter). Nothing else draws random numbers.

So two runs that differ in their loss see the same initial weights, batches and noise; a penalty that draws noise shifts
nothing else; and a step can be repeated without the ones before it. That holds for a user's own components, too:
dropout and the like draw from generators of the whole process, which `seed_globals` starts anew at each step.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

SCHEME = 1  # part of the footing; increment it when the same (seed, stream, counter) gives other numbers


def key(seed: int, stream: str, counter: int = 0) -> int:
    """Hash (seed, stream, counter) to 63 bits, the same on every machine."""
    digest = hashlib.sha256(f"{seed}/{stream}/{counter}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, stream: str, counter: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator that starts at (seed, stream, counter)."""
    return torch.Generator(device).manual_seed(key(seed, stream, counter))


def normal(shape: tuple[int, ...], seed: int, stream: str, counter: int, device: torch.device | str) -> Tensor:
    """Draw standard normal noise of this shape, such as z."""
    return torch.randn(shape, generator=generator(seed, stream, counter, device), device=device)


def seed_globals(key: int, device: torch.device) -> None:
    """Start the generators that belong to the whole process at a key: torch's own, NumPy's and Python's.

    Not by torch.manual_seed, which asks for all GPUs, and takes fifty times as long where it finds none.
    """
    torch.default_generator.manual_seed(key)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(key)
    np.random.seed(key % 2**32)
    random.seed(key)


@contextmanager
def seeded_initialization(seed: int, stream: str) -> Iterator[None]:
    """Let modules built inside draw their weights from this stream; torch's global state is restored after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, stream))
        yield
