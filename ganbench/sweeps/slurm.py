"""Make the runs of a sweep on a cluster: one array of Slurm jobs, whose tasks run the ordinary command of a run.

A plain script for sbatch, rather than submitit: nothing is pickled, a task that is queued again needs no memory of what
it was, its state is known without Slurm's accounting, and nothing has to be installed.
"""

import logging
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.utils import JobReturn, configure_log, setup_globals
from omegaconf import DictConfig

from ganbench.config.messages import setting
from ganbench.errors import Refused, did_you_mean, plural
from ganbench.runs.lock import run_lock
from ganbench.runs.signals import Interrupted
from ganbench.sweeps.cluster import Fate, follow_runs, sweep_folder
from ganbench.sweeps.jobs import Job
from ganbench.sweeps.launcher import log_begin
from ganbench.sweeps.outcomes import from_here
from ganbench.sweeps.remote import Order, Task, write_orders
from ganbench.sweeps.shared_folder import check_shared_folder
from ganbench.sweeps.slurm_task import job_state

log = logging.getLogger("ganbench")

COMMANDS = ("sbatch", "squeue", "sinfo", "scontrol")
RECORDS = ".slurm"  # in the sweep's folder: a folder for each array
# How a job ends that the same command can make go on; after any other end the run has failed.
INTERRUPTIONS = ("BOOT_FAIL", "CANCELLED", "DEADLINE", "NODE_FAIL", "PREEMPTED", "REVOKED", "TIMEOUT")
# Options of sbatch by which the launcher starts, names and finds its tasks again, and has them save.
OWN_OPTIONS = (
    "array",
    "chdir",
    "job-name",
    "open-mode",
    "output",
    "parsable",
    "requeue",
    "signal",
    "test-only",
    "wrap",
)
SECONDS = (1, 60, 3600)
SIGNAL_EARLY_SECONDS = 60  # by which Slurm, as its manual says, may send the signal before the limit too early


@dataclass
class Settings:
    """What a run asks Slurm for: the settings of hydra/launcher=slurm, named as in Hydra's submitit launcher."""

    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    gpus_per_node: Any
    cpus_per_task: int | None
    mem_gb: float
    timeout_min: int
    signal_delay_s: int
    n_jobs: int | str
    setup: Sequence[str]
    additional_parameters: dict[str, Any]


@dataclass(frozen=True)
class ArrayTask(Task):
    """A task of an array."""

    job_id: str

    @property
    def name(self) -> str:
        return f"{self.job_id}_{self.number}"


class NodeKind(NamedTuple):
    """What `sinfo` says of nodes that are alike."""

    partition: str
    is_default: bool
    minutes: float
    cpus: int
    megabytes: int
    gpus: dict[str, int]  # by type; "" for one without
    hosts: str


# ---- before the first run


def check(settings: Settings, batches: Sequence[Sequence[Job]]) -> None:
    """Raise Refused for what the cluster cannot run, before anything is written. Each batch becomes an array."""
    jobs = [job for batch in batches for job in batch]
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if missing:
        raise Refused(
            f"hydra/launcher=slurm needs Slurm's {missing[0]}, which is not on the PATH; start the sweep on a login "
            "node of the cluster (Debian: apt install slurm-client)."
        )
    _check_additional(settings)
    nodes = _nodes_of_partition(settings)
    _check_sizes(settings, jobs, nodes)
    _check_number(batches)
    check_shared_folder(sweep_folder(jobs), one_machine=_is_this_machine(nodes))
    tested = _slurm(*_sbatch(settings, jobs, nodes), "--test-only", "--wrap=true")
    if tested.returncode != 0:
        raise Refused(f"Slurm does not take these runs: {_first_error(tested.stderr)}; change hydra.launcher.*")


def _check_additional(settings: Settings) -> None:
    """Raise Refused for options of sbatch that this launcher sets itself."""
    for key in settings.additional_parameters:
        if str(key).replace("_", "-") in OWN_OPTIONS:
            raise Refused(
                f"hydra.launcher.additional_parameters.{key}: the launcher itself has a use for sbatch's option "
                f"{key}; leave it out."
            )


