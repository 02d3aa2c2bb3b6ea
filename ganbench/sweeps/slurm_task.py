"""One task of a Slurm array: python -m ganbench.sweeps.slurm_task RECORD INDEX makes its run.

Slurm sends SIGUSR1 before the time limit and SIGTERM at a preemption. The run saves, and the task is queued again.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from ganbench.errors import Refused
from ganbench.files import write_atomically
from ganbench.runs.status import exit_code, write_status
from ganbench.sweeps.cluster import check_shared_folder
from ganbench.sweeps.outcomes import Status
from ganbench.sweeps.remote import Order, RunProcess, images_done
from ganbench.sweeps.slurm import read_order, task_log, word_file


def main() -> None:
    """Make the run of a task, and write down how it ended unless it is queued again."""
    record, index = Path(sys.argv[1]), int(sys.argv[2])
    order = read_order(record, index)
    word_file(record, index).unlink(missing_ok=True)
    before = images_done(Path(order.folder))
    status = _make(order, task_log(record, index))
    if status["status"] == "interrupted":
        status = _queue_again(order, status, before)
    if status["status"] == "queued again":
        sys.exit(143)
    write_atomically(word_file(record, index), json.dumps(status).encode())
    sys.exit(2 if status["status"] == "refused" else exit_code([status["status"]]))


def _make(order: Order, log: Path) -> Status:
    process = RunProcess(order, log)
    try:
        check_shared_folder(Path(order.folder).parent, one_machine=True)
    except Refused as refused:
        return {"status": "refused", "reason": str(refused)}
    return process.run()


def _queue_again(order: Order, status: Status, before: int) -> Status:
    """Queue the task again if Slurm still calls it running: it has neither been canceled nor queued by others.

    But not for ever, if the time limit is too short for a run to get anywhere.
    """
    if _state() != "RUNNING":
        return status
    folder = Path(order.folder)
    if before == images_done(folder) and status["reason"] == "SIGUSR1" and "SLURM_RESTART_COUNT" in os.environ:
        status |= {
            "status": "failed",
            "reason": "a whole time limit took it no further; raise hydra.launcher.timeout_min",
        }
        write_status(folder, status)
        return status
    queued = subprocess.run(["scontrol", "requeue", _task()], capture_output=True, text=True, check=False)
    if queued.returncode != 0:
        return status | {"reason": f"Slurm did not queue it again: {queued.stderr.strip()}"}
    return {"status": "queued again"}


def _state() -> str:
    shown = subprocess.run(["scontrol", "show", "job", _task()], capture_output=True, text=True, check=False).stdout
    match = re.search(r"JobState=(\w+)", shown)
    return match[1] if match else "unknown"


def _task() -> str:
    return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"


if __name__ == "__main__":
    main()
