"""How a run ended, in words and as a number to rank it by."""

import math
from typing import Any

Status = dict[str, Any]  # what status.json holds

NEXT_STEPS = {
    "failed": "rerun with retry=true to retry it from its last checkpoint",
    "interrupted": "rerun the same command to resume it",
}


def ranked_score(status: Status) -> float:
    """Return the score of a finished run; infinity for a run that did not finish or has no score."""
    score = status.get("score")
    if status["status"] != "finished" or score is None:
        return math.inf
    return score


def describe_status(status: Status) -> str:
    """Say how the run ended: with which score, or why without one."""
    if status.get("reason"):
        return f"{status['status']} ({status['reason']})"
    score = status.get("score")
    return f"{status['status']}, score {'none' if score is None else f'{score:.4g}'}"