def _nodes_of_partition(settings: Settings) -> list[NodeKind]:
    asked = _slurm("sinfo", "--noheader", "--exact", "--format=%P|%l|%c|%m|%G|%n")
    if asked.returncode != 0:
        raise Refused(f"Slurm does not answer: {_first_error(asked.stderr)}; is slurmctld running?")
    nodes = [_node_kind(line) for line in asked.stdout.splitlines()]
    if not nodes:
        raise Refused("Slurm answers, but shows no nodes: no partition here is one that you may use; see sinfo --all.")
    name = settings.partition
    partitions = sorted({node.partition for node in nodes})
    if name is None:
        return [node for node in nodes if node.is_default] or nodes
    if not set(str(name).split(",")) <= set(partitions):
        hint = did_you_mean(str(name), partitions)
        raise Refused(
            f"hydra.launcher.partition={name} is not a partition here; {hint}the cluster has: {', '.join(partitions)}."
        )
    return [node for node in nodes if node.partition in str(name).split(",")]


def _node_kind(line: str) -> NodeKind:
    partition, minutes, cpus, megabytes, gres, hosts = line.split("|")
    gpus = re.findall(r"gpu:(?:([^:,()]+):)?(\d+)", gres)
    return NodeKind(
        partition.rstrip("*"),
        partition.endswith("*"),
        _minutes(minutes),
        int(cpus.rstrip("+")),
        int(megabytes.rstrip("+")),
        {kind: int(count) for kind, count in gpus},
        hosts,
    )


def _minutes(text: str) -> float:
    """Read Slurm's `2-00:00:00`, `10:00` and `infinite`."""
    if not text[0].isdigit():
        return float("inf")
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in reversed(clock.split(":"))]
    seconds = sum(part * unit for part, unit in zip(parts, SECONDS, strict=False))
    return int(days or 0) * 24 * 60 + seconds / 60


def _check_sizes(settings: Settings, jobs: Sequence[Job], nodes: list[NodeKind]) -> None:
    where = f"partition {', '.join(sorted({node.partition for node in nodes}))}"
    most = {
        "cpus_per_task": (_cpus(settings, jobs), max(node.cpus for node in nodes), "cores on a node"),
        "mem_gb": (settings.mem_gb, max(node.megabytes for node in nodes) / 1024, "GB on a node"),
        "timeout_min": (settings.timeout_min, max(node.minutes for node in nodes), "minutes for a job"),
        "signal_delay_s": (settings.signal_delay_s, float("inf"), "seconds"),
    }
    for key, (value, limit, unit) in most.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise Refused(f"{setting(f'hydra.launcher.{key}', value)} must be a number > 0.")
        if value > limit:
            raise Refused(f"hydra.launcher.{key}={value} is more than {where} has: {limit:g} {unit}.")
    if settings.timeout_min * 60 <= settings.signal_delay_s + SIGNAL_EARLY_SECONDS:
        raise Refused(
            f"hydra.launcher.timeout_min={settings.timeout_min} may leave a run no time, since it is asked to save "
            f"{settings.signal_delay_s} seconds before, and Slurm may do that a minute earlier; raise it, or lower "
            "hydra.launcher.signal_delay_s."
        )
    _check_gpus(settings, jobs, nodes, where)


def _check_gpus(settings: Settings, jobs: Sequence[Job], nodes: list[NodeKind], where: str) -> None:
    gpus = str(_gpus(settings, jobs, nodes))
    match = re.fullmatch(r"(?:([^:]+):)?(\d+)", gpus)
    if match is None:
        raise Refused(f"hydra.launcher.gpus_per_node={gpus} must be a number, or a type and a number, such as a100:1.")
    kind, count = match[1], int(match[2])
    kinds = sorted({name for node in nodes for name in node.gpus if name})
    if kind and kind not in kinds:
        has = f"it has: {', '.join(kinds)}" if kinds else "it has none with a type"
        raise Refused(f"hydra.launcher.gpus_per_node={gpus}: {where} has no GPU of type {kind}; {has}.")
    most = max(node.gpus.get(kind, 0) if kind else sum(node.gpus.values()) for node in nodes)
    if count > most:
        raise Refused(f"hydra.launcher.gpus_per_node={gpus} is more than {where} has: {most} on a node.")
    if count == 0 and any(job.shared.device.startswith("cuda") for job in jobs):
        raise Refused(
            f"device=cuda needs a GPU, and {where} has none or hydra.launcher.gpus_per_node=0; name a partition that "
            "has, with hydra.launcher.partition=..."
        )


