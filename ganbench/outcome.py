"""How runs ended, as their folders tell it. Needs no torch."""

import json
from pathlib import Path
from typing import Any

from ganbench.config import Refused

endings: list[str] = []  # the statuses of the runs that this process was asked for


def exit_code(statuses: list[str]) -> int:
    """0 if every run finished, 3 if some diverged, 1 if any failed or was interrupted."""
    if set(statuses) <= {"finished"}:
        return 0
    return 3 if set(statuses) <= {"finished", "diverged"} else 1


def read_status(folder: Path) -> dict[str, Any]:
    """A run's status.json; a run that wrote none has failed."""
    try:
        return json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {"status": "failed", "reason": f"no readable status.json ({error})"}


def refuse_used(folder: Path) -> None:
    """Raise Refused for a folder in which something of a run lies already."""
    for part in ("status.json", "config.yaml", "metrics.jsonl", "samples", "checkpoints"):
        if (folder / part).exists():
            raise Refused(f"{folder / part} is there already, and outputs are never overwritten: choose another name=…")


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Replace status.json in one move, so that no reader sees half of it."""
    aside = folder / ".status.tmp"
    aside.write_text(json.dumps(status, indent=2) + "\n", encoding="utf-8")
    aside.replace(folder / "status.json")


def bury(folder: Path, exitcode: int | None, **known: Any) -> dict[str, Any]:
    """The status of a run whose process is gone: one that wrote none, or still claims to be running, has failed."""
    status = known | read_status(folder)
    if status["status"] == "running" or not (folder / "status.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        how = f"killed by signal {-exitcode}" if exitcode and exitcode < 0 else f"process ended with code {exitcode}"
        status |= {"status": "failed", "reason": how}
        write_status(folder, status)
    return status
