"""Follow the runs of a sweep that an engine makes on other machines, until each has ended."""

import errno
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn

from ganbench.errors import Refused
from ganbench.files import check_free_space
from ganbench.runs.lock import NO_LOCKS, RunLocked
from ganbench.runs.signals import raise_on_signal
from ganbench.runs.status import exit_statuses
from ganbench.sweeps.jobs import Job
from ganbench.sweeps.launcher import job_return, log_summary
from ganbench.sweeps.outcomes import Status, describe_status, from_here
from ganbench.sweeps.progress import SweepProgress, shown

log = logging.getLogger("ganbench")

GRACE_SECONDS = 15.0  # a file that was written on another machine may be seen here only so much later
CLOCK_SECONDS = 60.0
NODE_LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/run")
LOCAL_LOCKS = ("localflock", "local_lock=all", "local_lock=flock", "nolock")  # mount options of Lustre and NFS


class Fate(NamedTuple):
    """What an engine knows about a run that is gone from it without a word."""

    interrupted: bool  # rather than failed
    reason: str


class Engine(Protocol):
    """What makes runs on other machines."""

    poll_seconds: float

    def places(self) -> dict[Path, str] | None:
        """Return the folders of the runs that it still has, each with `running` or why it waits; None if unknown."""

    def word(self, job: Job) -> Status | None:
        """Return how the run has ended, as the machine that made it says."""

    def fate(self, job: Job) -> Fate:
        """Say what has become of a run that is gone, and has left no word."""

    def bury(self, job: Job, fate: Fate) -> Status:
        """Record the end of a run that is gone. Raise RunLocked if another process works on it."""


def follow_runs(engine: Engine, jobs: Sequence[Job]) -> list[JobReturn]:
    """Show the progress of runs until all have ended, and tell how. A signal ends this, and not the runs."""
    following = _Following(engine, jobs)
    with raise_on_signal("the runs go on; the same command shows them again"), shown(following.progress):
        following.until_all_ended()
    statuses = [following.statuses[index] for index in range(len(jobs))]
    exit_statuses.extend(status["status"] for status in statuses)
    log_summary(list(jobs), statuses)
    return [job_return(job, status) for job, status in zip(jobs, statuses, strict=True)]


class _Following:
    def __init__(self, engine: Engine, jobs: Sequence[Job]):
        self.engine = engine
        self.jobs = jobs
        self.progress = SweepProgress(jobs, at_once=1)
        self.statuses: dict[int, Status] = {}
        self.gone_since: dict[int, float] = {}
        self.waiting: set[str] = set()  # the reasons

    def until_all_ended(self) -> None:
        for index, job in enumerate(self.jobs):
            done = job.completed_status()
            if done is not None:
                self._end(index, done, " (already done)")
        while len(self.statuses) < len(self.jobs):
            self._look()
            if len(self.statuses) < len(self.jobs):
                time.sleep(self.engine.poll_seconds)

    def _look(self) -> None:
        places = self.engine.places()
        if places is None:
            return
        for index, job in enumerate(self.jobs):
            if index in self.statuses:
                continue
            if job.folder in places:
                self.gone_since.pop(index, None)
                if places[job.folder] == "running":
                    self.progress.begin(index)
                continue
            status = self._status_of_gone(index)
            if status is not None:
                self._end(index, status, "")
        running = sum(place == "running" for place in places.values())
        self.progress.at_once = max(1, running)
        self._log_waiting({place for place in places.values() if place != "running"}, running)

    def _status_of_gone(self, index: int) -> Status | None:
        """Return how a run has ended that the engine does not have any more; None if that is not known yet."""
        job = self.jobs[index]
        status = self.engine.word(job)
        if status is not None:
            return status
        since = self.gone_since.setdefault(index, time.monotonic())
        if time.monotonic() - since < GRACE_SECONDS:
            return None
        try:
            return self.engine.bury(job, self.engine.fate(job))
        except RunLocked:  # someone else makes it
            return None

    def _end(self, index: int, status: Status, when: str) -> None:
        self.statuses[index] = status
        self.progress.end(index)
        number = f"run {index + 1}/{len(self.jobs)}"
        log.info(f"{number} {self.jobs[index].folder.name}: {describe_status(status)}{when}")

    def _log_waiting(self, reasons: set[str], running: int) -> None:
        """Log why runs wait, when that changes."""
        if reasons - self.waiting:
            log.info(f"{running} running, others wait: {', '.join(sorted(reasons))}")
        self.waiting = reasons