def _check_number(batches: Sequence[Sequence[Job]]) -> None:
    """Raise Refused for a batch with more runs to make than an array may have."""
    largest = max(sum(job.completed is None for job in batch) for batch in batches)
    shown = _slurm("scontrol", "show", "config").stdout
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", shown)
    most = int(match[1]) - 1 if match else 1000
    if largest > most:
        raise Refused(
            f"{largest:,} runs are more than an array of this cluster may have; send them {most:,} at a time, with "
            f"hydra.sweeper.max_batch_size={most}."
        )


def _is_this_machine(nodes: list[NodeKind]) -> bool:
    """Tell whether the only machine of the partition is this one."""
    hosts = {host for node in nodes for host in node.hosts.split(",")}
    return hosts == {os.uname().nodename.partition(".")[0]}


# ---- the array


def _gpus(settings: Settings, jobs: Sequence[Job], nodes: list[NodeKind]) -> Any:
    """Return the GPUs of a run: unless set, one if it needs one, or would use it and every node has any."""
    if settings.gpus_per_node is not None:
        return settings.gpus_per_node
    if any(job.shared.device.startswith("cuda") for job in jobs):
        return int(any(node.gpus for node in nodes))
    return int(any(job.shared.device != "cpu" for job in jobs) and all(node.gpus for node in nodes))


def _cpus(settings: Settings, jobs: Sequence[Job]) -> Any:
    return max(job.shared.threads for job in jobs) if settings.cpus_per_task is None else settings.cpus_per_task


def _sbatch(settings: Settings, jobs: Sequence[Job], nodes: list[NodeKind]) -> list[str]:
    """Return sbatch with what a run asks for."""
    options = {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": _cpus(settings, jobs),
        "mem": f"{round(settings.mem_gb * 1024)}M",
        "time": settings.timeout_min,
        "signal": f"B:USR1@{settings.signal_delay_s}",
    }
    gpus = str(_gpus(settings, jobs, nodes))
    if gpus != "0":
        options["gres"] = f"gpu:{gpus}"
    options |= {str(key).replace("_", "-"): value for key, value in settings.additional_parameters.items()}
    return ["sbatch", *(f"--{key}={value}" for key, value in options.items() if value is not None)]


class SlurmRuns:
    """The runs of a sweep that Slurm makes: an engine, as in cluster.py."""

    poll_seconds = 5.0
    after_signal = "the runs go on; the same command shows them again"

    def __init__(self, sweep: Path):
        self.records = sweep.absolute() / RECORDS
        self.tasks: dict[Path, ArrayTask] = {}  # by the run's folder
        self.was_silent = False

    def places(self) -> dict[Path, str] | None:
        """Return the folders of runs that are queued or running. Of arrays that other launchers submitted, too."""
        asked = _slurm("squeue", "--me", "--noheader", "--array", "--format=%F|%K|%T|%r|%j")
        if asked.returncode != 0:
            if not self.was_silent:
                log.warning(f"Slurm does not answer, asking again: {_first_error(asked.stderr)}")
            self.was_silent = True
            return None
        self.was_silent = False
        places = {}
        for line in asked.stdout.splitlines():
            job_id, index, state, reason, name = line.split("|", 4)
            record = self.records / name
            if "/" not in name and index.isdigit() and record.is_dir():
                task = ArrayTask(record, int(index), job_id)
                folder = _run_folder(record, task.number)
                self.tasks[folder] = task
                places[folder] = "running" if state in ("RUNNING", "COMPLETING") else reason.replace("None", "queued")
        return places

    def submit(self, command: list[str], setup: Sequence[str], orders: Sequence[Order], at_once: int | str) -> str:
        """Submit an array of runs. Return its number."""
        name = f"ganbench-{self.records.parent.name}-{secrets.token_hex(4)}"
        record = self.records / name
        tasks = write_orders(record, orders)
        script = record / "task.sh"
        program = shlex.join([sys.executable, "-m", "ganbench.sweeps.slurm_task", str(record)])
        script.write_text("\n".join(["#!/bin/bash", *setup, f'exec {program} "$SLURM_ARRAY_TASK_ID"', ""]))
        limit = "" if at_once == "auto" else f"%{at_once}"
        submitted = _slurm(
            *command,
            "--parsable",
            "--requeue",
            "--open-mode=append",
            f"--array=0-{len(orders) - 1}{limit}",
            f"--job-name={name}",
            f"--chdir={os.getcwd()}",
            f"--output={str(record).replace('%', '%%')}/%a.log",
            str(script),
        )
        if submitted.returncode != 0:
            shutil.rmtree(record)
            raise Refused(f"Slurm did not take the runs: {_first_error(submitted.stderr)}.")
        job_id = submitted.stdout.strip().partition(";")[0]
        for task, order in zip(tasks, orders, strict=True):
            self.tasks[Path(order.folder)] = ArrayTask(record, task.number, job_id)
        return job_id

    def task(self, job: Job) -> ArrayTask | None:
        """Return the task that makes the run."""
        return self.tasks.get(job.folder)

    def fate(self, task: Task) -> Fate:
        """Ask Slurm's controller, which forgets after minutes, and its accounting, which not every cluster has."""
        assert isinstance(task, ArrayTask)
        state = job_state(task.name) or _accounted_state(task.name)
        end = f"its Slurm task {task.name} {f'ended as {state}' if state else 'is gone'}"
        if not task.log.exists():
            end += f", and has written nothing into {from_here(task.record)}: do its nodes see that folder?"
        return Fate(state is None or state in INTERRUPTIONS, end)


