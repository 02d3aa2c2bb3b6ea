"""One task of a Slurm array: python -m ganbench.sweeps.slurm_task RECORD INDEX makes its run.

Slurm sends SIGUSR1 before the time limit and SIGTERM at a preemption. The run saves, and the task is queued again.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from ganbench.runs.status import exit_code, write_status
from ganbench.sweeps.outcomes import Status
from ganbench.sweeps.remote import Task, images_done, make_run


def main() -> None:
    """Make the run of a task, and write down how it ended unless it is queued again."""
    task = Task(Path(sys.argv[1]), int(sys.argv[2]))
    folder = Path(task.order().folder)
    before = images_done(folder)
    status = make_run(task)
    if status["status"] == "interrupted" and job_state(_task()) == "RUNNING":
        status = _queue_again(folder, status, before)
    if status["status"] == "queued again":
        sys.exit(143)
    task.write_end(status)
    sys.exit(2 if status["status"] == "refused" else exit_code([status["status"]]))


def _queue_again(folder: Path, status: Status, before: int) -> Status:
    """Queue the task again. Slurm calls it running: it was neither canceled nor queued again by others.

    But not for ever, if the time limit is too short for a run to get anywhere.
    """
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


def job_state(task: str) -> str | None:
    """Return the state of a task, such as RUNNING; None if Slurm's controller does not know it any more."""
    shown = subprocess.run(["scontrol", "show", "job", task], capture_output=True, text=True, check=False).stdout
    match = re.search(r"JobState=(\w+)", shown)
    return match[1] if match else None


def _task() -> str:
    return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"


if __name__ == "__main__":
    main()
