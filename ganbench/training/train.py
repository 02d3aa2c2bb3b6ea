"""One run, from a configuration to a score. Read `train` first."""

import math
from pathlib import Path

from omegaconf import DictConfig

from ganbench.errors import Diverged
from ganbench.progress import lines_above_bar
from ganbench.runs.lock import run_lock
from ganbench.runs.recorder import Recorder
from ganbench.runs.signals import GracefulStop
from ganbench.training.device import choose_device, configure_process
from ganbench.training.run import Run


def train(cfg: DictConfig, out: Path, stop: GracefulStop | None = None) -> float:
    """Train as `cfg` says, record everything in the folder `out`, and return the score that ranks.

    A run that diverges has an infinite score; status.json says what was not finite, and when. A run that was stopped
    before goes on from its last checkpoint. `stop` may end it.
    """
    device = choose_device(cfg)
    configure_process(cfg, device)
    with stop or GracefulStop() as stop:  # outermost, so that a signal counts however the run ends
        try:
            with run_lock(out), Recorder(cfg, out) as recorder, lines_above_bar():
                run = Run(cfg, device, recorder, stop)
                with run.bar:
                    _take_steps(run, stop)
                return run.finish()
        except Diverged:
            return math.inf


def _take_steps(run: Run, stop: GracefulStop) -> None:
    """Do what the schedule says, from the last checkpoint to the end."""
    schedule = run.schedule
    for step in range(run.start(), schedule.steps + 1):
        if step in schedule.checkpoints or stop.requested:
            run.save(step)
            stop.exit_if_requested()  # nowhere else: a signal that comes after the question waits for the next step
        if schedule.logs_at(step):
            run.log(step)
        if step in schedule.evaluations:
            run.evaluate(step)
        if step in schedule.probes:
            run.probe(step)
        if step < schedule.steps:
            run.update(step)
