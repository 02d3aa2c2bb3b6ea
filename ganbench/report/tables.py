"""The tables of results, other scores, pairs and runs, as cells, Markdown and CSV."""

import csv
import io
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ganbench.errors import plural
from ganbench.report.compare import Comparison, Method
from ganbench.report.load import Run
from ganbench.report.statistics import MAX_SEEDS, center_name, proportion_interval
from ganbench.report.study import MANY_RUNS, Study, values_at_end
from ganbench.report.tuning import MISSING

HEADERS = (
    "method",
    "seeds",
    "IQM",
    "95 % interval",
    "gap to best",
    "p",
    "worse seeds",
    "seconds",
    "images/s",
    "best checkpoint",
    "final score per seed",
)
PAIR_HEADERS = (
    "better",
    "worse",
    "gap",
    "95 % interval",
    "p",
    "wins",
    "95 % CI of win rate",
    "correlation",
    "min. detectable difference",
    "seeds to show this gap",
    "significant",
)
POWER_HEADERS = (
    "pair",
    "seeds",
    "std of the difference",
    "correlation",
    "gap measured",
    "gap to show",
    "seeds needed",
)
POWER_LEGEND = (
    "Seeds needed to show the gap in 80 % of reports with {pairs}, by the rule that decides, if scores "
    "are normal, and the standard deviation and the correlation over seeds as measured. Both are rough from few seeds."
)
RUN_HEADERS = ("folder", "method", "seed", "status", "final", "best checkpoint", "seconds", "images/s")
CSV_FIELDS = (
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
    "metric_protocol",
)
RESULT_FIELDS = (
    "method",
    "metric",
    "seeds",
    "iqm",
    "iqm_low",
    "iqm_high",
    "gap",
    "gap_low",
    "gap_high",
    "p",
    "worse_seeds",
    "among_best",
    "seconds_alone",
    "seconds",
    "images_per_second",
    "best_checkpoint",
    "metric_protocol",
)
LEGEND = (
    "Lower is better. IQM: interquartile mean over seeds of the final score (of three seeds the median), which decides "
    "the order. Gap to best: difference of IQMs, with its 95 % interval. p: Yuen's test of the gap (of wins, by the "
    "exact sign test, where too many runs have no score), Holm-corrected for all pairs of methods; intervals are not "
    "corrected. Best checkpoint is chosen in hindsight and is optimistic."
)


class Cell(NamedTuple):
    """What a cell shows, and what it sorts by: a number, None where one is missing, or its text. Pages show it in bold
    or with a link.
    """

    text: str
    value: float | str | None
    bold: bool = False
    link: str | None = None

    def __str__(self) -> str:
        return self.text


