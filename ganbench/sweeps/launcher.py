"""Run the jobs of a sweep side by side, once every one of them has been composed and checked."""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ganbench.runs.lock import RunLocked
from ganbench.runs.signals import raise_on_signal
from ganbench.runs.status import exit_statuses, plan_runs
from ganbench.sweeps.jobs import Job, check_sweep, compose_each, without_hydra
from ganbench.sweeps.outcomes import NEXT_STEPS, Status, describe_status, from_here, ranked_score, report_command
from ganbench.sweeps.processes import RunPool, gpu_memory, start_fork_server
from ganbench.sweeps.progress import SweepProgress, shown

log = logging.getLogger("ganbench")

SUMMARY_ORDER = ("finished", "diverged", "failed", "interrupted", "refused", "running")
GPU_BYTES_PER_RUN = int(8e9)
POLL_SECONDS = 0.5


def compose_jobs(
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first_index: int = 0,
    check_existing: bool = True,
) -> list[Job]:
    """Compose and check every run of a sweep. Raise Refused if one cannot be made; nothing has been written then.

    Without `check_existing`, the runs' folders may hold runs of other settings.
    """
    composing = compose_each(context, config, job_overrides, first_index, check_existing)
    jobs = list(islice(composing, 1))
    # Not before one run is known to be valid: most refusals are of the first, and need not wait for a server to end.
    start_fork_server(config)
    jobs.extend(composing)
    check_sweep(config, jobs)
    return jobs


def save_plan(config: DictConfig, jobs: Iterable[Job]) -> None:
    """Write multirun.yaml into the sweep's folder, as Hydra's own sweeper does, and the names of its runs' folders."""
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "multirun.yaml")
    plan_runs(folder, (job.folder.name for job in jobs))


def run_jobs(
    context: HydraContext, task: TaskFunction, config: DictConfig, jobs: list[Job], n_jobs: int | str
) -> list[JobReturn]:
    """Run each job in a new process, `n_jobs` at a time. One that fails, diverges or is killed costs only itself.

    Runs that are complete are kept, interrupted ones resumed, and those that another launcher is working on waited for.
    """
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    at_once = min(concurrent_runs(jobs) if n_jobs == "auto" else int(n_jobs), len(jobs))
    _log_start(jobs, at_once)
    sweep = _Sweep(jobs, RunPool(context, task), SweepProgress(jobs, at_once))
    with raise_on_signal(), shown(sweep.progress):
        statuses = sweep.run(at_once)
    exit_statuses.extend(status["status"] for status in statuses)
    log_summary(jobs, statuses)
    return [job_return(job, status) for job, status in zip(jobs, statuses, strict=True)]


@dataclass
class _Sweep:
    """The jobs of a sweep, the pool whose processes they run in, and how far they are."""

    jobs: list[Job]
    pool: RunPool
    progress: SweepProgress

    def run(self, at_once: int) -> list[Status]:
        """Make every run and return how each ended: first those that are free, then those of other launchers."""
        indices = range(len(self.jobs))
        with ThreadPoolExecutor(at_once) as threads:
            try:
                first_pass = list(threads.map(self._run_if_free, indices))
                return list(threads.map(self._wait_for_others, indices, first_pass))
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                self.pool.stop()
                raise

    def _run_if_free(self, index: int) -> Status | None:
        """Return how the run ended, now or before; None if another launcher is working on it."""
        job = self.jobs[index]
        before = job.completed_status()
        self.progress.begin(index)
        try:
            status = before or self.pool.run_if_free(job)
        except RunLocked:
            return None
        self.progress.end(index)
        self._log_end(index, status, " (already done)" if before else "")
        return status

    def _wait_for_others(self, index: int, status: Status | None) -> Status:
        """Wait until no other launcher works on the run, and make it unless that one has; keep a `status` we have."""
        if status is None:
            status = self._run_if_free(index)
        while status is None:
            time.sleep(POLL_SECONDS)
            status = self._run_if_free(index)
        return status

    def _log_end(self, index: int, status: Status, when: str) -> None:
        number = f"run {index + 1}/{len(self.jobs)}"
        log.info(f"{number} {self.jobs[index].folder.name}: {describe_status(status)}{when}")


def _log_start(jobs: list[Job], at_once: int) -> None:
    done = sum(job.completed is not None for job in jobs)
    already = f" ({done} already done)" if done else ""
    runs = "1 run" if len(jobs) == 1 else f"{len(jobs)} runs"
    log.info(f"{runs}{already}, {at_once} at a time, in {from_here(jobs[0].folder.parent)}")


def log_summary(jobs: list[Job], statuses: list[Status]) -> None:
    """Log how many runs ended in which way, and name those that did not finish, with what to do next."""
    log.info(count_statuses(statuses))
    for job, status in zip(jobs, statuses, strict=True):
        if status["status"] != "finished":
            step = NEXT_STEPS.get(status["status"])
            log.warning(f"{job.folder.name}: {describe_status(status)}{f'; {step}' if step else ''}")


def log_report(sweep: Path) -> None:
    """Log the command that makes the report of the sweep, if any of its runs can be in it."""
    if {"finished", "diverged"} & set(exit_statuses):
        log.info(f"Report: {report_command(sweep.absolute())}")


def count_statuses(statuses: list[Status]) -> str:
    """Count runs by how they ended, such as `10 finished, 1 diverged, 1 failed`."""
    counts = Counter(status["status"] for status in statuses)
    return ", ".join(f"{counts[name]} {name}" for name in SUMMARY_ORDER if counts[name])


def job_return(job: Job, status: Status) -> JobReturn:
    """Tell Hydra, and sweepers that optimize it, a run's score."""
    return JobReturn(
        overrides=list(job.overrides),
        cfg=without_hydra(job.config),
        hydra_cfg=OmegaConf.masked_copy(job.config, ["hydra"]),
        working_dir=str(job.folder),
        task_name=job.config.hydra.job.name,
        status=JobStatus.COMPLETED,
        _return_value=ranked_score(status),
    )


def concurrent_runs(jobs: list[Job]) -> int:
    """Choose how many runs go side by side: as many as the cores have threads for.

    Small runs keep a GPU waiting, so several share it, one for each 8 GB of its memory.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    by_cores = max(1, cores // max(job.config.threads for job in jobs))
    if by_cores == 1 or all(job.config.device == "cpu" for job in jobs):
        return by_cores
    memory = gpu_memory()
    if memory == 0:
        return by_cores
    return max(1, min(by_cores, memory // GPU_BYTES_PER_RUN))
