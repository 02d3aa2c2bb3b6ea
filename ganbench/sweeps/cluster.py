"""Follow the runs of a sweep that an engine makes on other machines, until each has ended."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from hydra.core.utils import JobReturn

from ganbench.runs.lock import RunLocked
from ganbench.runs.signals import raise_on_signal
from ganbench.runs.status import exit_statuses
from ganbench.sweeps.jobs import Job
from ganbench.sweeps.launcher import job_return, log_end, log_summary
from ganbench.sweeps.outcomes import Status
from ganbench.sweeps.progress import SweepProgress, shown
from ganbench.sweeps.remote import Task

log = logging.getLogger("ganbench")

GRACE_SECONDS = 15.0  # a file that was written on another machine may be seen here only so much later


class Fate(NamedTuple):
    """What an engine knows about a run that is gone from it without a word."""

    interrupted: bool  # rather than failed
    reason: str


class Engine(Protocol):
    """What makes runs on other machines."""

    poll_seconds: float
    after_signal: str  # what then becomes of the runs

    def places(self) -> dict[Path, str] | None:
        """Return the folders of the runs that it still has, each with `running` or why it waits; None if unknown."""

    def task(self, job: Job) -> Task | None:
        """Return the task that makes the run; None for a run that it has never had."""

    def fate(self, task: Task) -> Fate:
        """Say what has become of a task that is gone, and has not written how its run has ended."""


def follow_runs(engine: Engine, jobs: Sequence[Job]) -> list[JobReturn]:
    """Show the progress of runs until all have ended, and tell how."""
    following = _Following(engine, jobs)
    with raise_on_signal(engine.after_signal), shown(following.progress):
        following.until_all_ended()
    statuses = [following.statuses[index] for index in range(len(jobs))]
    exit_statuses.extend(status["status"] for status in statuses)
    log_summary(list(jobs), statuses)
    return [job_return(job, status) for job, status in zip(jobs, statuses, strict=True)]


class _Following:
    def __init__(self, engine: Engine, jobs: Sequence[Job]):
        self.engine = engine
        self.jobs = jobs
        self.progress = SweepProgress(jobs)
        self.statuses: dict[int, Status] = {}
        self.gone_since: dict[int, float] = {}
        self.waiting: set[str] = set()  # the reasons

    def until_all_ended(self) -> None:
        for index, job in enumerate(self.jobs):
            if job.completed:
                self.statuses[index] = job.completed  # the first line has counted it
            elif done := job.completed_status():
                self._end(index, done, already_done=True)
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
                self._end(index, status)
        running = sum(place == "running" for place in places.values())
        self._log_waiting({place for place in places.values() if place != "running"}, running)

    def _status_of_gone(self, index: int) -> Status | None:
        """Return how a run has ended that the engine does not have any more; None if that is not known yet."""
        task = self.engine.task(self.jobs[index])
        if task is None:
            return {"status": "interrupted", "reason": "it never began"}
        status = task.end()
        if status is not None:
            return status
        since = self.gone_since.setdefault(index, time.monotonic())
        if time.monotonic() - since < GRACE_SECONDS:
            return None
        try:
            return _bury(task, self.engine.fate(task))
        except RunLocked:  # someone else makes it
            return None

    def _end(self, index: int, status: Status, already_done: bool = False) -> None:
        self.statuses[index] = status
        self.progress.end(index)
        log_end(self.jobs, index, status, already_done)

    def _log_waiting(self, reasons: set[str], running: int) -> None:
        """Log why runs wait, when that changes."""
        if reasons - self.waiting:
            log.info(f"{running} running, others wait: {', '.join(sorted(reasons))}")
        self.waiting = reasons


def _bury(task: Task, fate: Fate) -> Status:
    """Record the end of a run whose task is gone. Raise RunLocked if another process works on it."""
    order = task.order()
    if fate.interrupted and not Path(order.folder, "status.json").exists():
        return {"status": "interrupted", "reason": fate.reason}
    return order.record_end(143 if fate.interrupted else None, fate.reason)


def sweep_folder(jobs: Sequence[Job]) -> Path:
    """Return the folder of the sweep that the runs are of."""
    return jobs[0].folder.parent
