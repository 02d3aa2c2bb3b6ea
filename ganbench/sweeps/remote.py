"""Make a run by its ordinary command, on whichever machine an engine has chosen, and record how it ended."""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from ganbench.config.compose import method_label
from ganbench.config.messages import quoted
from ganbench.errors import Refused
from ganbench.files import write_atomically
from ganbench.runs.lock import RunLocked, raise_if_locked
from ganbench.runs.signals import handled_signals
from ganbench.runs.status import read_status
from ganbench.sweeps.jobs import Job
from ganbench.sweeps.outcomes import Status, record_end
from ganbench.sweeps.shared_folder import check_shared_folder

LOCK_POLL_SECONDS = 2.0
PARENT_POLL_SECONDS = 1.0
PR_SET_PDEATHSIG = 1  # of Linux
# What concerns the sweep, not one of its runs, and what a run is given anew.
SWEEP_KEYS = (
    *("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep", "hydra.run", "hydra.mode"),
    *("hydra.job.config.override_dirname", "name"),
)


class Order(NamedTuple):
    """A run to make, as it is written down for another machine."""

    folder: str
    arguments: list[str]  # of python -m ganbench
    label: str
    seed: int

    @classmethod
    def of(cls, job: Job, sweep: DictConfig) -> "Order":
        """Write down a run of a sweep, whose own configuration is `sweep`."""
        return cls(str(job.folder), _arguments(job, sweep), method_label(job.shared), job.seed)

    def record_end(self, exitcode: int | None, message: str | None) -> Status:
        """Record and return how the run ended. Raise RunLocked if another process works on it by now."""
        return record_end(Path(self.folder), exitcode, message, self.label, self.seed)


@dataclass(frozen=True)
class Task:
    """A run's place among those that were given to an engine together; in a folder that all machines share."""

    record: Path
    number: int

    @property
    def log(self) -> Path:
        """Return the file with all that the run prints."""
        return self.record / f"{self.number}.log"

    @property
    def end_file(self) -> Path:
        return self.record / f"{self.number}.end.json"

    def order(self) -> Order:
        """Read which run it is."""
        return Order(**json.loads((self.record / f"{self.number}.json").read_text(encoding="utf-8")))

    def end(self) -> Status | None:
        """Read how the run has ended; None before that."""
        return json.loads(self.end_file.read_text(encoding="utf-8")) if self.end_file.exists() else None

    def write_end(self, status: Status) -> None:
        """Write down how the run has ended."""
        write_atomically(self.end_file, json.dumps(status).encode())


def write_orders(record: Path, orders: Sequence[Order]) -> list[Task]:
    """Write runs down for other machines, in a new folder."""
    record.mkdir(parents=True)
    for number, order in enumerate(orders):
        (record / f"{number}.json").write_text(json.dumps(order._asdict(), indent=1), encoding="utf-8")
    return [Task(record, number) for number in range(len(orders))]


def make_run(task: Task) -> Status:
    """Make the run of a task on this machine, and return how it ended."""
    task.end_file.unlink(missing_ok=True)
    process = RunProcess(task)
    try:
        check_shared_folder(process.folder.parent, one_machine=True)
    except Refused as refused:
        return {"status": "refused", "reason": str(refused)}
    return process.run()


class RunProcess:
    """The process of a run. Signals that come to this one are passed on to it, and it is stopped if our parent ends."""

    def __init__(self, task: Task):
        self.order = task.order()
        self.folder = Path(self.order.folder)
        self.log = task.log
        self.parent = os.getppid()
        self.process: subprocess.Popen[bytes] | None = None
        self.signaled = False
        for number in handled_signals():
            signal.signal(number, self._pass_on)

    def run(self) -> Status:
        """Make the run and return how it ended. Whoever else works on it is waited for first.

        After a node was lost, that may be its file server, which holds the run's lock a while longer.
        """
        while not self.signaled:
            try:
                raise_if_locked(self.folder)
                return self._run_once()
            except RunLocked:
                time.sleep(LOCK_POLL_SECONDS)
        return {"status": "interrupted", "reason": "a signal came while another process was working on the run"}

    def _run_once(self) -> Status:
        with self.log.open("ab") as output:
            begin = output.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ganbench", *self.order.arguments],
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},  # so that an error is the last line
                preexec_fn=_stop_with_parent,
            )
            exitcode = self._wait(self.process)
        message = _last_line(self.log, begin)
        if exitcode == 2:
            raise_if_locked(self.folder)
            return {"status": "refused", "reason": message}
        return self.order.record_end(exitcode, message if exitcode == 1 else None)

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        """Return the exit code of the run's process. An engine that is gone has no more say: stop the run then."""
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(PARENT_POLL_SECONDS)
            if os.getppid() != self.parent and not self.signaled:
                self._pass_on(signal.SIGTERM, None)

    def _pass_on(self, number: int, frame: Any) -> None:
        self.signaled = True
        if self.process:
            self.process.send_signal(number)


def _stop_with_parent() -> None:
    """Have Linux send this process SIGTERM if its parent is killed: Ray kills what its own processes have started."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def images_done(folder: Path) -> int:
    """Return how far the run's last checkpoint is; -1 for one that has not begun."""
    return read_status(folder).get("images", -1)


def _arguments(job: Job, sweep: DictConfig) -> list[str]:
    """Return the arguments with which a run's own command makes it in the sweep's folder."""
    typed = [*(str(override) for override in sweep.hydra.overrides.hydra), *job.overrides]
    own_options = [
        f"--config-dir={source.path}"
        for source in sweep.hydra.runtime.config_sources
        if source.provider == "command-line"
    ]
    place = [f"name={_text(job.shared.name)}", f"hydra.run.dir={_text(str(job.folder))}", "hydra.mode=RUN"]
    return [*own_options, *(override for override in typed if not _is_of_sweep(override)), *place]


def _text(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", text) else quoted(text)


def _is_of_sweep(override: str) -> bool:
    key = override.lstrip("+~").partition("=")[0]
    return any(key == each or key.startswith(f"{each}.") for each in SWEEP_KEYS)


def _last_line(log: Path, begin: int) -> str:
    """Return the last line that was written into the log since it had `begin` bytes."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


if __name__ == "__main__":  # python -m ganbench.sweeps.remote RECORD NUMBER
    asked = Task(Path(sys.argv[1]), int(sys.argv[2]))
    asked.write_end(make_run(asked))
