"""Figures of scores: at the end, through training, and of methods against each other."""

import math
import textwrap
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ganbench.report import tuning
from ganbench.report.compare import Comparison, Method
from ganbench.report.figures.svg import (
    CARD,
    METHOD,
    SOFT,
    Figure,
    color,
    drawn_for,
    inf_as_nan,
    line_style,
    log_or_symlog,
    reference_line,
    short_numbers,
)
from ganbench.report.statistics import performance_profile, rank_probabilities
from ganbench.report.study import Study

COSTS = {"images": "real images seen", "steps": "generator updates", "t_train": "training seconds"}


MIDDLE = (0.1, 0.9)  # the quantiles of seeds that a band or a line spans where there are too many to show each
LEVELS = 400  # of a performance profile, at most


class Line(NamedTuple):
    """A method's line in a figure of dots: a dot for each seed, their center and its interval."""

    label: str
    color_index: int
    dots: list[float]
    center: float
    interval: tuple[float, float] | None


def finals(study: Study) -> Figure:
    """Draw final scores: every seed a dot, the interquartile mean a bar, its interval a line."""
    centers = ", ".join(f"{m.label} {m.iqm:.3g}" if math.isfinite(m.iqm) else f"{m.label} none" for m in study.methods)
    lines = [Line(m.label, study.color_index[m.label], m.finite_scores, m.iqm, m.interval) for m in study.methods]

    def draw(axes: Axes) -> None:
        _draw_lines(axes, lines, study.has_many_runs)
        reference_line(axes, study.real_reference, vertical=True)
        axes.set_xlabel(f"{study.metric} at the end (lower is better)")

    title = f"Final {study.metric}" if study.has_many_runs else f"Final {study.metric} of every seed"
    return Figure("finals", title, f"Interquartile means: {centers}.", draw, 5.2, 0.8 + 0.4 * len(lines))


def gaps_to_best(study: Study) -> Figure | None:
    """Draw how much worse each method is than the best at the same seeds; None where no gap has a mean."""
    best = study.methods[0]
    lines = []
    for label, comparison in study.vs_best.items():
        difference = comparison.difference
        if difference.gap is not None:
            dots = _gap_by_seed(comparison)
            lines.append(Line(label, study.color_index[label], dots, difference.gap, difference.interval))
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=SOFT, lw=1)
        _draw_lines(axes, lines, study.has_many_runs)
        axes.set_xlabel(f"{study.metric} minus that of {best.label}")

    centers = ", ".join(f"{line.label} {line.center:.3g}" for line in lines)
    title = f"Gap to {best.label} at the same seed"
    return Figure("differences", title, f"Gaps: {centers}.", draw, height=0.9 + 0.4 * len(lines))


def _gap_by_seed(comparison: Comparison) -> list[float]:
    gaps = []
    for seed in comparison.seeds:
        better, worse = comparison.better.finals[seed], comparison.worse.finals[seed]
        gaps.append(worse - better if worse != better else 0.0)  # two runs without a score are equal
    return gaps


def _draw_lines(axes: Axes, lines: list[Line], of_many: bool) -> None:
    for y, line in enumerate(lines):
        with drawn_for(line.label, axes):
            _draw_line(axes, line, y, of_many)
    axes.set_yticks(range(len(lines)), [textwrap.fill(line.label, 20) for line in lines])
    for text, line in zip(axes.get_yticklabels(), lines, strict=True):
        text.set_gid(METHOD + line.label)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def _draw_line(axes: Axes, line: Line, y: int, of_many: bool) -> None:
    """Draw the seeds as dots, or of many a thin line over those in the middle; then their center and its interval."""
    line_color = color(line.color_index)
    if line.interval:
        axes.plot(line.interval, [y, y], color=line_color, lw=2, alpha=0.55)
    if math.isfinite(line.center):
        axes.plot([line.center], [y], "|", ms=20, mew=2.5, color=line_color)
    dots = [dot for dot in line.dots if math.isfinite(dot)]
    if of_many and dots:
        axes.plot(np.quantile(dots, MIDDLE), [y, y], color=line_color, lw=0.8)
        return
    axes.plot(line.dots, [y] * len(line.dots), "o", ms=5.5, color=line_color, mec=CARD, mew=0.8, alpha=0.9)


def scores(study: Study) -> dict[str, Figure]:
    """Draw the score against each kind of cost: thin lines are seeds, thick ones IQMs, bands their intervals."""
    return {axis: _score_vs_cost(study, axis) for axis in COSTS}


def _score_vs_cost(study: Study, axis: str) -> Figure:
    def draw(axes: Axes) -> None:
        for method in study.methods:
            with drawn_for(method.label, axes):
                _draw_score_curves(axes, study, method, axis)
        reference_line(axes, study.real_reference)
        log_or_symlog(axes, [score for method in study.methods for run in method.runs for score in run.scores])
        axes.set_xlabel(COSTS[axis])
        axes.set_ylabel(f"{study.metric} (lower is better)")
        short_numbers(axes)

    seeds = "a band for the middle 80 % of the seeds" if study.has_many_runs else "a thin line per seed"
    description = f"A curve for each of {_labels(study.methods)}, with its 95 % interval and {seeds}."
    return Figure(f"scores-{axis}", f"{study.metric} vs. {COSTS[axis]}", description, draw, 5.2, 3.5)


