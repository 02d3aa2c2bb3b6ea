"""Run the jobs of a sweep side by side, once every one of them has been composed and checked."""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ganbench.errors import plural
from ganbench.runs.lock import RunLocked
from ganbench.runs.signals import raise_on_signal
from ganbench.runs.status import exit_statuses, plan_runs
from ganbench.sweeps.gpus import Gpus, Place, free_memory, named_gpu, ran_out_of_memory
from ganbench.sweeps.jobs import Job, check_sweep, compose_each
from ganbench.sweeps.outcomes import (
    NEXT_STEPS,
    Status,
    describe_status,
    from_here,
    ranked_score,
    report_command,
)
from ganbench.sweeps.processes import RunPool, start_fork_server, torch_finds_gpu
from ganbench.sweeps.progress import SweepProgress, shown

log = logging.getLogger("ganbench")

SUMMARY_ORDER = ("finished", "diverged", "failed", "interrupted", "refused", "running")
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
    jobs: list[Job] = []
    is_started = False
    for job in compose_each(context, config, job_overrides, first_index, check_existing):
        jobs.append(job)
        # Not before a run is known to be valid, and to be made: most refusals are of the first, and need not wait for a
        # server to end; and a sweep that is done needs none.
        if job.completed is None and not is_started:
            start_fork_server(config)
            is_started = True
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
    todo = [job for job in jobs if job.completed is None]
    gpus = find_gpus(todo, is_bounded=n_jobs == "auto")
    at_once = min(concurrent_runs(todo, gpus) if n_jobs == "auto" else int(n_jobs), len(todo))
    _log_start(jobs, at_once, gpus)
    sweep = _Sweep(jobs, RunPool(context, task), gpus, SweepProgress(jobs))
    with raise_on_signal(), shown(sweep.progress):
        statuses = sweep.run(max(1, at_once))
    exit_statuses.extend(status["status"] for status in statuses)
    log_summary(jobs, statuses)
    return [job_return(job, status) for job, status in zip(jobs, statuses, strict=True)]


@dataclass
class _Sweep:
    """The jobs of a sweep, the pool whose processes they run in, their GPUs if there are any, and how far they are."""

    jobs: list[Job]
    pool: RunPool
    gpus: Gpus | None
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
                if self.gpus:
                    self.gpus.stop.set()
                raise

    def _run_if_free(self, index: int) -> Status | None:
        """Return how the run ended, now or before; None if another launcher is working on it."""
        job = self.jobs[index]
        if job.completed:
            return job.completed  # the first line has counted it
        before = job.completed_status()
        try:
            status = before or self._run_on_device(index)
        except RunLocked:
            return None
        self.progress.end(index)
        log_end(self.jobs, index, status, already_done=bool(before))
        return status

    def _run_on_device(self, index: int) -> Status:
        """Run on a CPU, or on a GPU that has room for it; once more if others had taken the memory that it needed."""
        job = self.jobs[index]
        if self.gpus is None or job.shared.device == "cpu":
            self.progress.begin(index)
            return self.pool.run_if_free(job)
        with self.gpus.place(job) as place:
            self.progress.begin(index)
            status = self.pool.run_if_free(job, _visible_to(job, place))
        if not (place.had_neighbors and ran_out_of_memory(status)):
            return status
        log.warning(f"{job.folder.name}: out of memory beside other runs on its GPU; it is tried again alone there")
        with self.gpus.place(job, alone=True) as place:
            return self.pool.run_if_free(job.retried(), _visible_to(job, place))

    def _wait_for_others(self, index: int, status: Status | None) -> Status:
        """Wait until no other launcher works on the run, and make it unless that one has; keep a `status` we have."""
        if status is None:
            status = self._run_if_free(index)
        if status is None:
            log.info(f"{self.jobs[index].folder.name}: another process is working on it; waiting for that to end")
        while status is None:
            time.sleep(POLL_SECONDS)
            status = self._run_if_free(index)
        return status


