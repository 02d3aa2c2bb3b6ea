"""Sweeps: everything is checked before anything is written, and each run has a process of its own."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection, Pipe, wait
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
from ganbench.check import check, explained, refuse_value
from ganbench.claim import Taken, claimed, refuse_taken
from ganbench.config import Refused, Track, label, register
from ganbench.stop import Interrupted, leave_at_once, raising

log = logging.getLogger("ganbench")

TAKEN = 75  # how a run's process ends that found another at work in its folder (EX_TEMPFAIL)


def task(cfg: DictConfig) -> float:
    """What Hydra calls for each run."""
    check(cfg)  # again, for launchers and sweepers that are not ours
    out = Path(HydraConfig.get().runtime.output_dir)
    done = outcome.settled(out, cfg)
    if done:
        outcome.endings.append(done["status"])
        return score(done)
    from ganbench import mirror

    # W&B has a process of its own, and to wait until it is up costs a fifth of a second. Meanwhile torch is imported.
    threading.Thread(target=mirror.foresee, args=[cfg.wandb.mode.value], daemon=True).start()
    from ganbench.train import train

    try:
        return train(cfg, out)
    except SystemExit as left:
        if isinstance(left, Interrupted):
            raise
        raise RuntimeError(f"the run's own code left with {left!r}") from left
    finally:
        outcome.endings.append(outcome.read_status(out)["status"])


class RefuseBadConfig(Callback):
    """Stops a single run before Hydra makes its folder, or writes into one whose run has ended."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            config.name = config.name  # `now` in it must not tick again
            cfg, folder = without_hydra(config), Path(config.hydra.run.dir)
            done = refuse(cfg, folder)
            refuse_taken(folder)
        except Exception as error:
            # Hydra turns ordinary errors of a callback into warnings; only an exit gets through.
            print(error, file=sys.stderr)
            raise SystemExit(2) from None
        if done:
            cure = _cure(done) or "; nothing is left to do"
            print(f"{folder}, from before: {_told(done)}{cure}.", file=sys.stderr)
            raise SystemExit(outcome.exit_code([done["status"]]))


def without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


def refuse(cfg: DictConfig, out: Path, look: bool = True) -> dict[str, Any] | None:
    """Raise Refused for a run that cannot be made, or (if to `look`) not there. Return the status of one that needs
    no more.
    """
    check(cfg)
    if cfg.protocol.track is Track.tuned and cfg.protocol.trial is None:
        raise Refused(
            f"protocol={cfg.protocol.name} searches before it compares, which takes -m and no other protocol: "
            f"python -m ganbench -m protocol={cfg.protocol.name} loss=gan,hinge seed=0,1,2 name=mine"
        )
    done = outcome.settled(out, cfg) if look else None
    if done:
        return done
    outcome.refuse_no_room(out)
    if cfg.device.value == "cuda" or cfg.speed.graphs:
        from ganbench.train import choose_device

        choose_device(cfg)
    return None


@dataclass
class Job:
    overrides: Sequence[str]
    config: DictConfig
    folder: Path
    done: dict[str, Any] | None  # the status that it had when it was composed, if nothing was left to do

    def settled(self) -> dict[str, Any] | None:
        return outcome.settled(self.folder, without_hydra(self.config))


def compose(
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int = 0,
    look: bool = True,
) -> list[Job]:
    """The configuration and folder of each run, all checked; raises before any of them has started.

    Unless to `look`, their folders may hold runs of other settings.
    """
    config.name = config.name  # `now` in it must not tick between runs
    jobs = []
    for index, overrides in enumerate(job_overrides, first):
        try:
            jobs.append(_compose_one(context, config, overrides, index, look))
            if len(jobs) == 1:  # not before one is known to be well: a refusal need not wait for it
                foresee(config)
        except (Refused, ConfigCompositionException, OmegaConfBaseException) as error:
            raise Refused(f"run {index + 1} of the sweep ({' '.join(overrides)}): {explained(error)}") from None
    for folder, n in Counter(job.folder for job in jobs).items():
        if n > 1:
            raise Refused(f"{n} runs of the sweep would share the folder {folder}: they are the same run twice.")
    refuse_value("hydra.launcher.n_jobs", "sweep.parallel", config.hydra.launcher.get("n_jobs", "auto"))
    if "n_jobs" not in config.hydra.launcher and config.sweep.parallel != "auto":
        raise Refused(f"sweep.parallel={config.sweep.parallel}: this hydra/launcher starts runs as it likes; use auto.")
    return jobs


def _compose_one(context: HydraContext, config: DictConfig, overrides: Sequence[str], index: int, look: bool) -> Job:
    job = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(job):
        job.name = config.name
        job.hydra.job.id, job.hydra.job.num = str(index), index
        job.hydra.sweep.dir = str(Path(job.hydra.sweep.dir).absolute())
        job.hydra.sweep.subdir = str(job.hydra.sweep.subdir)
    folder = Path(job.hydra.sweep.dir) / job.hydra.sweep.subdir
    return Job(overrides, job, folder, refuse(without_hydra(job), folder, look))


