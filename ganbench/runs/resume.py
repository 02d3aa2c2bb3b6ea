"""What a run that was cut short goes on from: its last checkpoint, if the folder still holds what belongs to it."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from ganbench.errors import Refused
from ganbench.runs import checkpoint
from ganbench.runs.status import read_footing

log = logging.getLogger("ganbench")

RECORDS = ("metrics.jsonl", "probes.jsonl")  # what only grows, and is cut back when a run goes on


def record_sizes(out: Path) -> dict[str, int]:
    """Bytes of each record, for the checkpoint."""
    return {name: (out / name).stat().st_size if (out / name).exists() else 0 for name in RECORDS}


def rewind_records(out: Path, run: str) -> dict[str, Any] | None:
    """The last checkpoint of the `run`, once the records say no more than when it was made; None if there is none.

    Raise Refused, with all as it was, if the folder does not hold what the checkpoint goes on from.
    """
    saved = _last(out, run)
    if saved is None:
        return None
    load_footing(out)
    for name, size in saved["records"].items():
        _refuse_short(out / name, size)
    for name, size in saved["records"].items():
        if (out / name).exists():
            os.truncate(out / name, size)
    for orphan in (out / "checkpoints").glob(".*.tmp"):  # of a kill inside a save
        orphan.unlink()
    return saved


def _last(out: Path, run: str) -> dict[str, Any] | None:
    if not (out / "checkpoints").exists():
        return None
    try:
        saved = checkpoint.load(out, set_aside=True)
    except FileNotFoundError:
        if record_sizes(out)["metrics.jsonl"]:
            raise Refused(f"{out} has records but no checkpoint to go on from: choose another name=…") from None
        return None
    except ValueError as fault:
        raise Refused(str(fault)) from None
    if saved.get("run") != run:
        raise Refused(
            f"{out / 'checkpoints'} holds a checkpoint of another run (step {saved['step']}, format "
            f"{saved['format']}): bring back this run's own, or choose another name=…"
        )
    return saved


def _refuse_short(file: Path, size: int) -> None:
    """Raise Refused unless the file holds whole lines up to `size`."""
    kept = file.read_bytes()[:size] if file.exists() else b""
    try:
        if len(kept) < size:
            raise ValueError(f"{len(kept):,} bytes are left of {size:,}")
        for line in kept.splitlines():
            json.loads(line)
    except ValueError as fault:
        raise Refused(
            f"{file} does not hold what the last checkpoint goes on from ({fault}): choose another name=…"
        ) from None


def load_footing(out: Path) -> dict[str, dict[str, Any]]:
    """The footing that the run wrote down before its first step. Raise Refused if it can no longer be read."""
    try:
        return read_footing(out)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Refused(
            f"{out / 'footing.json'} cannot be read ({error!r}), so nobody knows what data the run began with: "
            "choose another name=…"
        ) from None


def check_footing_unchanged(before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> None:
    """Raise Refused if the run would go on on another footing; another machine is only warned of."""
    for part, fields in before.items():
        for field, value in fields.items():
            if now[part].get(field) == value:
                continue
            told = f"{field} was {value} when this run began, and is {now[part].get(field)} now"
            if part != "machine":
                raise Refused(f"{told}: bring back what it began with, or choose another name=…")
            log.warning(f"{told}: from here on the run need not be bit-equal to one that was never stopped")