def format_number(value: float | None) -> str:
    """Format with three significant digits, without an exponent where people would not write one."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def format_interval(interval: tuple[float, float]) -> str:
    return f"{format_number(interval[0])} to {format_number(interval[1])}"


def text_cell(text: str) -> Cell:
    return Cell(text, text)


def number_cell(value: float | None, text: str | None = None) -> Cell:
    """Show a number, as `text` if there is one; what is not finite counts as missing."""
    is_finite = value is not None and math.isfinite(value)
    return Cell(format_number(value) if text is None else text, value if is_finite else None)


def interval_cell(interval: tuple[float, float] | None) -> Cell:
    """Show an interval; sorts by its lower end."""
    return Cell(MISSING, None) if interval is None else Cell(format_interval(interval), interval[0])


def headers(study: Study) -> list[str]:
    """Return the headers of the table of results; the third names what the number is of so few seeds."""
    n = max(len(method.scores) for method in study.methods)
    names = [center_name(n) if header == "IQM" else header for header in HEADERS]
    if study.timing:
        names.insert(names.index("seconds"), "seconds alone")
    return names


def results(study: Study) -> list[list[Cell]]:
    """Return a row per method, the best first, under HEADERS."""
    return [_result(study, method) for method in study.methods]


def _result(study: Study, method: Method) -> list[Cell]:
    alone = [number_cell(study.timing.seconds.get(method.label))] if study.timing else []
    return [
        text_cell(method.label),
        number_cell(len(method.finals)),
        number_cell(method.iqm)._replace(bold=study.is_among_best(method)),
        interval_cell(method.interval),
        *_gap_to_best(study.vs_best.get(method.label)),
        *alone,
        number_cell(method.seconds),
        number_cell(method.speed),
        number_cell(method.best),
        Cell(", ".join(map(_final_or_status, method.runs)), min(method.finite_scores, default=None)),
    ]


def _final_or_status(run: Run) -> str:
    if math.isfinite(run.final):
        return format_number(run.final)
    return "no score" if run.status == "finished" else run.status


def _gap_to_best(comparison: Comparison | None) -> list[Cell]:
    """Return the gap, its p, and at how many seeds the method is worse."""
    if comparison is None:
        return [Cell("", None)] * 3
    difference = comparison.difference
    gap = format_number(difference.gap)
    if difference.interval:
        gap += f" ({format_interval(difference.interval)})"
    wins = difference.win_rate * difference.n
    return [number_cell(difference.gap, gap), number_cell(comparison.shown_p), number_cell(wins, _wins(comparison))]


def _wins(comparison: Comparison) -> str:
    """Say at how many seeds the better method wins; ties count half."""
    n = comparison.difference.n
    return f"{comparison.difference.win_rate * n:g} of {n}"


def pairs(study: Study) -> list[list[Cell]]:
    """Return a row per pair of methods, under PAIR_HEADERS."""
    return [_pair(comparison, len(study.comparisons)) for comparison in study.comparisons]


def _pair(comparison: Comparison, n_pairs: int) -> list[Cell]:
    difference = comparison.difference
    low, high = proportion_interval(difference.win_rate, difference.n)
    return [
        text_cell(comparison.better.label),
        text_cell(comparison.worse.label),
        number_cell(difference.gap),
        interval_cell(difference.interval),
        number_cell(comparison.shown_p),
        number_cell(difference.win_rate, _wins(comparison)),
        number_cell(low, f"{low:.0%} to {high:.0%}"),
        number_cell(difference.correlation),
        number_cell(comparison.minimum_detectable_difference(n_pairs)),
        seeds_cell(comparison, difference.gap, n_pairs),
        text_cell("yes" if comparison.significant else "no"),
    ]


def seeds_cell(comparison: Comparison, gap: float | None, n_pairs: int) -> Cell:
    """Show how many seeds would show a gap in 80 % of reports."""
    seeds = None if gap is None else comparison.seeds_needed(gap, n_pairs)
    if seeds is None and gap and comparison.difference.std:
        return Cell(f"> {MAX_SEEDS:,}", MAX_SEEDS + 1)
    return number_cell(seeds)


def power(study: Study, gap: float | None) -> str:
    """Tell how many seeds each pair would need to show this gap, or, without one, the gap that was measured."""
    rows: list[list] = [list(POWER_HEADERS)]
    for comparison in study.comparisons:
        difference = comparison.difference
        wanted = difference.gap if gap is None else gap
        rows.append(
            [
                f"{comparison.better.label} vs. {comparison.worse.label}",
                str(difference.n),
                format_number(difference.std),
                format_number(difference.correlation),
                format_number(difference.gap),
                format_number(wanted),
                seeds_cell(comparison, wanted, len(study.comparisons)),
            ]
        )
    legend = POWER_LEGEND.format(pairs=plural(len(study.comparisons), "compared pair"))
    return markdown_table(rows) + f"\n{legend}\n"


def other_metrics(study: Study) -> list[str]:
    """List the other scores with a real-data reference; not lists or the reasons for a missing score."""
    reference = study.real_scores
    single = [name for name, value in reference.items() if not isinstance(value, list) and not name.endswith("_why")]
    return [name for name in single if name != study.metric]


def other_scores(study: Study) -> list[list[Cell]]:
    """Return a row per method with its mean of each other score at the end, then one of real data; empty if none."""
    names = other_metrics(study)
    if not names:
        return []
    rows = [[text_cell(method.label), *(_mean_at_end(method, name) for name in names)] for method in study.methods]
    real = [text_cell("real data"), *(number_cell(study.real_scores[name]) for name in names)]
    return [*rows, real]


def _mean_at_end(method: Method, name: str) -> Cell:
    """Show the mean over finished runs, and how many have the score, if not all."""
    values, finished = values_at_end(method, lambda row: row.get(name))
    if not values:
        return Cell(MISSING, None)
    mean = sum(values) / len(values)
    count = f" ({len(values)} of {finished})" if len(values) < finished else ""
    return number_cell(mean, format_number(mean) + count)


def run_headers(study: Study) -> list[str]:
    """Return the headers of the table of runs; the last is there if W&B has a page of any."""
    return [*RUN_HEADERS, *(["W&B"] if _any_at_wandb(study) else [])]


def _any_at_wandb(study: Study) -> bool:
    return any(run.wandb_url for run in study.runs)


def all_runs(study: Study) -> list[list[Cell]]:
    """Return a row per run folder, under `run_headers`, with links from the study's page."""
    return _rows(study, study.runs)


