"""Run each job of a sweep in a process of its own, forked from a server that has imported torch once."""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import traceback
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from hydra.core.utils import JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ganbench.config.compose import method_label, register
from ganbench.errors import Refused
from ganbench.files import is_out_of_space
from ganbench.runs.lock import RunLocked, raise_if_locked
from ganbench.runs.signals import blocked_signals, exit_on_signal
from ganbench.sweeps.jobs import Job, has_process_launcher
from ganbench.sweeps.outcomes import Status, record_end

if TYPE_CHECKING:  # not every system has the first
    from multiprocessing.context import ForkServerContext, SpawnContext

log = logging.getLogger("ganbench")

# In bytes. A socket's path may have 103, on macOS; multiprocessing's own part of it has 32.
LONGEST_SOCKET_FOLDER = 70
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")

LOCKED_EXIT_CODE = 75  # of a run's process that found another launcher's at work (EX_TEMPFAIL)


class PoolStopped(Exception):
    """The sweep was interrupted: no run may start any more."""


class Failure(NamedTuple):
    """Why a run failed, as its process sends it to the launcher."""

    refused: bool  # as what cannot be made, before it had begun
    message: str


class RunPool:
    """Runs jobs in processes. Its methods may be called from several threads."""

    def __init__(self, context: HydraContext, task: TaskFunction):
        self.context = context
        self.task = task
        self.stopped = False
        # Process.start() reaps finished children, as join() does; from two threads at once, one may get a wrong exit
        # code.
        self.process_lock = threading.Lock()

    def run_if_free(self, job: Job, gpu: str | None = None) -> Status:
        """Run a job unless it is complete, and return how it ended; `gpu` is the only one that its process sees.

        Raise RunLocked if another launcher is working on it, and PoolStopped once the pool is stopped.
        """
        if self.stopped:
            raise PoolStopped
        raise_if_locked(job.folder)
        return job.completed_status() or self._run_in_process(job, gpu)

    def stop(self) -> None:
        """Start no more runs, and have those under way save a checkpoint and exit."""
        with self.process_lock:
            self.stopped = True
            for process in multiprocessing.active_children():
                process.terminate()

    def _run_in_process(self, job: Job, gpu: str | None) -> Status:
        receiver, sender = Pipe(duplex=False)
        process = process_context().Process(
            target=_run_in_child,
            args=(self.context, self.task, job.config, sender, gpu),
            daemon=True,  # a launcher that exits takes its runs with it
        )
        self._start(process)
        sender.close()
        self._wait(process)
        if process.exitcode == LOCKED_EXIT_CODE:
            raise RunLocked(f"{job.folder} was locked by another launcher before our run began.")
        return record_failure(job, process.exitcode, _receive_failure(receiver))

    def _start(self, process: BaseProcess) -> None:
        with self.process_lock:
            if self.stopped:
                raise PoolStopped
            process.start()

    def _wait(self, process: BaseProcess) -> None:
        wait([process.sentinel])  # without the lock, which others need meanwhile
        with self.process_lock:
            process.join()


def _receive_failure(receiver: Connection) -> Failure | None:
    """Return what the run's process sent; None if it ended well, or was killed."""
    try:
        # Never wait: a process that the run has forked may hold the other end open for as long as it lives.
        return receiver.recv() if receiver.poll() else None
    except EOFError:
        return None


def record_failure(job: Job, exitcode: int | None, failure: Failure | None) -> Status:
    """Record and return how the run ended; one that was refused says so. Raise RunLocked as `record_end` does."""
    message = failure.message if failure else None
    status = record_end(job.folder, exitcode, message, method_label(job.shared), job.seed)
    if failure and failure.refused:
        return status | {"status": "refused", "reason": message}
    return status


def start_fork_server(config: DictConfig) -> None:
    """Start the fork server early, so that it imports torch while configurations are composed and checked."""
    if has_process_launcher(config) and process_context().get_start_method() == "forkserver":
        with blocked_signals():  # also in multiprocessing's own resource tracker, which heeds all but two of them
            forkserver.ensure_running()


def process_context() -> "ForkServerContext | SpawnContext":
    """Fork processes from a server that has imported what runs need, where the system can; else start them anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    _shorten_socket_paths()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ganbench.sweeps.forkserver"])
    return context


def _shorten_socket_paths() -> None:
    """Have multiprocessing keep its sockets in another folder than TMPDIR if that has too long a path for them.

    Raise Refused if there is no other.
    """
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= LONGEST_SOCKET_FOLDER:
        return
    short = next((folder for folder in SHORT_FOLDERS if os.access(folder, os.W_OK | os.X_OK)), None)
    if short is None:
        raise Refused(
            f"TMPDIR={usual} has more than the {LONGEST_SOCKET_FOLDER} bytes that a sweep's sockets allow, and none of "
            f"{', '.join(SHORT_FOLDERS)} can be written; set TMPDIR to a folder with a shorter path."
        )
    tempfile.tempdir = short
    util.get_temp_dir()  # multiprocessing makes it now, and keeps to it
    tempfile.tempdir = usual


def _run_in_child(
    context: HydraContext, task: TaskFunction, config: DictConfig, sender: Connection, gpu: str | None
) -> None:
    """Make one run, in a process of its own. Send why if it fails, and exit with a code that is not 0."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # which CUDA reads when torch first asks for a GPU
    exit_on_signal()
    # Ctrl-C in a terminal reaches every process there. The launcher passes it on, and a second one would mean: exit
    # at once, without saving.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _exit_with_parent()
    logging.raiseExceptions = False  # nobody may read the launcher's lines any more, and so these
    register()
    setup_globals()
    os.environ["OMP_NUM_THREADS"] = str(config.threads)
    try:
        result = run_job(
            hydra_context=context,
            config=config,
            task_function=task,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    except OSError as error:  # Hydra writes the settings, and the disk may be full
        _report_and_exit(error, sender)
    if result.status == JobStatus.FAILED:
        _report_and_exit(result._return_value, sender)  # `return_value` would raise it


def _report_and_exit(error: Exception, sender: Connection) -> NoReturn:
    if isinstance(error, RunLocked):
        sys.exit(LOCKED_EXIT_CODE)
    sender.send(log_failure(error))
    sys.exit(1)


def log_failure(error: Exception) -> Failure:
    """Return why a run failed. Log its traceback, unless it was refused or has no room: the launcher says why, once."""
    if isinstance(error, Refused):
        return Failure(refused=True, message=str(error))
    if not is_out_of_space(error):
        log.error("".join(traceback.format_exception(error)))
    return Failure(refused=False, message=f"{type(error).__name__}: {error}")


def _exit_with_parent() -> None:
    """End this process as soon as the launcher is gone, however it ended.

    A launcher that was killed cannot stop its runs; one that lived on would write where the same run, started again,
    writes.
    """
    threading.Thread(target=_wait_for_parent_and_exit, daemon=True).start()


def _wait_for_parent_and_exit() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def torch_finds_gpu() -> bool:
    """Return whether torch finds a GPU.

    A process of its own looks for it, forked from the server: importing torch here would take a second.
    """
    receiver, sender = Pipe(duplex=False)
    process = process_context().Process(target=_send_whether_gpu, args=(sender,), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"The process that looked for a GPU ended with code {process.exitcode}.") from None


def _send_whether_gpu(sender: Connection) -> None:
    _exit_with_parent()
    import torch

    sender.send(torch.cuda.is_available())
