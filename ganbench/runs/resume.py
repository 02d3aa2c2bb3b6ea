"""Find what an interrupted run continues from: its last checkpoint, if the folder still has all that belongs to it."""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ganbench.errors import Refused
from ganbench.runs import checkpoint
from ganbench.runs.status import read_footing

log = logging.getLogger("ganbench")

RECORDS = ("metrics.jsonl", "probes.jsonl", "histograms.jsonl")  # these only grow, and are cut back when a run resumes


class Stateful(Protocol):
    """What a checkpoint saves: anything with a state_dict, such as the players and the meter."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> object: ...


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint that a run continues from."""

    step: int
    images: int
    state: dict[str, Any]  # all that the checkpoint holds

    def restore(self, players: Stateful, meter: Stateful) -> dict[str, int]:
        """Load the saved state, once; return when the last update was."""
        players.load_state_dict(self.state)
        meter.load_state_dict(self.state["meter"])
        last_update = self.state["now"]
        self.state.clear()  # two nets and their optimizers, which need not be in memory twice
        return last_update


def find_resume_point(out: Path, run: str) -> ResumePoint | None:
    """Return the last checkpoint of the `run`, after cutting the records back to it; None if there is none.

    Raise Refused, and change nothing, if the folder lacks what belongs to the checkpoint.
    """
    state = _last_state(out, run)
    if state is None:
        return None
    load_footing(out)
    _rewind_records(out, state["records"])
    for leftover in (out / "checkpoints").glob(".*.tmp"):  # of a process that was killed inside a save
        leftover.unlink()
    return ResumePoint(state["step"], state["images"], state)


def record_sizes(out: Path) -> dict[str, int]:
    """Return the bytes of each record, for the checkpoint."""
    return {name: _size(out / name) for name in RECORDS}


def load_footing(out: Path) -> dict[str, dict[str, Any]]:
    """Return the footing that the run recorded before its first step. Raise Refused if it cannot be read."""
    try:
        return read_footing(out)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Refused(
            f"{out / 'footing.json'} cannot be read ({error!r}), so it is unknown which data the run began with. "
            "Pass another name=..."
        ) from None


def check_footing_unchanged(before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> None:
    """Raise Refused if the run would continue on another footing; warn if only the machine is another."""
    for part, fields in before.items():
        for field, value in fields.items():
            if now[part].get(field) != value:
                change = f"{field} was {value} when this run began and is {now[part].get(field)} now"
                _report_change(part, change)


def _report_change(part: str, change: str) -> None:
    if part != "machine":
        raise Refused(f"{change}. Set it back, or pass another name=...")
    log.warning(f"{change}: from here on the run need not be bit-equal to one that was never interrupted")


def _last_state(out: Path, run: str) -> dict[str, Any] | None:
    """Return the state in the newest undamaged checkpoint. Raise Refused if it is not of this `run`."""
    if not (out / "checkpoints").exists():
        return None
    try:
        state = checkpoint.load(out, set_aside=True)
    except FileNotFoundError:
        if _size(out / "metrics.jsonl"):
            raise Refused(f"{out} has records but no checkpoint to resume from. Pass another name=...") from None
        return None
    except ValueError as fault:
        raise Refused(str(fault)) from None
    if state.get("run") != run:
        raise Refused(
            f"{out / 'checkpoints'} contains a checkpoint of another run (step {state['step']}, format "
            f"{state['format']}). Put back this run's own, or pass another name=..."
        )
    return state


def _rewind_records(out: Path, sizes: dict[str, int]) -> None:
    """Cut the records back to what they were at the checkpoint. Raise Refused, and cut none, if one is damaged."""
    for name, size in sizes.items():
        _check_record(out / name, size)
    for name, size in sizes.items():
        if (out / name).exists():
            os.truncate(out / name, size)


def _check_record(file: Path, size: int) -> None:
    """Raise Refused unless the file holds whole lines up to `size`."""
    content = file.read_bytes()[:size] if file.exists() else b""
    try:
        if len(content) < size:
            raise ValueError(f"{len(content):,} of {size:,} bytes are left")
        for line in content.splitlines():
            json.loads(line)
    except ValueError as fault:
        raise Refused(
            f"{file} does not contain what belongs to the last checkpoint ({fault}). Pass another name=..."
        ) from None


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
