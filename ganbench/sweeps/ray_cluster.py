"""Make the runs of a sweep on a Ray cluster: each a Ray task that starts the ordinary command of a run.

Ray starts the tasks of a node that is lost again elsewhere, and a run goes on from its last checkpoint. The tasks end
with this launcher, as our own processes do: their runs save, and the same command goes on.
"""

import logging
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, configure_log, setup_globals
from omegaconf import DictConfig

from ganbench.errors import Refused, plural
from ganbench.sweeps.cluster import Fate, follow_runs, sweep_folder
from ganbench.sweeps.jobs import Job
from ganbench.sweeps.launcher import log_begin
from ganbench.sweeps.outcomes import from_here
from ganbench.sweeps.remote import Order, Task, write_orders
from ganbench.sweeps.shared_folder import check_shared_folder, held_probe

log = logging.getLogger("ganbench")

RECORDS = ".ray"  # in the sweep's folder: a folder for each launcher
CONNECT_SECONDS = 10.0
SMALLEST_SHARE = 1e-4  # of a core or a GPU: Ray counts no finer
LOST_NODES = 20  # that may cost one run its task, before it counts as interrupted
SENT_VARIABLES = ("GANBENCH_", "OMP_NUM_THREADS", "PYTHONPATH", "WANDB_")
INSTALL = 'pip install "ray>=2.40"'


@dataclass
class Settings:
    """The settings of hydra/launcher=ray."""

    address: str
    num_cpus: float | None
    num_gpus: float | None
    accelerator_type: str | None
    n_jobs: int | str


def check(settings: Settings, batches: Sequence[Sequence[Job]]) -> None:
    """Raise Refused for what the cluster cannot run, before anything is written. Connects to it."""
    jobs = [job for batch in batches for job in batch]
    ray = _connected(settings)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    _check_sizes(settings, jobs, nodes)
    folder = sweep_folder(jobs)
    check_shared_folder(folder, one_machine={node["NodeManagerHostname"] for node in nodes} == {os.uname().nodename})
    with held_probe(folder) as probe:
        for node in nodes:
            _check_node(ray, node, probe)


