"""Check that a sweep's folder is fit for runs on several machines: seen by all, with locks that hold and one time.

As a command, it is what another machine is asked: python -m ganbench.sweeps.shared_folder PROBE, while this one holds
the lock of the file PROBE.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ganbench.errors import Refused
from ganbench.files import check_free_space
from ganbench.runs.lock import NO_LOCKS

CLOCK_SECONDS = 60.0
NODE_LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/run")
NODE_LOCAL_KINDS = ("tmpfs", "ramfs")
LOCAL_LOCKS = ("localflock", "local_lock=all", "local_lock=flock", "nolock")  # mount options of Lustre and NFS
ELSEWHERE = "pass a folder on the shared file system, with hydra.sweep.dir=..."


def check_shared_folder(folder: Path, one_machine: bool) -> None:
    """Raise Refused unless runs on several machines can work below `folder`. Leave no file behind.

    With `one_machine` all runs are on this one, whose own disks they see.
    """
    check_free_space(folder)
    if not one_machine:
        _reject_local_disk(folder)
    with held_probe(folder) as probe:
        check_probe(probe)


@contextmanager
def held_probe(folder: Path) -> Iterator[Path]:
    """Yield a new file in the nearest folder there is, whose lock this process holds inside the block."""
    parent = _nearest(folder)
    probe = parent / f".ganbench-probe-{os.uname().nodename}-{os.getpid()}"
    lock = FileLock(probe, fallback_to_soft=False, is_singleton=False)
    try:
        with lock.acquire(timeout=0):
            probe.touch()
            yield probe
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise Refused(
            f"{parent} is on a file system without locks ({error.strerror}), which runs on several machines need; "
            f"have it mounted with them (Lustre: -o flock), or {ELSEWHERE}"
        ) from None
    finally:
        probe.unlink(missing_ok=True)


def check_probe(probe: Path) -> None:
    """Raise Refused unless this machine sees the file, and finds it locked and of a time near its own."""
    here = os.uname().nodename
    if not probe.exists():
        raise Refused(f"{here} does not see {probe.parent}; {ELSEWHERE}")
    try:
        FileLock(probe, fallback_to_soft=False, is_singleton=False).acquire(timeout=0).lock.release()
        raise Refused(f"{probe.parent} is on a file system where {here} takes a lock that is held; {ELSEWHERE}")
    except Timeout:
        _check_clock(probe)


def _check_clock(probe: Path) -> None:
    difference = probe.stat().st_mtime - time.time()
    if abs(difference) > CLOCK_SECONDS:
        raise Refused(
            f"the clock of {os.uname().nodename} is {abs(difference):.0f} seconds "
            f"{'behind' if difference > 0 else 'ahead of'} that of the file server of {probe.parent}, by which "
            "machines agree on what is newer; set the clock."
        )


def _reject_local_disk(folder: Path) -> None:
    parent = _nearest(folder).resolve()
    place, kind, options = mount_of(parent)
    if kind in NODE_LOCAL_KINDS or any(parent.is_relative_to(local) for local in NODE_LOCAL):
        raise Refused(f"{folder} is on this machine's own disk, {place}, which other machines do not see; {ELSEWHERE}")
    bad = sorted(set(options) & set(LOCAL_LOCKS))
    if bad:
        raise Refused(
            f"{folder} is on {place}, which is mounted with {bad[0]}: locks there do not hold between machines, and "
            f"two could work on one run; {ELSEWHERE}"
        )


def mount_of(path: Path) -> tuple[str, str, list[str]]:
    """Return where the file system of `path` is mounted, its kind and its options."""
    best: tuple[str, str, list[str]] = ("/", "", [])
    table = Path("/proc/self/mounts")
    if not table.exists():  # not Linux
        return best
    for line in table.read_text(encoding="utf-8").splitlines():
        _, place, kind, options, *_ = line.split()
        place = place.replace("\\040", " ")
        if path.is_relative_to(place) and len(place) >= len(best[0]):
            best = (place, kind, options.split(","))
    return best


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


if __name__ == "__main__":
    try:
        check_probe(Path(sys.argv[1]))
    except Refused as refused:
        sys.exit(str(refused))
