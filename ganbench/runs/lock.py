"""Lock a run's folder, so that one process at a time works in it. Needs no torch."""

import errno
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from ganbench.errors import Refused

LOCK = ".lock"
SOFT_LOCK = ".lock.soft"  # a file system without locks: its existence is the lock
HOLDER = ".lock.holder"  # a file of its own, because Windows lets nobody else read a locked one

PATIENCE = 1.0  # seconds; a shorter hold may be another process that only checks whether the folder is in use
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)  # how file systems say that they have none


class RunLocked(Refused):
    """Another process works in the folder; the message names it."""


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` inside the block. Raise RunLocked if another process holds it.

    A holder that was killed keeps nobody out: the system releases its lock. A file system without locks cannot, but
    there the next process on the same host takes over from one that is gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = _acquire(folder, PATIENCE)
    holder = folder / HOLDER
    try:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        holder.write_text(f"process {os.getpid()} on {platform.node()} since {now}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def raise_if_locked(folder: Path) -> None:
    """Raise RunLocked if a process works in the folder. Leave no file behind."""
    if (folder / LOCK).exists():
        _acquire(folder, patience=0).release()


def _acquire(folder: Path, patience: float) -> BaseFileLock:
    """Return the acquired lock of the folder. Raise RunLocked if another process holds it for so many seconds."""
    try:
        lock: BaseFileLock = FileLock(folder / LOCK, fallback_to_soft=False)
        lock.acquire(timeout=patience, poll_interval=0.02)
    except Timeout:
        raise _locked_error(folder) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return _acquire_soft(folder, patience)
    return lock


def _acquire_soft(folder: Path, patience: float) -> BaseFileLock:
    lock = SoftFileLock(folder / SOFT_LOCK)
    try:
        lock.acquire(timeout=patience, poll_interval=0.02)
    except Timeout:
        gone = f" (or delete {folder / SOFT_LOCK} if that process is gone)"
        raise _locked_error(folder, gone) from None
    return lock


def _locked_error(folder: Path, gone: str = "") -> RunLocked:
    try:
        holder = (folder / HOLDER).read_text(encoding="utf-8")
    except OSError:  # it has not written it yet
        holder = "another process"
    return RunLocked(f"{folder} is locked by {holder}; wait{gone}, or pass another name=...")
