"""How a run ended, in words and as a number to rank it by."""

import math
import shlex
from pathlib import Path
from typing import Any

from ganbench.runs.lock import run_lock
from ganbench.runs.status import mark_dead_run

Status = dict[str, Any]  # what status.json holds

NEXT_STEPS = {
    "failed": "rerun with retry=true to go on from the last checkpoint",
    "interrupted": "rerun the same command to resume",
}


def ranked_score(status: Status) -> float:
    """Return the score of a finished run; infinity for a run that did not finish or has no score."""
    score = status.get("score")
    if status["status"] != "finished" or score is None:
        return math.inf
    return score


def record_end(folder: Path, exitcode: int | None, message: str | None, label: str, seed: int) -> Status:
    """Return how the run of a method ended, once its status.json says so, too, even if its process could not write it.

    Raise RunLocked if another launcher has resumed the run meanwhile.
    """
    with run_lock(folder):
        return mark_dead_run(folder, exitcode, message, label=label, seed=seed)


def describe_status(status: Status) -> str:
    """Say how the run ended: with which score, or why without one."""
    if status.get("reason"):
        return f"{status['status']} ({status['reason']})"
    score = status.get("score")
    return f"{status['status']}, score {'none' if score is None else f'{score:.4g}'}"


def from_here(path: Path) -> Path:
    """Return a path relative to the current folder, if it lies in it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def report_command(folder: Path) -> str:
    """Return the command that makes the report of a run's or a sweep's folder."""
    return f"python -m ganbench.report {shlex.quote(str(from_here(folder)))}"
