"""Follow runs while they are under way, and estimate when they will have ended. Needs no torch."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ganbench.config.compose import method_label
from ganbench.runs.settings import with_seed_zero
from ganbench.runs.status import read_status

WAITING = "waiting"  # of a run that has no folder yet
PENALIZED = 1.4  # time of a run with a gradient penalty, in that of one without, until it is measured
ENOUGH_SECONDS = 5.0  # of training, before its speed is believed


@dataclass(frozen=True)
class Plan:
    """What a run is to do."""

    images: int  # its budget
    evaluations: int
    cost: float  # of an image, relative to a method without a gradient penalty

    @classmethod
    def of(cls, cfg: DictConfig) -> "Plan":
        """Read the plan from a run's settings."""
        is_penalized = "weight" in cfg.penalty
        # One more evaluation than the settings say: the one before training.
        return cls(int(cfg.protocol.images), int(cfg.protocol.evaluations) + 1, PENALIZED if is_penalized else 1.0)


class LiveRun:
    """A run's folder, read again and again, and each time only what is new in it."""

    def __init__(self, folder: Path, plan: Plan | None = None):
        self.folder = folder
        self.plan = plan  # None until the folder has one
        self.method = ""
        self.metric = ""
        self.facts: dict[str, Any] = {}  # status.json
        self.rows: list[dict[str, Any]] = []  # metrics.jsonl
        self._read_bytes = 0
        self._beginning = _beginning({})
        self._status_changed = 0  # when, in nanoseconds
        self._config_changed = 0

    @property
    def status(self) -> str:
        return self.facts.get("status", WAITING)

    @property
    def has_ended(self) -> bool:
        return self.status not in (WAITING, "running")

    @property
    def images(self) -> int:
        """Return how many real images the critic has seen."""
        return self.rows[-1]["images"] if self.rows else 0

    @property
    def training_seconds(self) -> float:
        return next((row["t_train"] for row in reversed(self.rows) if "t_train" in row), 0.0)

    @property
    def evaluations(self) -> int:
        """Return how many evaluations there were."""
        return sum("g_spread" in row for row in self.rows)

    @property
    def silent_seconds(self) -> float:
        """Return for how long a run that says it is running has recorded nothing; 0 for others."""
        if self.status != "running":
            return 0.0
        files = [self.folder / name for name in ("status.json", "metrics.jsonl")]
        return max(0.0, time.time() - max(map(_time_of_change, files)) / 1e9)

    def refresh(self) -> None:
        """Read what the run has written since the last time."""
        changed = _time_of_change(self.folder / "status.json")
        if changed == self._status_changed and self.status != "running":
            return
        self._status_changed = changed
        self.facts = read_status(self.folder) if changed else {}
        self._forget_if_begun_anew()
        self._read_rows()

    def load_config(self) -> None:
        """Read the run's settings once they are there, and again if it is extended; of damaged ones nothing."""
        file = self.folder / "config.yaml"
        changed = _time_of_change(file)
        if changed == self._config_changed:
            return
        self._config_changed = changed
        self.plan, self.method, self.metric = None, "", ""
        with suppress(OSError, ValueError, TypeError, AttributeError, YAMLError, OmegaConfBaseException):
            text = file.read_text(encoding="utf-8")
            self.plan, self.method, self.metric = _read_settings(with_seed_zero(text))

    @property
    def other_seconds(self) -> float:
        """Return the seconds up to the last record that went into all but training: the start and evaluations.

        They end with that record, for nobody knows whether a run that says it is running has been killed since.
        """
        since_start = self.facts.get("t_wall")
        if since_start is None and "t_started" in self.facts:
            last_record = _time_of_change(self.folder / "metrics.jsonl") / 1e9
            since_start = last_record - datetime.fromisoformat(self.facts["t_started"]).timestamp()
        return max(0.0, (since_start or 0.0) - self.training_seconds)

    def _forget_if_begun_anew(self) -> None:
        """Read the records anew if the run was resumed, which cuts them back to its checkpoint, or made once more."""
        beginning = _beginning(self.facts)
        if beginning != self._beginning:
            self._beginning = beginning
            self._forget()

    def _forget(self) -> None:
        self.rows = []
        self._read_bytes = 0

    def _read_rows(self) -> None:
        file = self.folder / "metrics.jsonl"
        if not file.exists():
            return
        with file.open("rb") as opened:
            opened.seek(self._read_bytes)
            new = opened.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._read_bytes += len(complete)
        try:
            self.rows += [_row(line) for line in complete.splitlines()]
        except ValueError:  # it was cut back a moment ago, and has grown again; or it is damaged
            self._forget()


@lru_cache(maxsize=1000)
def _read_settings(text: str) -> tuple[Plan, str, str]:
    """Return the plan, the method and the metric of a config.yaml, which has them without interpolations."""
    config = cast(DictConfig, OmegaConf.create(text))
    return Plan.of(config), method_label(config), str(config.metric.name)


def _time_of_change(file: Path) -> int:
    """Return when the file was written, in nanoseconds; 0 if it is not there."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _beginning(facts: dict[str, Any]) -> tuple[str | None, int]:
    """Return what changes whenever a run begins or resumes: when it first began, and how often it was resumed."""
    return facts.get("t_started"), len(facts.get("resumed", ()))


def _row(line: bytes) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict) or "images" not in row:
        raise ValueError("it is not a record of a run")
    return row


def remaining_seconds(runs: Sequence[LiveRun], unfinished: Sequence[LiveRun], at_once: int) -> float | None:
    """Estimate how long it takes to finish the `unfinished` of all `runs`; None before anything is known.

    They take the time that was measured so far: for an image, and for all that is not training.
    """
    begun = [run for run in runs if run.plan is not None and run.images > 0]
    trained = sum(run.training_seconds for run in begun)
    if trained < ENOUGH_SECONDS and not any(run.has_ended for run in begun):
        return None
    per_image = trained / sum(run.images * run.plan.cost for run in begun if run.plan)
    per_evaluation = _seconds_per_evaluation(begun)
    typical = _typical_plan(runs)
    left = [_seconds_left(run, run.plan or typical, per_image, per_evaluation) for run in unfinished]
    return max(sum(left) / at_once, max(left, default=0.0))


def _seconds_per_evaluation(begun: Sequence[LiveRun]) -> float:
    """Return what is not training for each evaluation; a run's start counts as one more of them."""
    from_the_start = [run for run in begun if "resumed" not in run.facts]
    if not from_the_start:
        return 0.0
    return fmean(run.other_seconds / (run.evaluations + 1) for run in from_the_start)


def _typical_plan(runs: Sequence[LiveRun]) -> Plan:
    """Return the plan to expect of runs that have none yet."""
    plans = [run.plan for run in runs if run.plan is not None]
    return Plan(
        images=round(fmean(plan.images for plan in plans)),
        evaluations=round(fmean(plan.evaluations for plan in plans)),
        cost=fmean(plan.cost for plan in plans),
    )


def _seconds_left(run: LiveRun, plan: Plan, per_image: float, per_evaluation: float) -> float:
    training = (plan.images - run.images) * plan.cost * per_image
    start = 0 if run.rows else 1
    evaluations = max(0, plan.evaluations - run.evaluations)
    return training + (evaluations + start) * per_evaluation
