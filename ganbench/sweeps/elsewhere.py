"""Runs that a launcher of Hydra's or a user's makes: in this process, in others, or on other machines."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from ganbench.runs.lock import RunLocked
from ganbench.runs.status import exit_statuses, read_status
from ganbench.sweeps.jobs import Job
from ganbench.sweeps.launcher import job_return, log_summary
from ganbench.sweeps.outcomes import Status
from ganbench.sweeps.processes import Failure, log_failure, record_failure


def run_elsewhere(launcher: Launcher, jobs: list[Job]) -> list[JobReturn]:
    """Have a launcher make the runs that are not complete, and learn from their folders how all have ended.

    The launcher itself does not tell which run diverged, and none that was killed.
    """
    before = list(exit_statuses)  # to which each run in this process adds its own
    done = [job.completed_status() for job in jobs]
    made = iter(_make([job for job, status in zip(jobs, done, strict=True) if status is None], launcher))
    statuses = [status or next(made) for status in done]
    exit_statuses[:] = [*before, *(status["status"] for status in statuses)]
    log_summary(jobs, statuses)
    return [job_return(job, status) for job, status in zip(jobs, statuses, strict=True)]


def _make(jobs: Sequence[Job], launcher: Launcher) -> list[Status]:
    """Have the launcher make runs, and return how each has ended."""
    failures: list[Failure | None]
    if not jobs:
        return []
    try:
        results = launcher.launch([job.overrides for job in jobs], initial_job_idx=jobs[0].index)
        failures = [_failure(result) for result in results]
    except Exception as error:  # as when one of its workers was killed, which takes the others with it
        stopped = log_failure(error)
        failures = [stopped._replace(message=stopped.message.partition("\n")[0])] * len(jobs)
    return [_status(job, failure) for job, failure in zip(jobs, failures, strict=True)]


def _failure(result: JobReturn) -> Failure | None:
    """Return why a run failed, as Hydra has caught it; None for one that ended well."""
    return log_failure(result._return_value) if result.status == JobStatus.FAILED else None  # `return_value` raises it


def _status(job: Job, failure: Failure | None) -> Status:
    """Return how a run has ended, once its status.json says so, too."""
    if not (job.folder / "status.json").exists() and not (failure and failure.refused):
        return {"status": "interrupted", "reason": "it never began"}
    try:
        return record_failure(job, None, failure)
    except RunLocked:  # it goes on, under a launcher that does not wait, or another one has resumed it
        return read_status(job.folder)
