"""One process per run."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from multiprocessing import forkserver
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.context import BaseContext
from typing import Any

from hydra.core.utils import JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ganbench.config.compose import method_label, register
from ganbench.errors import Refused
from ganbench.runs.lock import RunLocked, raise_if_locked, run_lock
from ganbench.runs.signals import exit_on_signal
from ganbench.runs.status import mark_dead_run
from ganbench.sweeps.jobs import Job

log = logging.getLogger("ganbench")

LOCKED_EXIT_CODE = 75  # how a run's process ends that found another at work in its folder (EX_TEMPFAIL)


class RunPool:
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
            raise_if_locked(job.folder)
        except RunLocked:
            return None
        return job.settled() or self._alone(job)

    def _alone(self, job: Job) -> dict[str, Any] | None:
        hears, says = Pipe(duplex=False)
        process = process_context().Process(
            target=_run_in_child,
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
        if process.exitcode == LOCKED_EXIT_CODE:
            return None
        refused, said = _last_word(hears)
        try:
            with run_lock(job.folder):
                known = {"label": method_label(job.config), "seed": job.config.seed}
                status = mark_dead_run(job.folder, process.exitcode, said, **known)
                return status | {"status": "refused", "reason": said} if refused else status
        except RunLocked:  # another launcher has gone on with what our process left
            return None


def _last_word(hears: Connection) -> tuple[bool, str | None]:
    """Whether a run was refused, and why it ended; of one that was killed, or is well, nothing."""
    try:
        return hears.recv() if hears.poll() else (False, None)
    except EOFError:
        return False, None


def start_fork_server(config: DictConfig) -> None:
    """Have the server of `_processes` import what runs need while they are being composed and checked."""
    if "n_jobs" in config.hydra.launcher and process_context().get_start_method() == "forkserver":
        forkserver.ensure_running()


def process_context() -> BaseContext:
    """Where runs come from: a server that has imported what they need, where the system has such."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["ganbench.sweeps.forkserver"])
    return found


def _run_in_child(context: HydraContext, task: TaskFunction, config: DictConfig, says: Connection) -> None:
    """What the run's process does; its last word, if it fails, is whether it was refused, and why it ended."""
    exit_on_signal()
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
        if isinstance(error, RunLocked):
            sys.exit(LOCKED_EXIT_CODE)
        refused = isinstance(error, Refused)
        says.send((refused, str(error) if refused else f"{type(error).__name__}: {error}"))
        log.error(error if refused else "".join(traceback.format_exception(error)))
        sys.exit(1)


def _end_with_parent() -> None:
    """A killed sweep cannot stop its runs; one that lived on would write where the same run, begun again, writes."""
    multiprocessing.parent_process().join()
    os._exit(1)


def gpu_memory() -> int:
    """In bytes; 0 without a GPU. Asked in a process of its own: torch would take this one a second to import."""
    hears, says = Pipe(duplex=False)
    process = process_context().Process(target=_send_gpu_memory, args=(says,), daemon=True)
    process.start()
    says.close()
    try:
        return hears.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process that looked for a GPU ended with code {process.exitcode}") from None


def _send_gpu_memory(says: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    says.send(torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0)
