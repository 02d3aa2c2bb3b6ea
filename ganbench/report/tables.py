"""The tables: of results, of other scores, of all runs, as text and as CSV."""

import csv
import io
import math
from typing import NamedTuple

from ganbench.report.compare import Comparison, Method
from ganbench.report.load import Run
from ganbench.report.statistics import proportion_interval
from ganbench.report.study import Study, values_at_end

HEADERS = (
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
PAIR_HEADERS = (
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


def format_number(value: float | None) -> str:
    """Three significant digits, without an exponent where people would not write one."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def text_cell(text: str) -> Cell:
    return Cell(text, text)


def number_cell(value: float | None, text: str | None = None) -> Cell:
    """A number, said as `text` if given; what is not finite counts as missing."""
    fine = value is not None and math.isfinite(value)
    return Cell(format_number(value) if text is None else text, value if fine else None)


def format_interval(interval: tuple[float, float]) -> str:
    return f"{format_number(interval[0])} to {format_number(interval[1])}"


def results(study: Study) -> list[list[Cell]]:
    """A row for each arm, the best first, under HEADS."""
    return [_result(arm, study.against_first.get(arm.label)) for arm in study.arms]


def _result(arm: Method, against: Comparison | None) -> list[Cell]:
    each = [
        format_number(r.final) if math.isfinite(r.final) else r.status.replace("finished", "no score") for r in arm.runs
    ]
    around = Cell(format_interval(arm.interval), arm.interval[0]) if arm.interval else Cell("–", None)
    score = [text_cell(arm.label), number_cell(len(arm.runs)), number_cell(arm.iqm), around]
    cost = [number_cell(arm.seconds), number_cell(arm.speed), number_cell(arm.best)]
    return [*score, *_behind(against), *cost, Cell(", ".join(each), min(arm.finished, default=None))]


def _behind(against: Comparison | None) -> list[Cell]:
    """By how much, how surely, and at how many seeds."""
    if against is None:
        return [Cell("", None)] * 3
    gap, around = against.paired.mean, against.paired.interval
    seeds = against.paired.wins * against.paired.n
    told = format_number(gap) + (f" ({format_interval(around)})" if around else "")
    return [number_cell(gap, told), number_cell(against.p), number_cell(seeds, f"{seeds:g} of {against.paired.n}")]


def pairs(study: Study) -> list[list[Cell]]:
    """A row for every pair of methods, under PAIR_HEADS."""
    return [_pair(c, len(study.pairs)) for c in study.pairs]


def _pair(c: Comparison, pairs: int) -> list[Cell]:
    found = c.paired
    chance = proportion_interval(found.wins, found.n)
    return [
        text_cell(c.first.label),
        text_cell(c.second.label),
        number_cell(found.mean),
        Cell(format_interval(found.interval), found.interval[0]) if found.interval else Cell("–", None),
        number_cell(c.p),
        number_cell(found.wins, f"{found.wins * found.n:g} of {found.n}"),
        number_cell(chance[0], f"{chance[0]:.0%} to {chance[1]:.0%}"),
        number_cell(found.correlation),
        number_cell(c.detectable(pairs) if found.n > 1 else None),
        text_cell("yes" if c.shown else "no"),
    ]


def side_metrics(study: Study) -> list[str]:
    """The names of what else the metric measured: numbers only, not lists or the reasons for a missing one."""
    single = [name for name, value in study.real.items() if not isinstance(value, list) and not name.endswith("_why")]
    return [name for name in single if name != study.metric]


def side_scores(study: Study) -> list[list[Cell]]:
    """Each arm's mean of these over its finished runs at the end; last what real data get. Empty if there are none."""
    names = side_metrics(study)
    rows = [[text_cell(arm.label), *(_mean_end(arm, name) for name in names)] for arm in study.arms]
    real = [text_cell("real data"), *(number_cell(study.real[name]) for name in names)]
    return [*rows, real] if names else []


def _mean_end(arm: Method, name: str) -> Cell:
    """And how many runs have it, if not all."""
    ends, of = values_at_end(arm, lambda row: row.get(name))
    if not ends:
        return Cell("–", None)
    mean = sum(ends) / len(ends)
    return number_cell(mean, format_number(mean) + (f" ({len(ends)} of {of})" if len(ends) < of else ""))


def all_runs(study: Study) -> list[list[Cell]]:
    """A row for each folder: its name, how it ended, final and best score, seconds and speed."""
    return [
        [
            text_cell(run.folder.name),
            text_cell(run.label or "–"),
            number_cell(run.seed, str(run.seed)),
            text_cell(_ending(run)),
        ]
        + [number_cell(value) for value in (run.final, run.best, run.seconds, run.speed)]
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
    heads = ["method", *side_metrics(study)]
    more = f"\nOther scores at the end, mean over seeds:\n\n{markdown_table([heads, *beside])}" if beside else ""
    search = "".join(f"\n{said}\n\n{markdown_table(rows)}" for said, rows in study.searched)
    return "\n".join(lines) + "\n" + markdown_table([list(HEADERS), *results(study)]) + more + search


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
