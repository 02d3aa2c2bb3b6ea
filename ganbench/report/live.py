"""What is known of a sweep while it runs: how far each run is, its curves so far, and the report of what has ended."""

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganbench.errors import Refused
from ganbench.files import is_run_folder
from ganbench.progress import duration
from ganbench.report.comparability import NotComparable
from ganbench.report.load import TRIALS, sweep_folders
from ganbench.report.pages.templates import render
from ganbench.runs.live import LiveRun, remaining_seconds
from ganbench.runs.status import planned_runs

if TYPE_CHECKING:
    from ganbench.report.study import Study

REPORT = "report.html"
LONG_SILENCE = 60.0  # seconds
LOSSES = ("d_loss", "g_loss")
MOST_POINTS = 60  # of a curve of losses, which is a line of metrics.jsonl each 25 updates
# This process may take this share of the cores' time, but for its last report, for the runs need the cores.
SHARE_OF_TIME = 0.01
FIRST_REPORT = 6.0  # seconds of a slow core that the first one takes, with the libraries that it imports


def waiting_seconds(cost: float) -> float:
    """Return how long to wait after so many seconds of a core, so that they are within the share of all cores' time."""
    return cost / SHARE_OF_TIME / (os.cpu_count() or 1)


class LiveSweep:
    """A sweep's folder, or one of several sweeps, followed while its runs begin, train and end."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.runs: dict[Path, LiveRun] = {}

    def refresh(self) -> None:
        """Find the runs that there are by now, and read how far all are."""
        self.runs = {folder: self.runs.get(folder) or LiveRun(folder) for folder in self._run_folders()}
        for run in self.runs.values():
            run.load_config()
            run.refresh()

    @property
    def ended(self) -> int:
        """Return how many runs have ended."""
        return sum(run.has_ended for run in self.runs.values())

    def progress(self) -> dict[str, Any]:
        """Return what the page shows of all runs, as JSON has it."""
        runs = list(self.runs.values())
        unfinished = [run for run in runs if not run.has_ended]
        at_once = max(1, sum(run.status == "running" for run in runs))
        left = remaining_seconds(runs, unfinished, at_once) if unfinished else None
        return {
            "runs": [_describe(run, self.folder) for run in runs],
            "ended": self.ended,
            "left": None if left is None else f"about {duration(left)} left",
        }

    def _run_folders(self) -> Iterator[Path]:
        """Yield the folders of runs that have begun, and those that are planned."""
        if is_run_folder(self.folder):
            yield self.folder
        for sweep in sweep_folders(self.folder) or [self.folder]:
            for each in (sweep, sweep / TRIALS):
                yield from sorted(self._of_sweep(each))

    def _of_sweep(self, sweep: Path) -> set[Path]:
        if not sweep.is_dir():
            return set()
        begun = {child for child in sweep.iterdir() if is_run_folder(child)}
        return begun | {sweep / name for name in planned_runs(sweep)}


def _describe(run: LiveRun, top: Path) -> dict[str, Any]:
    """Return a run as the page shows it."""
    return {
        "name": str(run.folder.relative_to(top)),
        "method": run.method,
        "status": run.status,
        "reason": run.facts.get("reason") or _silence(run),
        "images": run.images,
        "budget": run.plan.images if run.plan is not None else None,
        "seconds": round(run.training_seconds),
        "metric": run.metric,
        "curves": {"score": _curve(run, run.metric)} | {name: _thinned(_curve(run, name)) for name in LOSSES},
    }


def _silence(run: LiveRun) -> str | None:
    """Say for how long a run has recorded nothing; None if that is not long: whether it was killed, nobody knows."""
    silent = run.silent_seconds
    return f"no word for {duration(silent)}" if silent > LONG_SILENCE else None


def _curve(run: LiveRun, name: str) -> list[list[float]]:
    """Return [images, value] of all that was recorded of a value."""
    return [[row["images"], row[name]] for row in run.rows if row.get(name) is not None]


def _thinned(curve: list[list[float]]) -> list[list[float]]:
    """Leave out points at equal distances, so that no more than MOST_POINTS are left; the last one stays."""
    stride = math.ceil(len(curve) / MOST_POINTS)
    return curve if stride < 2 else curve[::-stride][::-1]


class LiveReport:
    """The report of the runs that have ended, made again now and then while others go on."""

    def __init__(self, folder: Path, allowed: tuple[str, ...]):
        self.folder = folder
        self.allowed = allowed
        self.n_ended = 0  # how many runs had ended when it was made
        self.pages: dict[str, str] = {}  # by their path from the folder, as the report's command would write them
        self._since = time.monotonic()
        self.cost = FIRST_REPORT  # seconds of a core for the next one

    def is_due(self, n_ended: int, is_last: bool) -> bool:
        """Return whether to make it again: if more runs have ended, and not too soon, but for the last time."""
        if n_ended == self.n_ended:
            return False
        seconds = time.monotonic() - self._since
        return is_last or waiting_seconds(time.process_time() + self.cost) < seconds

    def make(self, n_ended: int) -> None:
        """Make the pages anew; one page with a sentence if there is nothing to compare."""
        began = time.process_time()
        self.n_ended = n_ended
        try:
            self.pages = self._make()
        except (FileNotFoundError, Refused, NotComparable) as error:
            self.pages = {REPORT: render("sentence.html.j2", title=self.folder.name, sentence=str(error))}
        self.cost = time.process_time() - began

    def _make(self) -> dict[str, str]:
        # What draws and computes takes two seconds to import: as much as watching a short sweep may cost in all.
        from ganbench.report.pages.sweep import page

        studies = [study for sweep in sweep_folders(self.folder) or [self.folder] for study in self._load(sweep)]
        pages = {str(study.folder.relative_to(self.folder) / REPORT): page(study) for study in studies}
        if REPORT not in pages:
            links = {path: study.title for path, study in zip(pages, studies, strict=True)}
            pages[REPORT] = render("sentence.html.j2", title=self.folder.name, links=links)
        return pages

    def _load(self, sweep: Path) -> "list[Study]":
        from ganbench.report.study import load_datasets

        try:
            return load_datasets(sweep, self.allowed)[0]
        except FileNotFoundError:
            if sweep == self.folder:
                raise
            return []  # of several sweeps, one may not have begun
