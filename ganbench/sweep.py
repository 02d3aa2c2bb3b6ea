"""Sweeps: everything is checked before anything is written, and each run has a process of its own."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.errors import ConfigCompositionException
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ganbench import outcome
from ganbench.check import check, explained
from ganbench.config import Refused, Track, label, register

log = logging.getLogger("ganbench")


def task(cfg: DictConfig) -> float:
    """What Hydra calls for each run."""
    check(cfg)  # again, for launchers and sweepers that are not ours
    from ganbench.train import train

    out = Path(HydraConfig.get().runtime.output_dir)
    try:
        return train(cfg, out)
    finally:
        outcome.endings.append(outcome.read_status(out)["status"])


def leave_on_sigterm() -> None:
    """Turn SIGTERM into an exit that lets a run record that it was interrupted."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


class RefuseBadConfig(Callback):
    """Stops a single run before Hydra makes its folder."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            config.name = config.name  # `now` in it must not tick again
            refuse(without_hydra(config), Path(config.hydra.run.dir))
        except Exception as error:
            # Hydra turns ordinary errors of a callback into warnings; only an exit gets through.
            print(error, file=sys.stderr)
            raise SystemExit(2) from None


def without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


def refuse(cfg: DictConfig, out: Path, fresh: bool = True) -> None:
    """Raise Refused for a run that cannot be made, or (`fresh`) not there."""
    check(cfg)
    if cfg.protocol.track is Track.tuned and cfg.protocol.trial is None:
        raise Refused(
            f"protocol={cfg.protocol.name} searches before it compares, which takes -m and no other protocol: "
            f"python -m ganbench -m protocol={cfg.protocol.name} loss=gan,hinge seed=0,1,2 name=mine"
        )
    if fresh:
        outcome.refuse_used(out)
    if cfg.device.value == "cuda":
        from ganbench.train import choose_device

        choose_device("cuda")


@dataclass
class Job:
    overrides: Sequence[str]
    config: DictConfig
    folder: Path


def compose(
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int = 0,
    fresh: bool = True,
) -> list[Job]:
    """The configuration and folder of each run, all checked; raises before any of them has started.

    Unless `fresh`, their folders may hold something already.
    """
    config.name = config.name  # `now` in it must not tick between runs
    jobs = []
    for index, overrides in enumerate(job_overrides, first):
        try:
            jobs.append(_compose_one(context, config, overrides, index, fresh))
        except (Refused, ConfigCompositionException, OmegaConfBaseException) as error:
            raise Refused(f"run {index + 1} of the sweep ({' '.join(overrides)}): {explained(error)}") from None
    for folder, n in Counter(job.folder for job in jobs).items():
        if n > 1:
            raise Refused(f"{n} runs of the sweep would share the folder {folder}: they are the same run twice.")
    n_jobs = config.hydra.launcher.get("n_jobs")
    if n_jobs is not None and n_jobs < 1:
        raise Refused(f"hydra.launcher.n_jobs={n_jobs} is out of range: allowed is 1 or more, or null.")
    return jobs


def _compose_one(context: HydraContext, config: DictConfig, overrides: Sequence[str], index: int, fresh: bool) -> Job:
    job = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(job):
        job.name = config.name
        job.hydra.job.id, job.hydra.job.num = str(index), index
        job.hydra.sweep.dir = str(Path(job.hydra.sweep.dir).absolute())
        job.hydra.sweep.subdir = str(job.hydra.sweep.subdir)
    folder = Path(job.hydra.sweep.dir) / job.hydra.sweep.subdir
    refuse(without_hydra(job), folder, fresh)
    return Job(overrides, job, folder)


def run(
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    n_jobs: int | None,
) -> Sequence[JobReturn]:
    """Run each job in a new process, `n_jobs` at a time. One that fails, diverges or is killed costs only itself."""
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    jobs = compose(context, config, job_overrides, first)
    at_once = min(n_jobs or _default_jobs(jobs), len(jobs))
    log.info(f"{len(jobs)} runs, {at_once} at a time, in {jobs[0].folder.parent}")

    def one(number: int, job: Job) -> dict[str, Any]:
        status = _in_process(context, task, job)
        log.info(f"run {number}/{len(jobs)} {job.folder.name}: {_told(status)}")
        return status

    with ThreadPoolExecutor(at_once) as pool:
        try:
            statuses = list(pool.map(one, range(1, len(jobs) + 1), jobs))
        except BaseException:  # an interrupt: start nothing more, and let what runs write its last words
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    _summarise(jobs, statuses)
    return [_returned(job, status) for job, status in zip(jobs, statuses, strict=True)]


def _in_process(context: HydraContext, task: TaskFunction, job: Job) -> dict[str, Any]:
    # A daemon: an interrupted sweep takes its runs with it.
    process = _processes().Process(target=_child, args=(context, task, job.config), daemon=True)
    process.start()
    process.join()
    return outcome.bury(job.folder, process.exitcode, label=label(job.config), seed=job.config.seed)


def _processes() -> BaseContext:
    """Where runs come from: a server that has imported what they need, where the system has such."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["ganbench.train"])
    return found


def _child(context: HydraContext, task: TaskFunction, config: DictConfig) -> None:
    leave_on_sigterm()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    register()
    setup_globals()
    os.environ["OMP_NUM_THREADS"] = str(config.threads)
    result = run_job(
        hydra_context=context,
        config=config,
        task_function=task,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    if result.status == JobStatus.FAILED:
        error = result._return_value
        log.error(error if isinstance(error, Refused) else "".join(traceback.format_exception(error)))
        sys.exit(1)


def _end_with_parent() -> None:
    """A killed sweep cannot stop its runs; one that lived on would write where the same run, begun again, writes."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _returned(job: Job, status: dict[str, Any]) -> JobReturn:
    score = status.get("score") if status["status"] == "finished" else None
    return JobReturn(
        overrides=list(job.overrides),
        cfg=without_hydra(job.config),
        hydra_cfg=OmegaConf.masked_copy(job.config, ["hydra"]),
        working_dir=str(job.folder),
        task_name=job.config.hydra.job.name,
        status=JobStatus.COMPLETED,
        _return_value=float("inf") if score is None else score,
    )


def _summarise(jobs: list[Job], statuses: list[dict[str, Any]]) -> None:
    ended = [status["status"] for status in statuses]
    outcome.endings.extend(ended)
    log.info(", ".join(f"{n} {status}" for status, n in Counter(ended).items()))
    for job, status in zip(jobs, statuses, strict=True):
        if status["status"] != "finished":
            log.warning(f"{job.folder.name}: {_told(status)}")


def _default_jobs(jobs: list[Job]) -> int:
    import torch

    if any(job.config.device.value != "cpu" for job in jobs) and torch.cuda.is_available():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(job.config.threads for job in jobs))


def _told(status: dict[str, Any]) -> str:
    if status.get("reason"):
        return f"{status['status']} ({status['reason']})"
    score = status.get("score")
    return f"{status['status']}, score {'none' if score is None else f'{score:.4g}'}"