def _connected(settings: Settings) -> Any:
    """Return Ray, connected to the cluster."""
    try:
        import ray
        from ray import is_initialized  # which a folder of the name ray, in the current one, does not have
    except ImportError:
        raise Refused(f"hydra/launcher=ray needs Ray, which is not installed; {INSTALL}") from None
    if not is_initialized():
        try:
            _reach(settings.address)
            ray.init(address=settings.address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray has no class of its own for most of these
            raise Refused(
                f"hydra.launcher.address={settings.address}: there is no Ray cluster to connect to "
                f"({_first_line(error)}); start one with ray start --head, or pass the address of one."
            ) from None
    return ray


def _reach(address: str) -> None:
    """Raise OSError if nothing listens at `host:port`; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _check_sizes(settings: Settings, jobs: Sequence[Job], nodes: Sequence[dict[str, Any]]) -> None:
    resources = [node["Resources"] for node in nodes]
    asked = {"num_cpus": ("CPU", _cpus(settings, jobs)), "num_gpus": ("GPU", _gpus(settings, jobs, nodes))}
    for key, (kind, value) in asked.items():
        most = max(each.get(kind, 0) for each in resources)
        if not (value == 0 or value >= SMALLEST_SHARE):
            raise Refused(f"hydra.launcher.{key}={value:g} must be 0, or a number >= {SMALLEST_SHARE:g}.")
        if value > most:
            raise Refused(f"hydra.launcher.{key}={value:g} is more than a node of the Ray cluster has: {most:g}.")
        if kind == "GPU" and value > 1 and value % 1:
            raise Refused(f"hydra.launcher.{key}={value:g} must be a whole number: only one GPU can be had in part.")
    if asked["num_gpus"][1] == 0 and any(job.shared.device.startswith("cuda") for job in jobs):
        raise Refused("device=cuda needs a GPU, and the Ray cluster has none or hydra.launcher.num_gpus=0.")
    kinds = sorted({key.partition(":")[2] for each in resources for key in each if key.startswith("accelerator_type:")})
    if settings.accelerator_type and settings.accelerator_type not in kinds:
        has = ", ".join(kinds) or "none"
        raise Refused(f"hydra.launcher.accelerator_type={settings.accelerator_type}: the cluster has {has}.")
    if not any(_has(node, settings, dict(asked.values())) for node in resources):
        sizes = " and ".join(f"hydra.launcher.{key}={value:g}" for key, (_, value) in asked.items())
        of_type = f" of type {settings.accelerator_type}" if settings.accelerator_type else ""
        raise Refused(f"no single node of the Ray cluster has room for a run: {sizes}{of_type}; ask for less of one.")


def _has(resources: dict[str, float], settings: Settings, asked: dict[str, float]) -> bool:
    """Tell whether a node has all that a run asks for, once no other runs there."""
    has_type = settings.accelerator_type is None or f"accelerator_type:{settings.accelerator_type}" in resources
    return has_type and all(resources.get(kind, 0) >= value for kind, value in asked.items())


def _check_node(ray: Any, node: dict[str, Any], probe: Path) -> None:
    """Have a node look at the file that this process has locked."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    only_there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    command = ("ganbench.sweeps.shared_folder", str(probe))
    exitcode, error = ray.get(_remote_command(ray, num_cpus=0, scheduling_strategy=only_there).remote(*_there(command)))
    if exitcode != 0:
        raise Refused(
            f"no run can be made on {node['NodeManagerHostname']}, a node of the cluster: {_last_line(error)}"
        )


def _remote_command(ray: Any, **options: Any) -> Any:
    """Return a Ray function that runs a module of Python. Ray sends it whole, because it is local to this one."""

    def run_module(arguments: Sequence[str], cwd: str, variables: dict[str, str]) -> tuple[int, str]:
        command = [sys.executable, "-m", *arguments]
        env = os.environ | variables
        try:
            # In a session of its own, since Ray kills its worker's process group, and a run is to save first.
            done = subprocess.run(
                command, cwd=cwd, env=env, start_new_session=True, stderr=subprocess.PIPE, text=True, check=False
            )
        except OSError as error:
            return 1, str(error)
        return done.returncode, done.stderr

    return ray.remote(**options)(run_module)


def _there(arguments: Sequence[str]) -> tuple[Sequence[str], str, dict[str, str]]:
    """Return what runs a module on another machine as it would run here."""
    return arguments, os.getcwd(), {key: value for key, value in os.environ.items() if key.startswith(SENT_VARIABLES)}


def _cpus(settings: Settings, jobs: Sequence[Job]) -> float:
    return max(job.shared.threads for job in jobs) if settings.num_cpus is None else settings.num_cpus


def _gpus(settings: Settings, jobs: Sequence[Job], nodes: Sequence[dict[str, Any]]) -> float:
    """Return the GPUs of a run: unless set, one where there are any and a run would use it."""
    if settings.num_gpus is not None:
        return settings.num_gpus
    return float(
        any(node["Resources"].get("GPU") for node in nodes) and any(job.shared.device != "cpu" for job in jobs)
    )


class RayRuns:
    """The runs of a sweep that Ray makes: an engine, as in cluster.py."""

    poll_seconds = 1.0
    after_signal = "runs are saving; send it again to leave at once"

    def __init__(self, ray: Any, function: Any, tasks: dict[Path, Task], at_once: int):
        self.ray = ray
        self.function = function
        self.tasks = tasks  # by the run's folder
        self.at_once = at_once
        self.queued = list(tasks)
        self.under_way: dict[Any, Path] = {}  # by Ray's reference
        self.errors: dict[Path, str] = {}

    def places(self) -> dict[Path, str]:
        """Return the folders of runs that are queued or running; start as many as may run at once."""
        ended, _ = (
            self.ray.wait(list(self.under_way), num_returns=len(self.under_way), timeout=0)
            if self.under_way
            else ([], [])
        )
        for reference in ended:
            self._end(reference)
        while self.queued and len(self.under_way) < self.at_once:
            folder = self.queued.pop(0)
            task = self.tasks[folder]
            command = ("ganbench.sweeps.remote", str(task.record), str(task.number))
            self.under_way[self.function.remote(*_there(command))] = folder
        running = {folder: self._place(folder) for folder in self.under_way.values()}
        return running | dict.fromkeys(self.queued, "sweep.parallel")

    def _end(self, reference: Any) -> None:
        folder = self.under_way.pop(reference)
        try:
            exitcode, error = self.ray.get(reference)
            if exitcode != 0:
                self.errors[folder] = _last_line(error)
        except self.ray.exceptions.RayError as error:
            self.errors[folder] = _first_line(error)

    def _place(self, folder: Path) -> str:
        return "running" if self.tasks[folder].log.exists() else "Ray has no room yet"

    def task(self, job: Job) -> Task | None:
        """Return the task that makes the run."""
        return self.tasks.get(job.folder)

    def fate(self, task: Task) -> Fate:
        """Say why Ray has given the task up."""
        return Fate(True, f"its Ray task ended: {self.errors.get(Path(task.order().folder), 'without a word')}")


def launch(settings: Settings, sweep: DictConfig, jobs: list[Job]) -> list[JobReturn]:
    """Hand the runs that are not complete to Ray, and follow all to their end."""
    setup_globals()
    configure_log(sweep.hydra.hydra_logging, sweep.hydra.verbose)
    ray = _connected(settings)
    log_begin(jobs)
    new = [job for job in jobs if job.completed_status() is None]
    record = sweep_folder(jobs).absolute() / RECORDS / secrets.token_hex(4)
    tasks = write_orders(record, [Order.of(job, sweep) for job in new]) if new else []
    nodes = [node for node in ray.nodes() if node["Alive"]]
    function = _remote_command(
        ray,
        num_cpus=_cpus(settings, jobs),
        num_gpus=_gpus(settings, jobs, nodes),
        accelerator_type=settings.accelerator_type,
        max_retries=LOST_NODES,
    )
    if new:
        log.info(
            f"Ray: {plural(len(nodes), 'node')}; CPUs {_cpus(settings, jobs):g} and GPUs "
            f"{_gpus(settings, jobs, nodes):g} for each run; logs: {from_here(record)}"
        )
    at_once = len(jobs) if settings.n_jobs == "auto" else int(settings.n_jobs)
    folders = [job.folder for job in new]
    return follow_runs(RayRuns(ray, function, dict(zip(folders, tasks, strict=True)), at_once), jobs)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it gave no reason"