def _log_start(jobs: list[Job], at_once: int, gpus: Gpus | None) -> None:
    room = " or fewer, as they have room on their GPUs" if gpus is not None and gpus.is_bounded and at_once > 1 else ""
    log_begin(jobs, f"{at_once} at a time{room}" if at_once else "")


def log_begin(jobs: Sequence[Job], how: str = "") -> None:
    """Log how many runs there are, how they are made, and where."""
    done = sum(job.completed is not None for job in jobs)
    runs = f"{plural(len(jobs), 'run')}{f' ({done} already done)' if done else ''}"
    log.info(", ".join(filter(None, [runs, how, f"in {from_here(jobs[0].folder.parent)}"])))


def log_end(jobs: Sequence[Job], index: int, status: Status, already_done: bool) -> None:
    """Log how a run ended, now or before."""
    when = " (already done)" if already_done else ""
    log.info(f"run {index + 1}/{len(jobs)} {jobs[index].folder.name}: {describe_status(status)}{when}")


def log_summary(jobs: list[Job], statuses: list[Status]) -> None:
    """Log how many runs ended in which way, and name those that did not finish, with what to do next.

    Runs that ended in the same way for the same reason share a line: a missing dataset stops them all.
    """
    log.info(count_statuses(statuses))
    runs_by_end: dict[str, list[str]] = {}
    for job, status in zip(jobs, statuses, strict=True):
        if status["status"] != "finished":
            runs_by_end.setdefault(_end_and_next_step(status), []).append(job.folder.name)
    for end, runs in runs_by_end.items():
        log.warning(f"{', '.join(runs)}: {end}")


def _end_and_next_step(status: Status) -> str:
    step = NEXT_STEPS.get(status["status"])
    return f"{describe_status(status)}{f'; {step}' if step else ''}"


def log_report(sweep: Path) -> None:
    """Log the command that makes the report of the sweep, if any of its runs can be in it."""
    if {"finished", "diverged"} & set(exit_statuses):
        log.info(f"Report: {report_command(sweep.absolute())}")


def count_statuses(statuses: list[Status]) -> str:
    """Count runs by how they ended, such as `10 finished, 1 diverged, 1 failed`."""
    counts = Counter(status["status"] for status in statuses)
    return ", ".join(f"{counts[name]} {name}" for name in SUMMARY_ORDER if counts[name])


def job_return(job: Job, status: Status) -> JobReturn:
    """Tell Hydra, and sweepers that optimize it, a run's score; its settings, a megabyte, are in its folder."""
    return JobReturn(
        overrides=list(job.overrides),
        working_dir=str(job.folder),
        task_name=job.shared.hydra.job.name,
        status=JobStatus.COMPLETED,
        _return_value=ranked_score(status),
    )


def _visible_to(job: Job, place: Place) -> str | None:
    """Return the only GPU that the run's process may see; None for one that finds its GPU by number."""
    return place.gpu if named_gpu(job) is None else None


def find_gpus(jobs: list[Job], is_bounded: bool) -> Gpus | None:
    """Return the GPUs that runs are placed on; None if all are for a CPU, or no GPU can be asked for its memory."""
    wanted = any(job.shared.device != "cpu" for job in jobs)
    return Gpus(is_bounded) if wanted and free_memory() else None


def concurrent_runs(jobs: list[Job], gpus: Gpus | None) -> int:
    """Choose how many runs go side by side at most: as many as the cores have threads for.

    Small runs keep a GPU waiting, so several share one that has the memory; where that cannot be asked, none do.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    by_cores = max(1, cores // max((job.shared.threads for job in jobs), default=1))
    if by_cores == 1 or gpus is not None or all(job.shared.device == "cpu" for job in jobs):
        return by_cores
    if not torch_finds_gpu():
        return by_cores
    log.info("nvidia-smi cannot be asked for the GPU's memory, so one run at a time; sweep.parallel=N has more")
    return 1
