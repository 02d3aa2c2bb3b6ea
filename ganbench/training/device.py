"""Where and how a run computes: device, precision, memory layout, allocator."""

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from omegaconf import DictConfig
from torch import Tensor

from ganbench import gpu
from ganbench.config.schema import Precision
from ganbench.datasets import Data
from ganbench.errors import Refused
from ganbench.interfaces import Critic, Penalty, Projection
from ganbench.models import linear_regions

# mallopt's parameters, from malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def choose_device(cfg: DictConfig) -> torch.device:
    """Return the device that cfg.device means here. Raise Refused where there is no GPU and one is asked for."""
    # Not asked for a CPU: merely looking for a GPU fails where a driver is broken.
    n_gpus = torch.cuda.device_count() if cfg.device != "cpu" and torch.cuda.is_available() else 0
    if cfg.device.startswith("cuda"):
        _check_gpu_exists(cfg.device, n_gpus)
    if cfg.speed.graphs and not n_gpus:
        raise Refused(
            f"speed.graphs=true needs a GPU, and device={cfg.device} is none here; use speed=eager and no speed.graphs."
        )
    if cfg.precision is Precision.tf32 and not n_gpus:
        raise Refused(f"precision=tf32 needs a GPU, and device={cfg.device} is none here; use precision=fp32.")
    if not n_gpus:
        return torch.device("cpu")
    return torch.device("cuda" if cfg.device == "auto" else cfg.device)


def _check_gpu_exists(device: str, n_gpus: int) -> None:
    """Raise Refused unless `cuda`, or GPU number N of `cuda:N`, is among this machine's GPUs."""
    if not n_gpus:
        raise Refused(f"device={device}: torch finds no GPU here; use device=cpu or device=auto.")
    number = int(device.partition(":")[2] or 0)
    if number >= n_gpus:
        has = "1 GPU here: cuda:0" if n_gpus == 1 else f"{n_gpus} GPUs here: cuda:0 to cuda:{n_gpus - 1}"
        raise Refused(f"device={device}: torch finds {has}; use device=cuda:N with one of these.")


def configure_process(cfg: DictConfig, device: torch.device) -> None:
    """Set what torch and the C library keep per process: threads, kernels, shortcuts of autograd, freed memory."""
    torch.set_num_threads(cfg.threads)
    linear_regions.enabled = cfg.speed.skip_zeros
    if cfg.speed.keep_memory:
        keep_freed_memory()
    # Autograd sums gradients in the order of its nodes' numbers, which each thread counts for itself. With one thread
    # the order depends on nothing that a process did before; on a GPU, backward passes else have a thread of their own.
    torch.autograd.set_multithreading_enabled(False)
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)  # also for whatever says `cuda` only
        gpu.choose_kernels(cfg.precision is Precision.tf32, cfg.speed.deterministic, cfg.speed.benchmark)


def keep_freed_memory() -> None:
    """Stop glibc from returning freed memory to the OS; other C libraries have no such setting.

    The next step needs as much again. By itself glibc hands large blocks back at once, and the kernel clears each one
    when it is next touched: on wide nets up to a sixth of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # large blocks come from the heap, too
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # and its end is not returned


def chosen_memory_format(cfg: DictConfig) -> torch.memory_format:
    """Return the layout in memory of images and convolutions."""
    return torch.channels_last if cfg.speed.channels_last else torch.preserve_format


def to_memory_format(data: Data, cfg: DictConfig) -> Data:
    """Lay training images out in memory as the players' weights are; points stay."""
    if data.train.dim() != 4:
        return data
    return data._replace(train=data.train.to(memory_format=chosen_memory_format(cfg)))


def autocast_and_penalty(
    precision: Precision, device: torch.device, penalty: Penalty
) -> tuple[Callable[[], AbstractContextManager], Penalty]:
    """Return the context in which the players compute, and the penalty in its own precision."""
    autocast = player_autocast(precision, device)
    return autocast, AutocastPenalty(penalty, autocast) if precision is Precision.bf16_all else penalty


def player_autocast(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager]:
    """Return what opens the context in which the players compute; penalties stay outside of it."""
    half = precision in (Precision.bf16, Precision.bf16_all)
    return partial(torch.autocast, device.type, torch.bfloat16) if half else nullcontext


class AutocastPenalty:
    """A penalty in the players' precision: the critic and its gradient inside `autocast`, norms and means in fp32."""

    def __init__(self, penalty: Penalty, autocast: Callable[[], AbstractContextManager]):
        self.penalty = penalty
        self.autocast = autocast
        if isinstance(penalty, Projection):
            self.project = penalty.project

    def __call__(self, D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        with self.autocast():
            return self.penalty(D, real, fake, rng)