def _draw_score_curves(axes: Axes, study: Study, method: Method, axis: str) -> None:
    index = study.color_index[method.label]
    curve = study.score_curves[method.label]
    if not study.has_many_runs:
        for run in method.runs:
            axes.plot(*run.curve(study.metric, axis), color=color(index), lw=0.7, alpha=0.4)
    x = [np.mean([run.cost(images, axis) for run in method.runs if images in run.clock]) for images in curve.images]
    axes.fill_between(x, curve.low, curve.high, color=color(index), alpha=0.15, lw=0)
    if study.has_many_runs:
        low, high = middle_of_seeds(method, study.metric, curve.images)
        axes.fill_between(x, low, high, color=color(index), alpha=0.1, lw=0)
    axes.plot(x, inf_as_nan(curve.iqm), color=color(index), lw=2.2, ls=line_style(index), label=method.label)


def middle_of_seeds(method: Method, metric: str, points: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return between which scores the middle four fifths of the seeds that have one are, at each evaluation."""
    curves = [run.series(metric) for run in method.runs]
    scores = [[each[images] for each in curves if math.isfinite(each.get(images, math.inf))] for images in points]
    quantiles = [np.quantile(each, MIDDLE) if each else (math.nan, math.nan) for each in scores]
    low, high = np.array(quantiles).reshape(len(points), 2).T  # of a method without any score there are no points
    return low, high


def profile(study: Study) -> Figure:
    """Draw the performance profile: the share of runs that end at or below each score."""
    finals_by_method = {method.label: method.scores for method in study.methods}
    title = f"Share of runs that end at or below each {study.metric}"
    return performance_profiles("profile", title, study.metric, finals_by_method, study.color_index)


def performance_profiles(
    name: str, title: str, x_label: str, scores: dict[str, list[float]], color_index: dict[str, int]
) -> Figure:
    """Draw a step line per method; a run without a score never counts."""
    levels = np.unique([score for each in scores.values() for score in each if math.isfinite(score)])
    if len(levels) > LEVELS:
        levels = np.quantile(levels, np.linspace(0, 1, LEVELS))

    def draw(axes: Axes) -> None:
        if len(levels):
            margin = 0.05 * np.ptp(levels) or 0.05 * abs(levels[0]) or 1.0
            x = np.array([levels[0] - margin, *levels, levels[-1] + margin])
            for label, each in scores.items():
                index = color_index[label]
                y = performance_profile(each, x)
                with drawn_for(label, axes):
                    axes.step(x, y, where="post", color=color(index), lw=1.8, ls=line_style(index), label=label)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(x_label)
        axes.set_ylabel("share of runs")

    description = f"A step line for each of {_labels(scores)}; higher and further left is better."
    return Figure(name, title, description, draw)


def expected_best(study: Study) -> Figure | None:
    """Draw the expected best score of 1, 2, 4, … of a search's trials; None without a search."""
    if not study.trials:
        return None

    def draw(axes: Axes) -> None:
        for label, curve in tuning.expected_best_curves(study.trials).items():
            known = {n: score for n, score in curve.items() if score is not None}
            index = study.color_index.get(label, len(study.color_index))
            style = line_style(index)
            with drawn_for(label, axes):
                (line,) = axes.plot(list(known), list(known.values()), color=color(index), lw=1.8, ls=style)
            line.set(marker="o", markersize=4, label=label)
        axes.set_xlabel("random trials")
        axes.set_ylabel(f"{study.metric}, expected best")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))

    title = "Expected best score by number of trials"
    return Figure("expected-best", title, f"A curve for each of {_labels(study.trials)}.", draw)


def _labels(methods: Iterable[Method | str]) -> str:
    return ", ".join(method if isinstance(method, str) else method.label for method in methods)


def win_rates(study: Study) -> list[list[float | None]]:
    """Return the share of seeds at which the row's method beats the column's; None for pairs without a common seed."""
    rates: dict[tuple[str, str], float] = {}
    for comparison in study.comparisons:
        better, worse = comparison.better.label, comparison.worse.label
        rates[better, worse] = comparison.difference.win_rate
        rates[worse, better] = 1 - comparison.difference.win_rate
    labels = [method.label for method in study.methods]
    return [[rates.get((row, column)) for column in labels] for row in labels]


def ranks(methods: list[Method]) -> list[list[float]] | None:
    """Return each method's probability of each rank; None where the methods do not have the same seeds."""
    if len({tuple(method.finals) for method in methods}) != 1:
        return None
    return rank_probabilities(np.array([method.scores for method in methods])).tolist()
