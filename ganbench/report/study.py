"""A sweep, loaded and compared once; tables, figures and pages are made from it."""

import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from ganbench.errors import plural
from ganbench.report import tuning
from ganbench.report.comparability import NotComparable, check_comparable, machine_differences
from ganbench.report.compare import (
    Comparison,
    Method,
    ScoreCurve,
    compare_all,
    group_by_method,
    method_differences,
    on_shared_seeds,
    score_curve,
    verdict,
)
from ganbench.report.cost import Timing, load_timing, runs_at_once, what_is_timed
from ganbench.report.load import BY_DATASET, Run, load_runs
from ganbench.runs.status import planned_runs

SHOWN = 3  # names in a note
TRACKS = {"paper": "each method with its authors' settings", "tuned": "each method with the best of {} random trials"}
MANY_RUNS = 60  # from one more on, what has a line, a dot or a row for each run has one for each method
METHODS_IN_DETAIL = 12  # of so many runs, the methods that have figures of their own
MANY_NOTES = 10
UNFINISHED = ("interrupted", "running", "failed", "unreadable", "never begun")  # "running": or killed with its sweep
# What the held-out data of a table may have chosen, by protocol.
DISCLOSURES = {
    "equal": "; its defaults were chosen by scores on the held-out digits of mnist5k",
    "equal-stacked": "; lr, betas and batch as in equal, where scores on mnist5k chose them",
    "equal-2d": "; lr and betas as in equal, where scores on mnist5k chose them",
}


