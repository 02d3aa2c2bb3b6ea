"""What a run costs in seconds: as it happened to take, and, where it was asked for, measured alone."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from ganbench.errors import Refused
from ganbench.report.load import Run

FILE = "timing.json"  # what `--time` measures
IDLE = 0.5  # the highest load average of a machine that counts as idle


class Timing(NamedTuple):
    """What `python -m ganbench.report FOLDER --time` measured."""

    seconds: dict[str, float]  # of a whole run, by the method's label
    machine: str
    updates: int  # generator updates of each method in each turn
    turns: int
    load_average: float | None  # of the machine before; None if it does not tell
    timed: dict[str, str]  # what was timed, by the method's label: see `what_is_timed`

    def __str__(self) -> str:
        load = "unknown" if self.load_average is None else f"{self.load_average:g}"
        busy = "; the machine was not idle, so measure again" if (self.load_average or 0) > IDLE else ""
        return (
            f"measured alone, in {self.turns} turns of {self.updates} generator updates of each method, on "
            f"{self.machine} (load average before: {load}{busy})"
        )


def what_is_timed(settings: str, shared_code: str | None, own_code: str | None) -> str:
    """Return a digest of what a method's cost depends on: its settings as text, and the digests of its code."""
    return hashlib.sha256(f"{settings} {shared_code} {own_code}".encode()).hexdigest()[:12]


def load_timing(folder: Path) -> Timing | None:
    """Load what was measured; None if nothing was. Raise Refused for a file that is damaged."""
    file = folder / FILE
    if not file.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        seconds = {str(label): float(value) for label, value in found["seconds"].items()}
        load = found["load_average"]
        return Timing(
            seconds,
            str(found["machine"]),
            int(found["updates"]),
            int(found["turns"]),
            None if load is None else float(load),
            {str(label): str(value) for label, value in found.get("timed", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{file} is damaged ({error!r}); measure again with --time, or delete it.") from error


def runs_at_once(runs: Iterable[Run]) -> float | None:
    """Return how many of the runs shared a machine on average while one of them ran; None if that is not known.

    It is known of runs that were never resumed.
    """
    by_host: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        span = _span(run)
        if span is not None:
            by_host[str(run.facts.get("host"))].append(span)
    averages = [load for spans in by_host.values() for load in _average_loads(np.array(spans))]
    return fmean(averages) if averages else None


def _span(run: Run) -> tuple[float, float] | None:
    """Return when the run began and ended, in seconds since the epoch."""
    started = run.facts.get("t_started")
    wall = run.facts.get("t_wall")
    if not started or not wall or run.facts.get("resumed"):
        return None
    try:
        begin = datetime.strptime(started, "%Y-%m-%dT%H:%M:%S%z").timestamp()
        return begin, begin + float(wall)
    except (TypeError, ValueError):  # damaged
        return None


def _average_loads(spans: np.ndarray) -> list[float]:
    """Return, for each of the spans [n, 2], how many of them, itself included, lie over it on average."""
    begins, ends = spans.T
    shared = [np.maximum(0.0, np.minimum(end, ends) - np.maximum(begin, begins)).sum() for begin, end in spans]
    return (np.array(shared) / (ends - begins)).tolist()
