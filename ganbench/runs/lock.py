"""One run in one folder: who works there holds a lock, which the system takes back however its holder ends."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ganbench.errors import Refused

TIMEOUT = 1.0  # seconds: as long as that, a holder may only be looking whether somebody else is there


class RunLocked(Refused):
    """Somebody else is at work in the folder; says who."""


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` while inside. Raise Taken if another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="utf-8") as lock:
        give_up = time.monotonic() + TIMEOUT
        while not _locked(lock):
            if time.monotonic() > give_up:
                raise _taken(folder, lock)
            time.sleep(0.02)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')},")
        lock.flush()
        yield


def raise_if_locked(folder: Path) -> None:
    """Raise Taken if a process is at work in the folder."""
    if not (folder / ".lock").exists():
        return
    with (folder / ".lock").open("r+", encoding="utf-8") as lock:
        if not _locked(lock):
            raise _taken(folder, lock)


def _taken(folder: Path, lock: IO[str]) -> RunLocked:
    lock.seek(0)
    holder = lock.read().strip() or "another process"
    return RunLocked(f"{folder}: {holder} is at work there; wait for its end, or choose another name=…")


def _locked(lock: IO[str]) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows has none: there nobody watches over who works where
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
