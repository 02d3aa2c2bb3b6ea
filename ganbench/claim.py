"""One run in one folder: who works there holds a lock, which the system takes back however its holder ends."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ganbench.config import Refused

PATIENCE = 1.0  # seconds: as long as that, a holder may only be looking whether somebody else is there


class Taken(Refused):
    """Somebody else is at work in the folder; says who."""


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold `folder` while inside. Raise Taken if another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="utf-8") as lock:
        give_up = time.monotonic() + PATIENCE
        while not _locked(lock):
            if time.monotonic() > give_up:
                lock.seek(0)
                holder = lock.read().strip() or "another process"
                raise Taken(f"{folder}: {holder} is at work there; wait for its end, or choose another name=…")
            time.sleep(0.02)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')},")
        lock.flush()
        yield


def taken(folder: Path) -> bool:
    """Whether a process is at work in the folder."""
    try:
        with (folder / ".lock").open("r+", encoding="utf-8") as lock:
            return not _locked(lock)
    except FileNotFoundError:
        return False


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