def check_shared_folder(folder: Path, one_machine: bool) -> None:
    """Raise Refused unless runs on several machines can work below `folder`. Leave no file behind.

    With `one_machine` all runs are on this one, whose own disks they see.
    """
    check_free_space(folder)
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    elsewhere = "pass a folder on the shared file system, with hydra.sweep.dir=..."
    if not one_machine:
        _reject_local_disk(folder, parent, elsewhere)
    probe = parent / f".ganbench-probe-{os.uname().nodename}-{os.getpid()}"
    try:
        _check_locks(probe, folder, elsewhere)
        _check_clock(probe, folder)
    finally:
        probe.unlink(missing_ok=True)


def _reject_local_disk(folder: Path, parent: Path, elsewhere: str) -> None:
    place, kind, options = _mount(parent)
    if kind in ("tmpfs", "ramfs") or str(parent.resolve()).startswith(tuple(f"{local}/" for local in NODE_LOCAL)):
        raise Refused(
            f"{folder} is on this machine's own disk ({place}), where other machines cannot see it; {elsewhere}"
        )
    bad = sorted(set(options) & set(LOCAL_LOCKS))
    if bad:
        raise Refused(
            f"{folder} is on {place}, which is mounted with {bad[0]}: locks there do not hold between machines, and "
            f"two could work on one run; {elsewhere}"
        )


def _check_locks(probe: Path, folder: Path, elsewhere: str) -> None:
    """Raise Refused unless a lock that is held keeps another holder out."""
    first, second = (FileLock(probe, fallback_to_soft=False, is_singleton=False) for _ in range(2))
    try:
        with first.acquire(timeout=0):
            second.acquire(timeout=0)
            second.release()
    except Timeout:
        return
    except OSError as error:
        if error.errno not in NO_LOCKS and error.errno != errno.EIO:
            raise
        raise Refused(
            f"{folder} is on a file system without locks ({error.strerror}), which runs on several machines need; "
            f"have it mounted with them (Lustre: -o flock), or {elsewhere}"
        ) from None
    raise Refused(f"{folder} is on a file system where a lock that is held keeps nobody out; {elsewhere}")


def _check_clock(probe: Path, folder: Path) -> None:
    probe.write_text("what time is it there?", encoding="utf-8")
    difference = probe.stat().st_mtime - time.time()
    if abs(difference) > CLOCK_SECONDS:
        raise Refused(
            f"the clock of {os.uname().nodename} is {abs(difference):.0f} seconds "
            f"{'behind' if difference > 0 else 'ahead of'} that of the file server of {folder}, by which machines "
            "agree on what is newer; set the clock."
        )


def _mount(path: Path) -> tuple[str, str, list[str]]:
    """Return where the file system of `path` is mounted, its kind and its options."""
    best = ("/", "", [""])
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return best
    for line in lines:
        _, place, kind, options, *_ = line.split()
        place = place.replace("\\040", " ")
        if path.resolve().is_relative_to(place) and len(place) >= len(best[0]):
            best = (place, kind, options.split(","))
    return best


def sweep_folder(jobs: Sequence[Job]) -> Path:
    """Return the folder of the sweep that the runs are of."""
    return jobs[0].folder.parent


def log_begin(jobs: Sequence[Job]) -> None:
    """Log how many runs there are, and where."""
    done = sum(job.completed is not None for job in jobs)
    runs = "1 run" if len(jobs) == 1 else f"{len(jobs)} runs"
    log.info(f"{runs}{f' ({done} already done)' if done else ''}, in {from_here(sweep_folder(jobs))}")
