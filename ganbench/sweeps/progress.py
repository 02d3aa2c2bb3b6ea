"""Say how long a sweep will take, and show how far it is: by a bar on a terminal, else by a line a minute."""

import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from ganbench.errors import plural
from ganbench.progress import duration, redirected_log
from ganbench.runs.live import LiveRun, Plan, remaining_seconds
from ganbench.sweeps.jobs import Job

log = logging.getLogger("ganbench")

LOOK_SECONDS = 1.0
LINE_SECONDS = 60.0
LEAST_SECONDS = 10.0  # that are worth a line
BAR = "{desc} |{bar}| {n_fmt} of {total_fmt} images{postfix}"


class SweepProgress:
    """How far a sweep is. Its launcher says which runs begin and end, their folders how far they are in between."""

    def __init__(self, jobs: Sequence[Job]):
        self.todo = {index: _follow(job) for index, job in enumerate(jobs) if job.completed is None}
        self.under_way: set[int] = set()
        self.done: set[int] = set()
        self.is_estimated = False
        self.reading = threading.Lock()  # of a run's folder; `end` is called from several threads

    def begin(self, index: int) -> None:
        """Follow a run from now on."""
        self.under_way.add(index)

    def end(self, index: int) -> None:
        """Count a run as done, however it ended."""
        self.under_way.discard(index)
        if index in self.todo:
            with self.reading:
                self.todo[index].refresh()
            self.done.add(index)

    @property
    def total_images(self) -> int:
        """Return the budgets of all runs that the sweep was to make, together."""
        return sum(_budget(run) for run in self.todo.values())

    @property
    def images(self) -> int:
        """Return how much of that is done. A run that ended early counts as a whole one."""
        return sum(_budget(run) if index in self.done else run.images for index, run in self.todo.items())

    def look(self) -> None:
        """Read how far the runs under way are; once that is enough for an estimate, log how long the sweep takes."""
        for index in self.under_way & set(self.todo):
            with self.reading:
                self.todo[index].refresh()
        if not self.is_estimated:
            self._log_estimate()

    def _log_estimate(self) -> None:
        seconds = self.seconds_left()
        if seconds is not None:
            self.is_estimated = True
            if seconds >= LEAST_SECONDS:
                log.info(f"these runs take about {duration(seconds)} more, by the speed of the first steps")

    def seconds_left(self) -> float | None:
        """Estimate how long the sweep still takes; None before anything is known."""
        unfinished = [run for index, run in self.todo.items() if index not in self.done]
        return remaining_seconds(list(self.todo.values()), unfinished, max(1, len(self.under_way)))

    def describe(self) -> str:
        """Say how far the sweep is in a line, such as `3 of 18 runs done, 20% of the images, about 7 min left`."""
        parts = [
            f"{len(self.done)} of {plural(len(self.todo), 'run')} done",
            f"{self.images / self.total_images:.0%} of the images",
        ]
        seconds = self.seconds_left()
        return ", ".join(parts if seconds is None else [*parts, f"about {duration(seconds)} left"])


@contextmanager
def shown(progress: SweepProgress) -> Iterator[None]:
    """Show the progress of a sweep while the block runs."""
    if not progress.todo:
        yield
        return
    stop = threading.Event()
    show = _show_bar if sys.stderr.isatty() else _log_lines
    thread = threading.Thread(target=show, args=[progress, stop], daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _show_bar(progress: SweepProgress, stop: threading.Event) -> None:
    with (
        tqdm(total=progress.total_images, unit_scale=True, bar_format=BAR, leave=False, dynamic_ncols=True) as bar,
        redirected_log(),
    ):
        while not stop.wait(LOOK_SECONDS):
            progress.look()
            seconds = progress.seconds_left()
            bar.set_description_str(f"{len(progress.done)} of {plural(len(progress.todo), 'run')} done", refresh=False)
            bar.set_postfix_str("" if seconds is None else f"about {duration(seconds)} left", refresh=False)
            bar.n = progress.images
            bar.refresh()


def _log_lines(progress: SweepProgress, stop: threading.Event) -> None:
    last_line = time.monotonic()
    while not stop.wait(LOOK_SECONDS):
        progress.look()
        if time.monotonic() - last_line >= LINE_SECONDS:
            last_line = time.monotonic()
            log.info(progress.describe())


def _follow(job: Job) -> LiveRun:
    return LiveRun(job.folder, Plan.of(job.shared))


def _budget(run: LiveRun) -> int:
    assert run.plan is not None  # as `_follow` has made it
    return run.plan.images
