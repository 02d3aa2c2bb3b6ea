"""What the tables, the figures and the pages are made from: a sweep's folder, read and compared once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from ganbench.report import tuning
from ganbench.report.comparability import check_comparable, machine_differences
from ganbench.report.compare import (
    Comparison,
    Course,
    Method,
    comparisons,
    course,
    differences,
    group_by_method,
    on_shared_seeds,
    plural,
    verdict,
)
from ganbench.report.load import Run, load_runs

TRACKS = {"paper": "each method with its authors' settings", "tuned": "each method with the best of {} random trials"}


@dataclass(frozen=True)
class Study:
    """A sweep. `arms` are the best first, at the seeds that all of them have; `runs` every folder there is."""

    folder: Path
    runs: list[Run]
    arms: list[Method]
    pairs: list[Comparison]
    notes: list[str]  # what a reader must know before believing the rest

    @property
    def first(self) -> Run:
        return self.arms[0].runs[0]

    @property
    def config(self) -> dict[str, Any]:
        return self.first.config

    @property
    def dataset(self) -> str:
        return self.config["dataset"]["name"]

    @property
    def metric(self) -> str:
        return self.first.metric

    @cached_property
    def real(self) -> dict[str, Any]:
        """What real training data get, by score: the level that a perfect generator would reach."""
        return next(
            (run.facts["real_reference"] for arm in self.arms for run in arm.runs if run.facts.get("real_reference")),
            {},
        )

    @property
    def real_reference(self) -> float | None:
        return self.real.get(self.metric)

    @property
    def track(self) -> str:
        """Which question the table answers."""
        protocol = self.config["protocol"]
        return TRACKS.get(protocol.get("track"), "one setting for all methods").format(protocol.get("trials"))

    @property
    def title(self) -> str:
        return f"{plural(len(self.arms), 'GAN method')} on {self.dataset}"

    @property
    def subtitle(self) -> str:
        c, p = self.config, self.config["protocol"]
        return (
            f"{self.dataset} · {c['model']['name']} · {len(self.runs)} runs · {p['images']:,} real images a run · "
            f"protocol {p['name']} ({self.track})"
        )

    @property
    def seeds(self) -> list[int]:
        """Those that all arms have."""
        return sorted(set.intersection(*(set(arm.finals) for arm in self.arms)))

    @property
    def points(self) -> bool:
        """Whether the data are points rather than pictures."""
        return len(self.config["dataset"].get("shape", [])) == 1

    @cached_property
    def against_first(self) -> dict[str, Comparison]:
        """By label, for each arm that shares seeds with the first."""
        return {c.second.label: c for c in self.pairs if c.first is self.arms[0]}

    @cached_property
    def verdict(self) -> list[str]:
        return verdict(self.arms, self.metric, self.pairs)

    @cached_property
    def courses(self) -> dict[str, Course]:
        return {arm.label: course(arm, self.metric) for arm in self.arms}

    @cached_property
    def settings(self) -> list[tuple[str, dict[str, Any]]]:
        """By label, what differs between the arms beside loss and penalty; empty if nothing does."""
        told = differences([arm.runs[0].config for arm in self.arms], ignore=("loss", "penalty"))
        return list(zip([arm.label for arm in self.arms], told, strict=True)) if told[0] else []

    @cached_property
    def trials(self) -> dict[str, list[Run]]:
        """By method, the runs that its settings were chosen from; empty without a search."""
        return tuning.trials(self.folder)

    @cached_property
    def searched(self) -> list[tuple[str, list[list[str]]]]:
        """Tables of the search, each with a sentence; none without one."""
        return tuning.tables(self.trials)

    @cached_property
    def tints(self) -> dict[str, int]:
        """By label the number of its colour: by name, so that a method keeps it from page to page."""
        return {label: i for i, label in enumerate(sorted(arm.label for arm in self.arms))}


def load_study(folder: Path, allowed: tuple[str, ...] = ()) -> Study:
    """Raises Unlike for runs whose footing differs, but for the fields `allowed`, which get a stamp."""
    runs = load_runs(folder)
    everything = group_by_method(runs)
    if not everything:
        raise FileNotFoundError(
            f"{folder} holds no readable run; name the folder of a sweep, such as outputs/sweep/mine."
        )
    stamps = [f"Not on equal footing, by request: {mismatch}." for mismatch in check_comparable(runs, allowed)]
    found, left_out = on_shared_seeds(everything)
    return Study(folder, runs, found, comparisons(found), [*stamps, *problems(runs, found, left_out)])


def values_at_end(arm: Method, pick: Callable[[dict[str, Any]], Any]) -> tuple[list[Any], int]:
    """Something of the last evaluation's record, from each finished run that has it, and how many have finished."""
    last = [run.last for run in arm.runs if run.status == "finished"]
    return [value for row in last if (value := pick(row)) is not None], len(last)


def mean_at_end(arm: Method, name: str) -> float | None:
    ends, _ = values_at_end(arm, lambda row: row.get(name))
    return fmean(ends) if ends else None


def problems(runs: list[Run], found: list[Method], left_out: set[int]) -> list[str]:
    """What a reader must know before believing the table."""
    said = [f"{mismatch}." for mismatch in machine_differences(runs)]
    if left_out:
        seeds = ", ".join(map(str, sorted(left_out)))
        said.append(f"The methods were run with different seeds; only those that all have are compared (not {seeds}).")
    if len({tuple(arm.finals) for arm in found}) > 1:
        said.append("The methods share no seed: their differences cannot be paired.")
    for arm in found:
        seen = [run.seed for run in arm.runs]
        if len(set(seen)) < len(seen):
            said.append(f"{arm.label} holds several runs of one seed; the first of each is compared.")
    return said + [told for run in runs for told in (_ended_badly(run), _collapsed(run)) if told]


def _ended_badly(run: Run) -> str | None:
    if run.status == "finished" and run.facts.get("score") is None:
        return f"{run.folder.name}: finished without a score ({_why(run)})."
    if run.status != "finished":
        return f"{run.folder.name}: {run.status}{f' ({run.reason})' if run.reason else ''}."
    return None


def _collapsed(run: Run) -> str | None:
    if run.collapsed is None:
        return None
    return f"{run.folder.name}: collapsed by {run.collapsed:,} images; its generator makes nearly the same of every z."


def _why(run: Run) -> str:
    reasons = [row[key] for row in run.rows if (key := f"{run.metric}_why") in row]
    return reasons[-1] if reasons else "no reason given"
