"""Sweeps: everything is checked before anything is written, and each run has a process of its own."""

import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ganbench.runs.signals import raise_on_signal
from ganbench.runs.status import exit_statuses
from ganbench.sweeps.jobs import Job, compose_jobs, without_hydra
from ganbench.sweeps.processes import RunPool, gpu_memory
from ganbench.sweeps.task import describe_status, next_step_hint, ranked_score

log = logging.getLogger("ganbench")


def run_jobs(
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    n_jobs: int | str,
) -> Sequence[JobReturn]:
    """Run each job in a new process, `n_jobs` at a time. One that fails, diverges or is killed costs only itself.

    What is done already stays, what was cut short goes on, and what another launcher has in hand is waited for.
    """
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    jobs = compose_jobs(context, config, job_overrides, first)
    at_once = min(concurrent_runs(jobs) if n_jobs == "auto" else n_jobs, len(jobs))
    done = sum(job.done is not None for job in jobs)
    before = f", of which {done} are done already" if done else ""
    log.info(f"{len(jobs)} runs{before}, {at_once} at a time, in {jobs[0].folder.parent}")
    runs = RunPool(context, task)

    def one(k: int, patient: bool) -> dict[str, Any] | None:
        """How run k ended; None, unless `patient`, if another launcher has it in hand."""
        known = jobs[k].settled()
        status = known or runs.unless_taken(jobs[k])
        while patient and status is None and not runs.leaving:
            time.sleep(0.5)
            status = runs.unless_taken(jobs[k])
        if status:
            log.info(
                f"run {k + 1}/{len(jobs)} {jobs[k].folder.name}: {describe_status(status)}{' (before)' if known else ''}"
            )
        return status

    with raise_on_signal(), ThreadPoolExecutor(at_once) as pool:
        try:
            statuses: list[dict[str, Any] | None] = [None] * len(jobs)
            for patient in (False, True):  # first what nobody else has in hand
                left = [k for k, status in enumerate(statuses) if status is None]
                for k, status in zip(left, pool.map(partial(one, patient=patient), left), strict=True):
                    statuses[k] = status
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            runs.leave()
            raise
    _summarise(jobs, statuses)
    return [_returned(job, status) for job, status in zip(jobs, statuses, strict=True)]


def _returned(job: Job, status: dict[str, Any]) -> JobReturn:
    return JobReturn(
        overrides=list(job.overrides),
        cfg=without_hydra(job.config),
        hydra_cfg=OmegaConf.masked_copy(job.config, ["hydra"]),
        working_dir=str(job.folder),
        task_name=job.config.hydra.job.name,
        status=JobStatus.COMPLETED,
        _return_value=ranked_score(status),
    )


def _summarise(jobs: list[Job], statuses: list[dict[str, Any]]) -> None:
    ended = [status["status"] for status in statuses]
    exit_statuses.extend(ended)
    log.info(", ".join(f"{n} {status}" for status, n in Counter(ended).items()))
    for job, status in zip(jobs, statuses, strict=True):
        if status["status"] != "finished":
            log.warning(f"{job.folder.name}: {describe_status(status)}{next_step_hint(status)}")


def concurrent_runs(jobs: list[Job]) -> int:
    """How many of such runs go side by side: one for each core that their threads leave, and on a GPU, which small
    runs keep waiting, one for each 8 GB of its memory.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    room = max(1, cores // max(job.config.threads for job in jobs))
    if room == 1 or all(job.config.device.value == "cpu" for job in jobs):
        return room
    memory = gpu_memory()
    return max(1, min(room, memory // int(8e9))) if memory else room