@dataclass(frozen=True)
class Study:
    """A sweep. `methods` are the best first, at the seeds that all of them have; `runs` are all folders."""

    folder: Path  # where its pages are
    runs: list[Run]
    methods: list[Method]
    comparisons: list[Comparison]
    notes: list[str]  # what a reader must know before believing the rest
    timing: Timing | None = None  # if the methods were timed alone
    sweep: Path | None = None  # where the runs are, if they are a part of a sweep: those of one dataset

    @property
    def config(self) -> dict[str, Any]:
        """Return the configuration of one run, for what is the same in all."""
        return self.methods[0].runs[0].config

    @property
    def dataset(self) -> str:
        return self.config["dataset"]["name"]

    @property
    def metric(self) -> str:
        return self.config["metric"]["name"]

    @cached_property
    def real_scores(self) -> dict[str, Any]:
        """Return the real-data reference of every score."""
        return next((run.real_reference for run in self.compared_runs if run.real_reference), {})

    @property
    def real_reference(self) -> float | None:
        return self.real_scores.get(self.metric)

    @cached_property
    def metric_protocol(self) -> str | None:
        """Return how the score is taken, in a sentence; None where that is not declared."""
        return next((run.metric_protocol for run in self.compared_runs if run.metric_protocol), None)

    @property
    def real_data(self) -> str:
        """Name the real data of the reference: those that samples are not compared with."""
        return "held-out" if self.config["metric"].get("reference") == "train" else "training"

    @property
    def track(self) -> str:
        """Say which settings the methods have."""
        protocol = self.config["protocol"]
        shared = "one setting for all methods" + DISCLOSURES.get(protocol["name"], "")
        return TRACKS.get(protocol.get("track"), shared).format(protocol.get("trials"))

    @property
    def title(self) -> str:
        return f"{plural(len(self.methods), 'GAN method')} on {self.dataset}"

    @property
    def subtitle(self) -> str:
        protocol = self.config["protocol"]
        return (
            f"{self.dataset} · {self.config['model']['name']} · {plural(len(self.runs), 'run')} · "
            f"{protocol['images']:,} real images a run · protocol {protocol['name']} ({self.track})"
        )

    @property
    def seeds(self) -> list[int]:
        """Return the seeds that all methods have."""
        return sorted(set.intersection(*(set(method.finals) for method in self.methods)))

    @property
    def has_many_runs(self) -> bool:
        """Return whether there are too many runs to show each."""
        return len(self.runs) > MANY_RUNS

    @property
    def methods_in_detail(self) -> list[Method]:
        """Return the methods that have figures and samples of their own: all, or the best of many."""
        return self.methods[:METHODS_IN_DETAIL] if self.has_many_runs else self.methods

    @property
    def is_2d(self) -> bool:
        """Return whether the data are points rather than images."""
        return len(self.config["dataset"].get("shape", [])) == 1

    @cached_property
    def vs_best(self) -> dict[str, Comparison]:
        """Return the comparison with the best method, by label, of each method with the same seeds."""
        best = self.methods[0]
        return {each.worse.label: each for each in self.comparisons if each.better is best}

    def is_among_best(self, method: Method) -> bool:
        """Return whether a method has a score and is the best, or not significantly worse than the best."""
        comparison = self.vs_best.get(method.label)
        is_worse = comparison is not None and comparison.significant
        return math.isfinite(method.iqm) and not is_worse

    @cached_property
    def verdict(self) -> list[str]:
        return verdict(self.methods, self.metric, self.comparisons, self.seconds)

    @property
    def seconds(self) -> dict[str, float]:
        """Return the training seconds of a run, by label: measured alone if they were, or as the runs took."""
        return self.timing.seconds if self.timing else {method.label: method.seconds for method in self.methods}

    @cached_property
    def cost_note(self) -> str:
        """Say how the seconds were measured."""
        shared = runs_at_once(self.runs)
        while_running = f", while on average {shared:.1f} runs of this sweep shared the machine" if shared else ""
        of_runs = f"Seconds and images/s: training of finished runs, without evaluation{while_running}."
        if self.timing:
            return f"{of_runs} Seconds alone: {self.timing}{self._timed_otherwise(self.timing)}."
        if self.sweep:
            return of_runs
        return (
            f"{of_runs} For a cost to quote, measure the methods alone: python -m ganbench.report {self.folder} --time."
        )

    def _timed_otherwise(self, timing: Timing) -> str:
        """Name the methods that were timed with other code or settings than those of their runs."""
        others = []
        for method in self.methods:
            run = method.finished[0] if method.finished else method.runs[0]
            codes = (run.footing.get(part, {}).get("code") for part in ("equal", "method"))
            if timing.timed.get(method.label) not in (None, what_is_timed(run.method, *codes)):
                others.append(method.label)
        return f"; {', '.join(others)} with other code or settings than here, so measure again" if others else ""

    @property
    def codes(self) -> set[str]:
        """Return the digests of the code that the runs share; more than one only if that was allowed."""
        return {run.footing["equal"]["code"] for run in self.compared_runs if "code" in run.footing.get("equal", {})}

    @cached_property
    def score_curves(self) -> dict[str, ScoreCurve]:
        return {method.label: score_curve(method, self.metric) for method in self.methods}

    @cached_property
    def settings(self) -> list[tuple[str, dict[str, Any]]]:
        """Return (label, values) of the settings that differ other than loss and penalty; empty if none does."""
        values = method_differences(self.methods)
        labels = [method.label for method in self.methods]
        return list(zip(labels, values, strict=True)) if values[0] else []

    @cached_property
    def trials(self) -> dict[str, list[Run]]:
        """Return the runs that each method's settings were chosen from; empty without a search."""
        return tuning.trials(self.sweep, self.dataset) if self.sweep else tuning.trials(self.folder)

    @property
    def compared_runs(self) -> list[Run]:
        return [run for method in self.methods for run in method.runs]

    @property
    def all_trials(self) -> list[Run]:
        return [run for runs in self.trials.values() for run in runs]

    @cached_property
    def search_tables(self) -> list[tuple[str, list[list[str]]]]:
        """Return (caption, rows) of the search's tables; empty without a search."""
        return tuning.tables(self.trials)

    @cached_property
    def color_index(self) -> dict[str, int]:
        """Number the colors by label: alphabetically, so that a method keeps its color from page to page."""
        return {label: i for i, label in enumerate(sorted(method.label for method in self.methods))}


