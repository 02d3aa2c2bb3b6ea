"""The trials that a method's settings were chosen from, and how good a choice from fewer would have been."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ganbench.report.load import TRIALS, Run, load_runs


def trials(folder: Path) -> dict[str, list[Run]]:
    """By method, in order; nothing for a sweep without a search. Methods of one name have that of their folders."""
    if not (folder / TRIALS).is_dir():
        return {}
    found: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(load_runs(folder / TRIALS), key=lambda run: run.folder.name):
        found[run.folder.name.rpartition("-")[0]].append(run)
    labels = [runs[0].label for runs in found.values()]
    if len(set(labels)) < len(labels) or "" in labels:
        return dict(found)
    return dict(zip(labels, found.values(), strict=True))


def best(runs: list[Run]) -> Run | None:
    """The trial with the lowest score, the first of equals."""
    first = min(runs, key=lambda run: (run.final, run.folder.name))
    return first if math.isfinite(first.final) else None


def expected_best(scores: Iterable[float]) -> dict[int, float | None]:
    """By number of trials 1, 2, 4, … and all: the mean, over every choice of so many of these, of the lowest score.

    A trial without a score counts as inf. None where some choice holds no score at all: there is no mean then, and
    that of the other choices would flatter.
    """
    ordered = sorted(scores)
    n = len(ordered)
    budgets = [2**k for k in range(n.bit_length()) if 2**k < n] + [n] * (n > 0)
    return {budget: _expected(ordered, budget) for budget in budgets}


def _expected(ordered: list[float], budget: int) -> float | None:
    """The i-th lowest is the lowest of a choice if the others come from those after it."""
    n = len(ordered)
    ways = [math.comb(n - 1 - i, budget - 1) for i in range(n)]
    if any(way and math.isinf(score) for way, score in zip(ways, ordered, strict=True)):
        return None
    return sum(way * score for way, score in zip(ways, ordered, strict=True) if way) / math.comb(n, budget)


def tables(methods: dict[str, list[Run]]) -> list[tuple[str, list[list[str]]]]:
    """Of a search, tables of heads and rows, each with a sentence that says what it is."""
    if not methods:
        return []
    return [
        ("What differs between the methods beside loss and penalty:", chosen(methods)),
        (
            "Random trials, the same for every method, scored on a part of the training data that they did not train "
            "on; the best of each method, in bold, was run again:",
            table_of_trials(methods),
        ),
        ("The best score to be expected of so many of these trials (– where there may be none):", budgets(methods)),
    ]


def chosen(methods: dict[str, list[Run]]) -> list[list[str]]:
    """A row for each method: its best trial and that one's settings."""
    searched = searched_settings(methods)
    rows = [
        [method, *(_settings(first, searched) if (first := best(runs)) else ["–"])] for method, runs in methods.items()
    ]
    return [["method", "trial", *searched], *([*row, *[""] * (len(searched) + 2 - len(row))] for row in rows)]


def table_of_trials(methods: dict[str, list[Run]]) -> list[list[str]]:
    """A row for each trial: its settings, and what each method made of them."""
    rows: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    searched = searched_settings(methods)
    for method, runs in methods.items():
        for run in runs:
            rows[_settings(run, searched)][method] = _cell(run, run is best(runs))
    heads = ["trial", *searched, *methods]
    return [heads, *([*told, *(cells.get(m, "") for m in methods)] for told, cells in sorted(rows.items()))]


def searched_settings(methods: dict[str, list[Run]]) -> list[str]:
    """Settings of the protocol that are not the same in all trials."""
    protocols = [run.config["protocol"] for runs in methods.values() for run in runs if run.config]
    keys = ("lr", "betas", "n_critic", "penalty_weight")
    return [key for key in keys if len({json.dumps(protocol[key]) for protocol in protocols}) > 1]


def _settings(run: Run, searched: list[str]) -> tuple[str, ...]:
    if not run.config:
        return run.folder.name.rpartition("-")[2], *("unknown" for _ in searched)
    protocol = run.config["protocol"]
    return protocol["trial"], *(json.dumps(protocol[key]) for key in searched)


def _cell(run: Run, marked: bool) -> str:
    if not math.isfinite(run.final):
        return "no score" if run.status == "finished" else run.status
    return f"**{run.final:.3g}**" if marked else f"{run.final:.3g}"


def budget_curves(methods: dict[str, list[Run]]) -> dict[str, dict[int, float | None]]:
    """By method, the best score to be expected of each number of trials."""
    return {method: expected_best(run.final for run in runs) for method, runs in methods.items()}


def budgets(methods: dict[str, list[Run]]) -> list[list[str]]:
    """A row for each method, a column for each number of trials."""
    curves = budget_curves(methods)
    columns = sorted({budget for curve in curves.values() for budget in curve})
    rows = [[method, *(_told(curve.get(budget)) for budget in columns)] for method, curve in curves.items()]
    return [["method", *(f"{n} trial{'s' * (n > 1)}" for n in columns)], *rows]


def _told(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
