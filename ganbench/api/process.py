"""Make runs in a process that others use, too, as a notebook's: inside as in one of their own, afterwards as before."""

import importlib
import logging
import os
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from logging.config import DictConfigurator
from typing import Any

from omegaconf import DictConfig

from ganbench.config.signature import signature
from ganbench.errors import Refused
from ganbench.runs.identity import is_library, users_modules

BUSY = threading.Lock()  # random numbers, threads and log lines belong to the process: one run at a time can have them

# Lines of what is no run, and has no settings that say where they go.
PLAIN_LINES = {
    "version": 1,
    "formatters": {"plain": {"format": "%(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stdout"}},
    "root": {"level": "INFO", "handlers": ["console"]},
}


@contextmanager
def alone() -> Iterator[None]:
    """Raise Refused if another thread of this process makes or uses a run."""
    if not BUSY.acquire(blocking=False):
        raise Refused(
            "Another thread of this process makes or uses a run; wait for its end, or make several runs side by side "
            "with python -m ganbench -m in a shell."
        )
    try:
        yield
    finally:
        BUSY.release()


@contextmanager
def as_in_its_own(cfg: DictConfig) -> Iterator[None]:
    """Use a run of these settings as a process of its own would."""
    with alone(), importable_from_here(), own_modules_anew(cfg), torch_as_at_first(), log_lines(PLAIN_LINES):
        yield


@contextmanager
def importable_from_here() -> Iterator[None]:
    """Find a user's own modules in the current folder, as they are now rather than when they were first imported."""
    importlib.invalidate_caches()
    signature.cache_clear()
    here = os.getcwd()
    is_new = here not in sys.path
    if is_new:
        sys.path.append(here)
    try:
        yield
    finally:
        if is_new:
            sys.path.remove(here)


@contextmanager
def own_modules_anew(cfg: DictConfig) -> Iterator[None]:
    """Have the user's own modules imported anew inside: what a run says of its code is read from their files."""
    modules = users_modules(cfg)
    names = [name for name, file in modules.items() if name != "__main__" and not is_library(file)]
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


@contextmanager
def log_lines(config: dict[str, Any], verbose: bool = False) -> Iterator[None]:
    """Send log lines where a dictionary for Python's logging says, and not to the handlers that were there before.

    Those are only set aside: `logging.config.dictConfig` would close them.
    """
    root = logging.getLogger()
    settings = config.get("root") or {}
    if not settings.get("handlers"):  # hydra/job_logging=none
        yield
        return
    before, level = root.handlers[:], root.level
    handlers = _make_handlers(config, settings["handlers"])
    root.handlers[:] = handlers
    root.setLevel("DEBUG" if verbose else settings.get("level", "INFO"))
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        for handler in handlers:
            handler.close()


def _make_handlers(config: dict[str, Any], names: Iterable[str]) -> list[logging.Handler]:
    maker = DictConfigurator(config)
    formatters = maker.config.get("formatters", {})
    for name in formatters:
        formatters[name] = maker.configure_formatter(formatters[name])
    return [maker.configure_handler(maker.config["handlers"][name]) for name in names]


@contextmanager
def torch_as_at_first() -> Iterator[None]:
    """Have torch compute as in a new process inside. What the process had set is set again afterwards."""
    import torch  # only now, since it takes seconds

    restore = _restoring()
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(False)
    if torch.get_default_device().type != "cpu":
        torch.set_default_device(None)  # the context that it sets otherwise would slow every call down
    try:
        with ExitStack() as modes:
            for mode in (torch.inference_mode(False), torch.enable_grad()):
                modes.enter_context(mode)
            for device in ("cpu", "cuda"):
                modes.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        for call in restore:
            call()


def _restoring() -> list[Callable[[], object]]:
    """Return what sets everything again that a run sets for the whole process."""
    import numpy as np
    import torch

    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    calls: list[Callable[[], object]] = [
        partial(torch.set_num_threads, torch.get_num_threads()),
        partial(torch.set_default_dtype, torch.get_default_dtype()),
        partial(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()),
        partial(torch.autograd.set_multithreading_enabled, torch._C._is_multithreading_enabled()),
        partial(torch.use_deterministic_algorithms, deterministic, warn_only=warn_only),
        partial(torch.set_rng_state, torch.get_rng_state()),
        partial(np.random.set_state, np.random.get_state()),
        partial(random.setstate, random.getstate()),
    ]
    memory = torch.utils.deterministic
    for owner, name in (
        (cudnn, "allow_tf32"),
        (cudnn, "benchmark"),
        (cublas, "allow_tf32"),
        (memory, "fill_uninitialized_memory"),
    ):
        calls.append(partial(setattr, owner, name, getattr(owner, name)))
    if torch.get_default_device().type != "cpu":
        calls.append(partial(torch.set_default_device, torch.get_default_device()))
    if torch.cuda.is_initialized():
        calls.append(partial(torch.cuda.set_device, torch.cuda.current_device()))
        calls.append(partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    return calls