def unfinished_runs(study: Study) -> list[list[Cell]]:
    """Return such rows of the first runs that have not finished, as many as a page has room for."""
    return _rows(study, [run for run in study.runs if run.status != "finished"][:MANY_RUNS])


def _rows(study: Study, runs: list[Run]) -> list[list[Cell]]:
    with_wandb = _any_at_wandb(study)
    return [_run(run, study.folder) + [_wandb_cell(run)] * with_wandb for run in runs]


def _wandb_cell(run: Run) -> Cell:
    return Cell("page", "page", link=run.wandb_url) if run.wandb_url else Cell(MISSING, MISSING)


def _run(run: Run, page_folder: Path) -> list[Cell]:
    path = Path(os.path.relpath(run.folder, page_folder)).as_posix()
    return [
        text_cell(run.folder.name)._replace(link=quote(f"{path}/")),
        text_cell(run.label or MISSING),
        number_cell(run.seed, MISSING if run.seed is None else str(run.seed)),
        text_cell(_status_and_reason(run)),
        *(number_cell(value) for value in (run.final, run.best, run.seconds, run.speed)),
    ]


def _status_and_reason(run: Run) -> str:
    status = f"{run.status}, collapsed" if run.collapsed is not None else run.status
    return f"{status}: {run.reason}" if run.reason else status


def markdown_table(rows: list[list]) -> str:
    """Format rows, the first of which is the header."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def markdown(study: Study) -> str:
    """Return the text of results.md."""
    notes = [f"- {note}" for note in study.notes]
    parts = ["\n".join([f"# {study.title}", "", study.subtitle, "", *study.verdict, "", *notes, ""])]
    rows: list[list] = [headers(study), *results(study)]
    if study.has_many_runs:
        rows = [row[:-1] for row in rows]  # without the score of every seed, which results.csv has
    parts += [f"{markdown_table(rows)}\n{_caption(study)}{LEGEND} {study.cost_note}\n"]
    if scores := other_scores(study):
        table = markdown_table([["method", *other_metrics(study)], *scores])
        parts.append(f"Other scores at the end, mean over seeds:\n\n{table}")
    parts += [f"{caption}\n\n{markdown_table(rows)}" for caption, rows in study.search_tables]
    return "\n".join(parts)


def _caption(study: Study) -> str:
    """Say how the score is taken, where that is declared, and what real data score."""
    protocol = f"{study.metric_protocol}. " if study.metric_protocol else ""
    reference = study.real_reference
    real = "" if reference is None else f"Real {study.real_data} data score {format_number(reference)}. "
    return protocol + real


def csv_of_runs(runs: list[Run]) -> str:
    """Return the text of results.csv: a row per run."""
    rows = []
    for run in runs:
        numbers = (run.final, run.best, run.facts.get("images"), run.seconds, run.speed)
        known = [run.folder.name, run.label, run.seed, run.status, run.metric]
        rows.append([*known, *map(_exact, numbers), run.reason or "", run.metric_protocol or ""])
    return _csv(CSV_FIELDS, rows)


def csv_of_results(study: Study) -> str:
    """Return the table of results as CSV, with limits of intervals in columns of their own; real data come last."""
    rows = [_csv_result(study, method) for method in study.methods]
    if study.real_reference is not None:
        row: list[object] = ["real data", study.metric, "", _exact(study.real_reference)]
        rows.append(row + [""] * (len(RESULT_FIELDS) - len(row) - 1) + [study.metric_protocol or ""])
    return _csv(RESULT_FIELDS, rows)


def _csv_result(study: Study, method: Method) -> list[object]:
    return [
        method.label,
        study.metric,
        len(method.finals),
        _exact(method.iqm),
        *map(_exact, method.interval or (None, None)),
        *_csv_gap(study.vs_best.get(method.label)),
        "yes" if study.is_among_best(method) else "no",
        _exact(study.timing.seconds.get(method.label) if study.timing else None),
        *map(_exact, (method.seconds, method.speed, method.best)),
        study.metric_protocol or "",
    ]


def _csv_gap(comparison: Comparison | None) -> list[str]:
    """Return the gap to the best method, its interval, its p, and at how many seeds the method is worse."""
    if comparison is None:
        return [""] * 5
    difference = comparison.difference
    low, high = difference.interval or (None, None)
    worse_seeds = difference.win_rate * difference.n
    return [_exact(value) for value in (difference.gap, low, high, comparison.shown_p, worse_seeds)]


def _exact(value: float | None) -> str:
    return f"{value:.10g}" if value is not None and math.isfinite(value) else ""


def _csv(fields: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows(rows)
    return text.getvalue()