@cache
def _run_folder(record: Path, number: int) -> Path:
    """Read in which folder the run of a task is; once, since a thousand files are slow on a network."""
    return Path(Task(record, number).order().folder)


def _accounted_state(task: str) -> str | None:
    if shutil.which("sacct") is None:
        return None
    said = _slurm("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={task}", "--format=State").stdout
    return said.split()[0] if said.strip() else None


def launch(settings: Settings, sweep: DictConfig, jobs: list[Job]) -> list[JobReturn]:
    """Submit the runs that are neither complete nor under way, and follow all to their end."""
    setup_globals()
    configure_log(sweep.hydra.hydra_logging, sweep.hydra.verbose)
    runs = SlurmRuns(sweep_folder(jobs))
    log_begin(jobs)
    runs.records.mkdir(parents=True, exist_ok=True)
    with run_lock(runs.records):  # the same command twice at once submits one array
        _submit(runs, settings, sweep, jobs)
    try:
        return follow_runs(runs, jobs)
    except Interrupted:
        numbers = sorted({task.job_id for task in runs.tasks.values()})
        log.warning(f"The runs go on in Slurm; to end them, so that they save: scancel {' '.join(numbers)}")
        raise


def _submit(runs: SlurmRuns, settings: Settings, sweep: DictConfig, jobs: list[Job]) -> None:
    places = runs.places()
    if places is None:
        raise Refused("Slurm does not answer, and without it nobody knows which runs are under way; try again.")
    there = [job for job in jobs if job.folder in places]
    if there:
        numbers = sorted({runs.tasks[job.folder].job_id for job in there})
        log.info(f"{len(there)} under way already, in Slurm job {', '.join(numbers)}")
    new = [job for job in jobs if job.folder not in places and job.completed_status() is None]
    if not new:
        return
    nodes = _nodes_of_partition(settings)
    orders = [Order.of(job, sweep) for job in new]
    job_id = runs.submit(_sbatch(settings, new, nodes), settings.setup, orders, settings.n_jobs)
    partition = f" in partition {settings.partition}" if settings.partition else ""
    log.info(
        f"Slurm job {job_id}{partition}: {plural(len(new), 'run')}; cores {_cpus(settings, new)}, GPUs "
        f"{_gpus(settings, new, nodes)}, memory {settings.mem_gb:g} GB, and {settings.timeout_min} minutes each, "
        f"after which it is queued again; logs: {from_here(runs.records)}"
    )


def _slurm(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _first_error(output: str) -> str:
    """Return what Slurm's command complains about, in a line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line] or lines or ["it gave no reason"]
    return errors[0].removeprefix("sbatch: error: ").rstrip(".")