def load_study(folder: Path, allowed: tuple[str, ...] = ()) -> Study:
    """Load and compare a sweep.

    Raise NotComparable for runs whose footing differs, except in the fields `allowed`, which are noted on the page;
    and FileNotFoundError if no run can be compared.
    """
    return _compare(folder, load_runs(folder), allowed)


def load_datasets(folder: Path, allowed: tuple[str, ...] = ()) -> tuple[list[Study], list[str]]:
    """Load and compare a sweep: one study for each of its datasets. Return also what the studies do not say.

    Raise like `load_study`, for several datasets only if none has a run that can be compared.
    """
    runs = load_runs(folder)
    names = sorted({run.dataset for run in runs if run.dataset})
    if len(names) < 2:
        return [_compare(folder, runs, allowed)], []
    studies = []
    for name in names:
        of_dataset = [run for run in runs if run.dataset == name]
        with suppress(FileNotFoundError):  # then the sentence on the whole sweep counts its runs
            studies.append(_compare_dataset(folder, name, of_dataset, allowed))
    if not studies:
        raise FileNotFoundError(_nothing_to_compare(folder, runs))
    unreadable = [_abnormal_end(run) for run in runs if run.dataset is None]
    return studies, _incomplete(folder, runs) + [note for note in unreadable if note]


def _compare_dataset(sweep: Path, name: str, runs: list[Run], allowed: tuple[str, ...]) -> Study:
    try:
        return replace(_compare(sweep / BY_DATASET / name, runs, allowed), sweep=sweep)
    except NotComparable as error:
        raise NotComparable(f"{name}: {error}") from None


def _compare(folder: Path, runs: list[Run], allowed: tuple[str, ...]) -> Study:
    all_seeds = group_by_method(runs)
    if not all_seeds:
        raise FileNotFoundError(_nothing_to_compare(folder, runs))
    marks = [
        f"Compared despite a difference in footing (--allow-mismatch {mismatch.field}): {mismatch}."
        for mismatch in check_comparable(runs, allowed)
    ]
    methods, left_out = on_shared_seeds(all_seeds)
    notes = _incomplete(folder, runs) + marks + _notes(runs, methods, left_out)
    return Study(folder, runs, methods, compare_all(methods), notes, load_timing(folder))


def _nothing_to_compare(folder: Path, runs: list[Run]) -> str:
    missing = _missing(folder, runs)
    if missing:
        return (
            f"{folder} has no run to compare ({_counts(missing)}). Wait for runs under way, or rerun the same command, "
            "with retry=true if runs failed."
        )
    return (
        f"{folder} has no run to compare. Pass the folder of a sweep, such as outputs/sweep/mine, in "
        "which at least one run finished or diverged."
    )


def values_at_end(method: Method, pick: Callable[[dict[str, Any]], Any]) -> tuple[list[Any], int]:
    """Pick something from the last evaluation of each finished run; return what there is, and how many finished."""
    rows = [run.last_evaluation for run in method.runs if run.status == "finished"]
    values = [pick(row) for row in rows]
    return [value for value in values if value is not None], len(rows)


def mean_at_end(method: Method, name: str) -> float | None:
    values, _ = values_at_end(method, lambda row: row.get(name))
    return fmean(values) if values else None


