"""Sweeps: everything is checked before anything is written, and each run has a process of its own."""

import logging
import multiprocessing
import os
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from ganbench import outcome
from ganbench.config import Refused, check

log = logging.getLogger("ganbench")


def register() -> None:
    """Make the launcher and the sweeper known to Hydra."""
    store = ConfigStore.instance()
    for plugin, group, name in ((Processes, "launcher", "processes"), (Checked, "sweeper", "checked")):
        store.store(group=f"hydra/{group}", name=name, node=plugin.Conf, provider="ganbench")
        Plugins.instance().register(plugin)


class RefuseBadConfig(Callback):
    """Stops a single run before Hydra makes its folder."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        config.name = config.name  # `now` in it must not tick again
        try:
            check(without_hydra(config))
            refuse_used(Path(config.hydra.run.dir))
        except Refused as refusal:
            # Hydra turns ordinary errors of a callback into warnings; only an exit gets through.
            print(refusal, file=sys.stderr)
            raise SystemExit(2) from None


def without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


def refuse_used(out: Path) -> None:
    if (out / "status.json").exists():
        raise Refused(f"{out} already holds a run, and outputs are never overwritten: choose another name=… or folder.")


class Checked(BasicSweeper):
    """Hydra's own sweeper, after every run of the sweep has been composed and checked."""

    @dataclass
    class Conf:
        _target_: str = "ganbench.sweep.Checked"
        max_batch_size: int | None = None
        params: dict[str, str] | None = None

    def sweep(self, arguments: list[str]) -> Any:
        params = [f"{k}={v}" for k, v in (self.params or {}).items()]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        batches = self.split_arguments(parser.parse_overrides(params + arguments), None)
        compose(self.hydra_context, self.config, [overrides for batch in batches for overrides in batch])
        return super().sweep(arguments)


class Processes(Launcher):
    """Runs each job in a new process, `n_jobs` at a time; a job that fails, diverges or is killed costs only itself."""

    @dataclass
    class Conf:
        _target_: str = "ganbench.sweep.Processes"
        n_jobs: int | None = None  # None: one for each core, or one on a GPU

    def __init__(self, n_jobs: int | None):
        if n_jobs is not None and n_jobs < 1:
            raise Refused(f"hydra.launcher.n_jobs={n_jobs} is out of range: allowed is 1 or more, or null.")
        self.n_jobs = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        jobs = compose(self.context, self.config, job_overrides, initial_job_idx)
        at_once = min(self.n_jobs or _default_jobs(jobs), len(jobs))
        log.info(f"{len(jobs)} runs, {at_once} at a time, in {jobs[0].folder.parent}")
        with ThreadPoolExecutor(at_once) as pool:
            results = list(pool.map(self._run, jobs, range(1, len(jobs) + 1), [len(jobs)] * len(jobs)))
        self._summarise(jobs)
        return results

    def _run(self, job: "Job", number: int, total: int) -> JobReturn:
        spawn = multiprocessing.get_context("spawn")
        # Daemons: an interrupted sweep takes its runs with it.
        process = spawn.Process(
            target=_child, args=(self.context, job.config, self.task, Singleton.get_state()), daemon=True
        )
        process.start()
        process.join()
        status = outcome.bury(job.folder, process.exitcode)
        log.info(f"run {number}/{total} {job.folder.name}: {status['status']}{_because(status)}")
        score = status.get("score")
        return JobReturn(
            overrides=list(job.overrides),
            cfg=job.config,
            hydra_cfg=job.config,
            working_dir=str(job.folder),
            task_name=job.config.hydra.job.name,
            status=JobStatus.COMPLETED,
            _return_value=score if score is not None and status["status"] == "finished" else float("inf"),
        )

    def _summarise(self, jobs: list["Job"]) -> None:
        statuses = {job.folder.name: outcome.read_status(job.folder) for job in jobs}
        counts = Counter(status["status"] for status in statuses.values())
        log.info(", ".join(f"{n} {status}" for status, n in counts.items()))
        for name, status in statuses.items():
            outcome.endings.append(status["status"])
            if status["status"] != "finished":
                log.warning(f"{name} {status['status']}{_because(status)}")


@dataclass
class Job:
    overrides: Sequence[str]
    config: DictConfig
    folder: Path


def compose(
    context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]], first: int = 0
) -> list[Job]:
    """The configuration and folder of each job, all checked; raises before any of them has started."""
    jobs = []
    for index, overrides in enumerate(job_overrides, first):
        job = context.config_loader.load_sweep_config(config, list(overrides))
        with open_dict(job):
            job.name = config.name  # `now` in it must not tick between jobs
            job.hydra.job.id, job.hydra.job.num = str(index), index
            job.hydra.sweep.dir = str(Path(config.hydra.sweep.dir).absolute())
            job.hydra.sweep.subdir = str(job.hydra.sweep.subdir)
        try:
            check(without_hydra(job))
        except Refused as refusal:
            raise Refused(f"run {index + 1} of the sweep ({' '.join(overrides)}): {refusal}") from None
        folder = Path(job.hydra.sweep.dir) / job.hydra.sweep.subdir
        refuse_used(folder)
        jobs.append(Job(overrides, job, folder))
    for folder, n in Counter(job.folder for job in jobs).items():
        if n > 1:
            raise Refused(f"{n} runs of the sweep would share the folder {folder}: they are the same run twice.")
    return jobs


def _child(context: HydraContext, config: DictConfig, task: TaskFunction, state: Any) -> None:
    from ganbench.config import register as register_config

    register_config()
    setup_globals()
    Singleton.set_state(state)
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


def _default_jobs(jobs: list[Job]) -> int:
    import torch

    if any(job.config.device.value != "cpu" for job in jobs) and torch.cuda.is_available():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(job.config.threads for job in jobs))


def _because(status: dict[str, Any]) -> str:
    reason, score = status.get("reason"), status.get("score")
    if reason:
        return f" ({reason})"
    return f" (score {score:.4g} in {status['t_train']:.0f} s)" if score is not None else ""


