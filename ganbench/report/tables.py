"""The tables: of results, of other scores, of all runs, as text and as CSV."""

import csv
import io
import math
from typing import NamedTuple

from ganbench.report.compare import Arm, Comparison
from ganbench.report.read import Run
from ganbench.report.statistics import share_interval
from ganbench.report.study import Study, at_end

HEADS = (
    "method",
    "seeds",
    "IQM",
    "95 % interval",
    "behind the first",
    "p",
    "seeds behind",
    "seconds",
    "images/s",
    "best on the way",
    "final, each seed",
)
PAIR_HEADS = (
    "ahead",
    "behind",
    "by",
    "95 % interval",
    "p",
    "at seeds",
    "chance of it",
    "correlation",
    "could be seen",
    "shown",
)
FIELDS = (
    "folder",
    "method",
    "seed",
    "status",
    "metric",
    "final",
    "best",
    "images",
    "seconds",
    "images_per_second",
    "reason",
)  # fmt: skip


class Cell(NamedTuple):
    """What a cell says and what it sorts by: a number; None where one is missing; its text where it has none."""

    text: str
    value: float | str | None

    def __str__(self) -> str:
        return self.text


def number(value: float | None) -> str:
    """Three significant digits, without an exponent where people would not write one."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def words(text: str) -> Cell:
    return Cell(text, text)


def amount(value: float | None, text: str | None = None) -> Cell:
    """A number, said as `text` if given; what is not finite counts as missing."""
    fine = value is not None and math.isfinite(value)
    return Cell(number(value) if text is None else text, value if fine else None)


def span(interval: tuple[float, float]) -> str:
    return f"{number(interval[0])} to {number(interval[1])}"


def results(study: Study) -> list[list[Cell]]:
    """A row for each arm, the best first, under HEADS."""
    return [_result(arm, study.against_first.get(arm.label)) for arm in study.arms]


def _result(arm: Arm, against: Comparison | None) -> list[Cell]:
    each = [number(r.final) if math.isfinite(r.final) else r.status.replace("finished", "no score") for r in arm.runs]
    around = Cell(span(arm.interval), arm.interval[0]) if arm.interval else Cell("–", None)
    score = [words(arm.label), amount(len(arm.runs)), amount(arm.iqm), around]
    cost = [amount(arm.seconds), amount(arm.speed), amount(arm.best)]
    return [*score, *_behind(against), *cost, Cell(", ".join(each), min(arm.finished, default=None))]


def _behind(against: Comparison | None) -> list[Cell]:
    """By how much, how surely, and at how many seeds."""
    if against is None:
        return [Cell("", None)] * 3
    gap, around = against.paired.mean, against.paired.interval
    seeds = against.paired.wins * against.paired.n
    told = number(gap) + (f" ({span(around)})" if around else "")
    return [amount(gap, told), amount(against.p), amount(seeds, f"{seeds:g} of {against.paired.n}")]


def pairs(study: Study) -> list[list[Cell]]:
    """A row for every pair of methods, under PAIR_HEADS."""
    return [_pair(c, len(study.pairs)) for c in study.pairs]


def _pair(c: Comparison, pairs: int) -> list[Cell]:
    found = c.paired
    chance = share_interval(found.wins, found.n)
    return [
        words(c.first.label),
        words(c.second.label),
        amount(found.mean),
        Cell(span(found.interval), found.interval[0]) if found.interval else Cell("–", None),
        amount(c.p),
        amount(found.wins, f"{found.wins * found.n:g} of {found.n}"),
        amount(chance[0], f"{chance[0]:.0%} to {chance[1]:.0%}"),
        amount(found.correlation),
        amount(c.detectable(pairs) if found.n > 1 else None),
        words("yes" if c.shown else "no"),
    ]


def sides(study: Study) -> list[str]:
    """The names of what else the metric measured: numbers only, not lists or the reasons for a missing one."""
    single = [name for name, value in study.real.items() if not isinstance(value, list) and not name.endswith("_why")]
    return [name for name in single if name != study.metric]


def side_scores(study: Study) -> list[list[Cell]]:
    """Each arm's mean of these over its finished runs at the end; last what real data get. Empty if there are none."""
    names = sides(study)
    rows = [[words(arm.label), *(_mean_end(arm, name) for name in names)] for arm in study.arms]
    real = [words("real data"), *(amount(study.real[name]) for name in names)]
    return [*rows, real] if names else []


def _mean_end(arm: Arm, name: str) -> Cell:
    """And how many runs have it, if not all."""
    ends, of = at_end(arm, lambda row: row.get(name))
    if not ends:
        return Cell("–", None)
    mean = sum(ends) / len(ends)
    return amount(mean, number(mean) + (f" ({len(ends)} of {of})" if len(ends) < of else ""))


def all_runs(study: Study) -> list[list[Cell]]:
    """A row for each folder: its name, how it ended, final and best score, seconds and speed."""
    return [
        [words(run.folder.name), words(run.label or "–"), amount(run.seed, str(run.seed)), words(_ending(run))]
        + [amount(value) for value in (run.final, run.best, run.seconds, run.speed)]
        for run in study.runs
    ]


def _ending(run: Run) -> str:
    how = f"{run.status}, collapsed" if run.collapsed is not None else run.status
    return f"{how}: {run.reason}" if run.reason else how


def markdown_table(rows: list[list]) -> str:
    """The first row is the head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def markdown(study: Study) -> str:
    """The text of results.md."""
    lines = [f"# {study.title}", "", study.subtitle, "", *study.verdict, "", *(f"- {note}" for note in study.notes), ""]
    beside = side_scores(study)
    heads = ["method", *sides(study)]
    more = f"\nOther scores at the end, mean over seeds:\n\n{markdown_table([heads, *beside])}" if beside else ""
    search = "".join(f"\n{said}\n\n{markdown_table(rows)}" for said, rows in study.searched)
    return "\n".join(lines) + "\n" + markdown_table([list(HEADS), *results(study)]) + more + search


def csv_of_runs(runs: list[Run]) -> str:
    """One row a run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for run in runs:
        cells = (run.final, run.best, run.facts.get("images", math.nan), run.seconds, run.speed)
        writer.writerow(
            [run.folder.name, run.label, run.seed, run.status, run.metric]
            + [f"{value:.10g}" if math.isfinite(value) else "" for value in cells]
            + [run.reason or ""]
        )
    return out.getvalue()