def run(
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
    jobs = compose(context, config, job_overrides, first)
    at_once = min(has_room(jobs) if n_jobs == "auto" else n_jobs, len(jobs))
    done = sum(job.done is not None for job in jobs)
    before = f", of which {done} are done already" if done else ""
    log.info(f"{len(jobs)} runs{before}, {at_once} at a time, in {jobs[0].folder.parent}")
    runs = Runs(context, task)

    def one(k: int, patient: bool) -> dict[str, Any] | None:
        """How run k ended; None, unless `patient`, if another launcher has it in hand."""
        known = jobs[k].settled()
        status = known or runs.unless_taken(jobs[k])
        while patient and status is None and not runs.leaving:
            time.sleep(0.5)
            status = runs.unless_taken(jobs[k])
        if status:
            log.info(f"run {k + 1}/{len(jobs)} {jobs[k].folder.name}: {_told(status)}{' (before)' if known else ''}")
        return status

    with raising(), ThreadPoolExecutor(at_once) as pool:
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


class Runs:
    """The processes of a sweep's runs."""

    def __init__(self, context: HydraContext, task: TaskFunction):
        self.context, self.task, self.leaving = context, task, False
        # Starting a process asks after all others, and of two threads that ask at once one hears nonsense.
        self.minding = threading.Lock()

    def leave(self) -> None:
        """Start nothing more, and have what runs save its state."""
        with self.minding:
            self.leaving = True
            for process in multiprocessing.active_children():
                process.terminate()

    def unless_taken(self, job: Job) -> dict[str, Any] | None:
        """How the run ended, before or now; None if another launcher has it in hand, or nothing is to start."""
        try:
            refuse_taken(job.folder)
        except Taken:
            return None
        return job.settled() or self._alone(job)

    def _alone(self, job: Job) -> dict[str, Any] | None:
        hears, says = Pipe(duplex=False)
        process = _processes().Process(
            target=_child,
            args=(self.context, self.task, job.config, says),
            daemon=True,  # an interrupted sweep takes its runs with it
        )
        with self.minding:
            if self.leaving:
                return None
            process.start()
        says.close()
        wait([process.sentinel])
        with self.minding:
            process.join()
        if process.exitcode == TAKEN:
            return None
        refused, said = _last_word(hears)
        try:
            with claimed(job.folder):
                known = {"label": label(job.config), "seed": job.config.seed}
                status = outcome.bury(job.folder, process.exitcode, said, **known)
                return status | {"status": "refused", "reason": said} if refused else status
        except Taken:  # another launcher has gone on with what our process left
            return None


def _last_word(hears: Connection) -> tuple[bool, str | None]:
    """Whether a run was refused, and why it ended; of one that was killed, or is well, nothing."""
    try:
        return hears.recv() if hears.poll() else (False, None)
    except EOFError:
        return False, None


def foresee(config: DictConfig) -> None:
    """Have the server of `_processes` import what runs need while they are being composed and checked."""
    if "n_jobs" in config.hydra.launcher and _processes().get_start_method() == "forkserver":
        forkserver.ensure_running()


def _processes() -> BaseContext:
    """Where runs come from: a server that has imported what they need, where the system has such."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["ganbench.apart"])
    return found


def _child(context: HydraContext, task: TaskFunction, config: DictConfig, says: Connection) -> None:
    """What the run's process does; its last word, if it fails, is whether it was refused, and why it ended."""
    leave_at_once()
    # Ctrl-C on a terminal reaches every process there; the sweep passes it on, and twice would mean at once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
        if isinstance(error, Taken):
            sys.exit(TAKEN)
        refused = isinstance(error, Refused)
        says.send((refused, str(error) if refused else f"{type(error).__name__}: {error}"))
        log.error(error if refused else "".join(traceback.format_exception(error)))
        sys.exit(1)


def _end_with_parent() -> None:
    """A killed sweep cannot stop its runs; one that lived on would write where the same run, begun again, writes."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _returned(job: Job, status: dict[str, Any]) -> JobReturn:
    return JobReturn(
        overrides=list(job.overrides),
        cfg=without_hydra(job.config),
        hydra_cfg=OmegaConf.masked_copy(job.config, ["hydra"]),
        working_dir=str(job.folder),
        task_name=job.config.hydra.job.name,
        status=JobStatus.COMPLETED,
        _return_value=score(status),
    )


def score(status: dict[str, Any]) -> float:
    """What a run is ranked by; infinite for one that did not get there with a number."""
    found = status.get("score") if status["status"] == "finished" else None
    return float("inf") if found is None else found


def _summarise(jobs: list[Job], statuses: list[dict[str, Any]]) -> None:
    ended = [status["status"] for status in statuses]
    outcome.endings.extend(ended)
    log.info(", ".join(f"{n} {status}" for status, n in Counter(ended).items()))
    for job, status in zip(jobs, statuses, strict=True):
        if status["status"] != "finished":
            log.warning(f"{job.folder.name}: {_told(status)}{_cure(status)}")


def _cure(status: dict[str, Any]) -> str:
    cures = {
        "failed": "; the same command with retry=true tries it again, from its last checkpoint",
        "interrupted": "; the same command goes on with it",
    }
    return cures.get(status["status"], "")


def has_room(jobs: list[Job]) -> int:
    """How many of such runs go side by side: one for each core that their threads leave, and on a GPU, which small
    runs keep waiting, one for each 8 GB of its memory.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    room = max(1, cores // max(job.config.threads for job in jobs))
    if room == 1 or all(job.config.device.value == "cpu" for job in jobs):
        return room
    memory = gpu_memory()
    return max(1, min(room, memory // int(8e9))) if memory else room


def gpu_memory() -> int:
    """In bytes; 0 without a GPU. Asked in a process of its own: torch would take this one a second to import."""
    hears, says = Pipe(duplex=False)
    process = _processes().Process(target=_tell_gpu_memory, args=(says,), daemon=True)
    process.start()
    says.close()
    try:
        return hears.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process that looked for a GPU ended with code {process.exitcode}") from None


def _tell_gpu_memory(says: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    says.send(torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0)


def _told(status: dict[str, Any]) -> str:
    if status.get("reason"):
        return f"{status['status']} ({status['reason']})"
    score = status.get("score")
    return f"{status['status']}, score {'none' if score is None else f'{score:.4g}'}"
