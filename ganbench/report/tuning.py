"""The trials that a method's settings were chosen from, and how good the best of fewer trials would have been."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ganbench.report.load import TRIALS, Run, load_runs

MISSING = "–"
SEARCHABLE = ("lr", "betas", "n_critic", "penalty_weight")


def trials(folder: Path, dataset: str | None = None) -> dict[str, list[Run]]:
    """Load a sweep's trials by method, in order, or only those on one dataset; empty without a search.

    Methods that share a name are named by their folders.
    """
    if not (folder / TRIALS).is_dir():
        return {}
    by_folder: dict[str, list[Run]] = defaultdict(list)
    runs = [run for run in load_runs(folder / TRIALS) if dataset in (None, run.dataset)]
    for run in sorted(runs, key=lambda run: run.folder.name):
        by_folder[run.folder.name.rpartition("-")[0]].append(run)
    labels = [runs[0].label for runs in by_folder.values()]
    if len(set(labels)) < len(labels) or "" in labels:
        return dict(by_folder)
    return dict(zip(labels, by_folder.values(), strict=True))


def best_trial(runs: list[Run]) -> Run | None:
    """Return the trial with the lowest score, the first of equals; None if none has a score."""
    best = min(runs, key=lambda run: (run.final, run.folder.name))
    return best if math.isfinite(best.final) else None


def expected_best(scores: Iterable[float]) -> dict[int, float | None]:
    """Return the expected lowest score of 1, 2, 4, … and all trials: its mean over every subset of that size.

    A trial without a score counts as inf. None where some subset has no score at all: the mean over the others would
    be too optimistic.
    """
    ordered = sorted(scores)
    n = len(ordered)
    sizes = [2**k for k in range(n.bit_length()) if 2**k < n]
    if n > 0:
        sizes.append(n)
    return {size: _expected_minimum(ordered, size) for size in sizes}


def _expected_minimum(ordered: list[float], size: int) -> float | None:
    """Average the minimum over all subsets: the i-th lowest is the minimum if the others come from those after it."""
    n = len(ordered)
    total = 0.0
    for i, score in enumerate(ordered):
        subsets = math.comb(n - 1 - i, size - 1)
        if subsets and math.isinf(score):
            return None
        if subsets:
            total += subsets * score
    return total / math.comb(n, size)


def tables(methods: dict[str, list[Run]]) -> list[tuple[str, list[list[str]]]]:
    """Return (caption, rows) of a search's tables; the first of the rows is the header."""
    if not methods:
        return []
    return [
        ("The chosen trial of each method, with the settings that were searched:", chosen(methods)),
        (
            "Random trials, the same for every method, scored on a part of the training data that is not trained on; "
            "the best of each method, in bold, was run again:",
            table_of_trials(methods),
        ),
        (f"Expected best score by number of trials ({MISSING} where it does not exist):", expected_best_table(methods)),
    ]


def chosen(methods: dict[str, list[Run]]) -> list[list[str]]:
    """Return a row per method: its best trial and that trial's settings."""
    keys = searched_settings(methods)
    rows = [["method", "trial", *keys]]
    for method, runs in methods.items():
        best = best_trial(runs)
        settings = _settings(best, keys) if best else (MISSING, *("" for _ in keys))
        rows.append([method, *settings])
    return rows


def table_of_trials(methods: dict[str, list[Run]]) -> list[list[str]]:
    """Return a row per trial: its settings, and each method's score with them."""
    keys = searched_settings(methods)
    scores: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)  # by settings, then method
    for method, runs in methods.items():
        best = best_trial(runs)
        for run in runs:
            scores[_settings(run, keys)][method] = _score(run, in_bold=run is best)
    rows = [["trial", *keys, *methods]]
    for settings, by_method in sorted(scores.items()):
        rows.append([*settings, *(by_method.get(method, "") for method in methods)])
    return rows


def searched_settings(methods: dict[str, list[Run]]) -> list[str]:
    """List the settings that are not the same in all trials."""
    protocols = [run.config["protocol"] for runs in methods.values() for run in runs if run.config]
    return [key for key in SEARCHABLE if len({json.dumps(protocol[key]) for protocol in protocols}) > 1]


def _settings(run: Run, keys: list[str]) -> tuple[str, ...]:
    """Return the trial's number and its value of each key."""
    if not run.config:
        return run.folder.name.rpartition("-")[2], *("unknown" for _ in keys)
    protocol = run.config["protocol"]
    return protocol["trial"], *(json.dumps(protocol[key]) for key in keys)


def _score(run: Run, in_bold: bool) -> str:
    if not math.isfinite(run.final):
        return "no score" if run.status == "finished" else run.status
    return f"**{run.final:.3g}**" if in_bold else f"{run.final:.3g}"


def expected_best_curves(methods: dict[str, list[Run]]) -> dict[str, dict[int, float | None]]:
    """Return each method's expected best score by number of trials."""
    return {method: expected_best(run.final for run in runs) for method, runs in methods.items()}


def expected_best_table(methods: dict[str, list[Run]]) -> list[list[str]]:
    """Return a row per method and a column per number of trials."""
    curves = expected_best_curves(methods)
    sizes = sorted({size for curve in curves.values() for size in curve})
    rows = [["method", *(f"{n} trial{'s' if n > 1 else ''}" for n in sizes)]]
    for method, curve in curves.items():
        values = [curve.get(size) for size in sizes]
        rows.append([method, *(MISSING if value is None else f"{value:.3g}" for value in values)])
    return rows