def _notes(runs: list[Run], methods: list[Method], left_out: set[int]) -> list[str]:
    """Say what a reader must know before believing the table."""
    notes = [f"{mismatch}." for mismatch in machine_differences(runs)]
    if left_out:
        seeds = shortened([str(seed) for seed in sorted(left_out)])
        notes.append(f"The methods have different seeds; only those that all have are compared (left out: {seeds}).")
    if len({tuple(method.finals) for method in methods}) > 1:
        notes.append(
            "No seed is shared by all methods, so only those with the same seeds are compared with each other."
        )
    notes += _data_notes(runs)
    notes += _extension_note(runs)
    for method in methods:
        if len(method.finals) < len(method.runs):
            notes.append(f"{method.label} has several runs of one seed; the first of each is compared.")
    of_runs = [note for run in runs for note in (_abnormal_end(run), _collapse(run)) if note]
    if len(runs) > MANY_RUNS and len(of_runs) > MANY_NOTES:
        rest = len(of_runs) - MANY_NOTES
        of_runs[MANY_NOTES:] = [f"{rest} more of such notes on single runs: results.csv has how each run ended."]
    return notes + of_runs


def shortened(names: list[str]) -> str:
    """List names; of many only the first and how many more there are."""
    if len(names) <= MANY_RUNS:
        return ", ".join(names)
    return f"{', '.join(names[:MANY_NOTES])} and {len(names) - MANY_NOTES} more"


def _extension_note(runs: list[Run]) -> list[str]:
    """Say how many runs went on after their first end: they were evaluated there once more than others."""
    extended = [run for run in runs if run.facts.get("extended")]
    if not extended:
        return []
    verb = "run was" if len(extended) == 1 else "runs were"
    return [f"{len(extended)} {verb} extended to a larger budget, and evaluated where they ended before, too."]


def _data_notes(runs: list[Run]) -> list[str]:
    """Say what was found in a folder of images, if it bears on the scores."""
    data: dict[str, Any] = next((run.facts["data"] for run in runs if isinstance(run.facts.get("data"), dict)), {})
    notes = []
    if data.get("copies"):
        notes.append(f"{data['copies']:,} of {data['held_out']:,} held-out images are copies of training images.")
    if data.get("left_out"):
        counts = ", ".join(f"{n:,} {what}" for what, n in sorted(data["left_out"].items()))
        notes.append(f"Of the folder of images were left out: {counts}.")
    if unreadable := data.get("unreadable"):
        names = ", ".join(unreadable[:SHOWN])
        more = f" and {len(unreadable) - SHOWN:,} more, which status.json names" if len(unreadable) > SHOWN else ""
        notes.append(f"Images that cannot be read: {names}{more}.")
    return notes


def _missing(folder: Path, runs: list[Run]) -> dict[str, int]:
    """Count the runs that say nothing of their method, by how they ended."""
    counts = Counter(run.status for run in runs)
    counts["never begun"] = len(planned_runs(folder) - {run.folder.name for run in runs})
    return {status: counts[status] for status in UNFINISHED if counts[status]}


def _incomplete(folder: Path, runs: list[Run]) -> list[str]:
    """Say first that the sweep is not complete, since all else may follow from that."""
    missing = _missing(folder, runs)
    if not missing:
        return []
    return [
        f"{sum(missing.values())} of {plural(len(runs) + missing.get('never begun', 0), 'run')} did not finish "
        f"({_counts(missing)}), and are left out: rerun the same command to complete the sweep, with retry=true if "
        "runs failed."
    ]


def _counts(missing: dict[str, int]) -> str:
    return ", ".join(f"{n} {status}" for status, n in missing.items())


def _abnormal_end(run: Run) -> str | None:
    if run.status == "finished" and run.facts.get("score") is None:
        return f"{run.folder.name}: finished without a score ({_reason_for_no_score(run)})."
    if run.status != "finished":
        return f"{run.folder.name}: {run.status}{f' ({run.reason})' if run.reason else ''}."
    return None


def _collapse(run: Run) -> str | None:
    if run.collapsed is None:
        return None
    return f"{run.folder.name}: mode collapse at {run.collapsed:,} images (nearly the same sample from every latent)."


def _reason_for_no_score(run: Run) -> str:
    key = f"{run.metric}_why"
    reasons = [row[key] for row in run.rows if key in row]
    return reasons[-1] if reasons else "no reason given"
