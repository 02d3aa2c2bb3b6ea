"""Memory that tensors free stays with the process, since the next step needs as much again.

By itself glibc hands large pieces back at once, and the kernel clears each again when it is next touched: on wide nets
up to a sixth of a step.
"""

import ctypes
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from omegaconf import DictConfig
from torch import Tensor

from ganbench.config.schema import Precision
from ganbench.datasets import Data
from ganbench.errors import Refused

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """For the rest of the process, where the C library is glibc; others have no such setting."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # large pieces come from the heap, too
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # whose end is not handed back


def choose_device(cfg: DictConfig) -> torch.device:
    wanted = cfg.device.value
    if wanted == "cuda" and not torch.cuda.is_available():
        raise Refused("device=cuda: torch finds no GPU here; allowed are device=cpu and device=auto.")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if cfg.speed.graphs and wanted != "cuda":
        raise Refused(f"speed.graphs=true: device={cfg.device.value} is no GPU here; allowed is false, or device=cuda.")
    return torch.device(wanted)


def chosen_memory_format(cfg: DictConfig) -> torch.memory_format:
    return torch.channels_last if cfg.speed.channels_last else torch.preserve_format


def to_memory_format(data: Data, cfg: DictConfig) -> Data:
    """Training images as the players have theirs in memory."""
    return (
        data._replace(train=data.train.to(memory_format=chosen_memory_format(cfg))) if data.train.dim() == 4 else data
    )


def autocast_and_penalty(precision: Precision, device: torch.device, penalty: Callable) -> tuple[Callable, Callable]:
    """What opens the context in which the players compute, and the penalty as it is computed beside them."""
    autocast = player_autocast(precision, device)
    return autocast, AutocastPenalty(penalty, autocast) if precision is Precision.bf16_all else penalty


def player_autocast(precision: Precision, device: torch.device) -> Callable:
    """Opens the context in which the players compute; penalties stay outside of it, but for `InPrecision`."""
    return nullcontext if precision is Precision.fp32 else partial(torch.autocast, device.type, torch.bfloat16)


class AutocastPenalty:
    """A penalty computed as the players are: D and its gradient inside `autocast`; norms and means are fp32."""

    def __init__(self, penalty: Callable, autocast: Callable):
        self.penalty, self.autocast = penalty, autocast
        if hasattr(penalty, "project"):
            self.project = penalty.project

    def __call__(self, D: Callable, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        with self.autocast():
            return self.penalty(D, real, fake, rng)
