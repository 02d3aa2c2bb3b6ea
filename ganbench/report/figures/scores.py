"""Figures of scores: at the end, through training, and of methods against each other."""

import math
import textwrap
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from ganbench.report import tuning
from ganbench.report.compare import Method
from ganbench.report.figures.svg import (
    CARD,
    SOFT,
    Figure,
    color,
    finite,
    log_where_it_can,
    reference_line,
    short_numbers,
    stroke,
)
from ganbench.report.statistics import performance_profile, rank_probabilities
from ganbench.report.study import Study

COSTS = {"images": "real images seen", "steps": "generator steps", "t_train": "training seconds"}


class Line(NamedTuple):
    """An arm's place in a figure of one line each: a dot for each seed, its centre and the interval around it."""

    label: str
    tint: int
    dots: list[float]
    centre: float
    interval: tuple[float, float] | None


def finals(study: Study) -> Figure:
    """Final scores: every seed a dot, the interquartile mean a bar, its interval a line."""
    ends = (f"{arm.label} {arm.iqm:.3g}" if math.isfinite(arm.iqm) else f"{arm.label} none" for arm in study.arms)
    words = "Interquartile means: " + ", ".join(ends) + "."
    panel = Figure("finals", f"Final {study.metric}, every seed a dot", words)
    lines = [Line(a.label, study.tints[a.label], a.finished, a.iqm, a.interval) for a in study.arms]
    with panel.draw(5.2, 0.8 + 0.4 * len(lines)) as axes:
        _in_lines(axes, lines)
        reference_line(axes, study.real_reference, vertical=True)
        axes.set_xlabel(f"{study.metric} at the end (lower is better)")
    return panel


def differences(study: Study) -> Figure | None:
    """How far each arm is behind the first at the same seeds; None where no difference has a mean."""
    first, lines = study.arms[0], []
    for label, c in study.against_first.items():
        if c.paired.mean is not None:
            ends = [(c.first.finals[seed], c.second.finals[seed]) for seed in c.seeds]
            each = [b - a if a != b else 0.0 for a, b in ends]  # two runs without a score are alike
            lines.append(Line(label, study.tints[label], each, c.paired.mean, c.paired.interval))
    if not lines:
        return None
    words = "Means: " + ", ".join(f"{line.label} {line.centre:.3g}" for line in lines) + "."
    panel = Figure("differences", f"Behind {first.label} at the same seed", words)
    with panel.draw(4.6, 0.9 + 0.4 * len(lines)) as axes:
        axes.axvline(0, color=SOFT, lw=1)
        _in_lines(axes, lines)
        axes.set_xlabel(f"{study.metric} above that of {first.label}")
    return panel


def _in_lines(axes: Axes, lines: list[Line]) -> None:
    for y, line in enumerate(lines):
        tint = color(line.tint)
        if line.interval:
            axes.plot(line.interval, [y, y], color=tint, lw=2, alpha=0.55)
        if math.isfinite(line.centre):
            axes.plot([line.centre], [y], "|", ms=20, mew=2.5, color=tint)
        axes.plot(line.dots, [y] * len(line.dots), "o", ms=5.5, color=tint, mec=CARD, mew=0.8, alpha=0.9)
    axes.set_yticks(range(len(lines)), [textwrap.fill(line.label, 20) for line in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def scores(study: Study) -> dict[str, Figure]:
    """Score against each kind of cost: thin lines are seeds, thick ones the interquartile mean with its interval."""
    return {along: _scores(study, along) for along in COSTS}


def _scores(study: Study, along: str) -> Figure:
    words = f"One curve for each of {_listed(study.arms)}, with a band for its 95 % interval and a thin line a seed."
    panel = Figure(f"scores-{along}", f"{study.metric} against {COSTS[along]}", words)
    with panel.draw(5.2, 3.5) as axes:
        for arm in study.arms:
            _score_curves(axes, study, arm, along)
        reference_line(axes, study.real_reference)
        log_where_it_can(axes, [y for arm in study.arms for run in arm.runs for y in run.scores])
        axes.set_xlabel(COSTS[along])
        axes.set_ylabel(f"{study.metric} (lower is better)")
        short_numbers(axes)
    return panel


def _score_curves(axes: Axes, study: Study, arm: Method, along: str) -> None:
    tint, course = study.tints[arm.label], study.courses[arm.label]
    for run in arm.runs:
        axes.plot(*run.curve(study.metric, along), color=color(tint), lw=0.7, alpha=0.4)
    x = [np.mean([run.cost(n, along) for run in arm.runs if n in run.clock]) for n in course.images]
    axes.fill_between(x, course.low, course.high, color=color(tint), alpha=0.15, lw=0)
    axes.plot(x, finite(course.middle), color=color(tint), lw=2.2, ls=stroke(tint))


def shares(study: Study) -> Figure:
    """The performance profile: the share of runs that ended at or below each score."""
    ends = {arm.label: arm.scores for arm in study.arms}
    return profiles(
        "profile", f"Share of runs that end at or below each {study.metric}", study.metric, ends, study.tints
    )


def profiles(name: str, title: str, along: str, ends: dict[str, list[float]], tints: dict[str, int]) -> Figure:
    """One step line for each method; a run without a score never counts."""
    levels = np.unique([value for each in ends.values() for value in each if math.isfinite(value)])
    panel = Figure(name, title, f"One step line for each of {_listed(ends)}; the higher and further left, the better.")
    with panel.draw() as axes:
        if len(levels):
            margin = 0.05 * np.ptp(levels) or 0.05 * abs(levels[0]) or 1.0
            x = np.array([levels[0] - margin, *levels, levels[-1] + margin])
            for label, each in ends.items():
                tint = tints[label]
                axes.step(x, performance_profile(each, x), where="post", color=color(tint), lw=1.8, ls=stroke(tint))
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(along)
        axes.set_ylabel("share of runs")
    return panel


def budgets(study: Study) -> Figure | None:
    """The best score to be expected of 1, 2, 4, … of a search's trials, by method; None without a search."""
    if not study.trials:
        return None
    panel = Figure("budgets", "The best of so many trials", f"One curve for each of {_listed(study.trials)}.")
    with panel.draw() as axes:
        for label, curve in tuning.budget_curves(study.trials).items():
            known = {n: score for n, score in curve.items() if score is not None}
            tint = study.tints.get(label, len(study.tints))
            axes.plot(known.keys(), known.values(), marker="o", ms=4, color=color(tint), lw=1.8, ls=stroke(tint))
        axes.set_xlabel("random trials")
        axes.set_ylabel(f"{study.metric}, expected best")
        axes.xaxis.get_major_locator().set_params(integer=True)
    return panel


def _listed(arms: Iterable[Method | str]) -> str:
    return ", ".join(arm if isinstance(arm, str) else arm.label for arm in arms)


def wins(study: Study) -> list[list[float | None]]:
    """The share of seeds at which the row's method is ahead of the column's, ties half; None for pairs without one."""
    share = {(c.first.label, c.second.label): c.paired.wins for c in study.pairs}
    share |= {(b, a): 1 - w for (a, b), w in share.items()}
    return [[share.get((a.label, b.label)) for b in study.arms] for a in study.arms]


def ranks(arms: list[Method]) -> list[list[float]] | None:
    """For each arm the chance of each rank over resampled seeds; None where the arms have not the same seeds."""
    if len({tuple(arm.finals) for arm in arms}) != 1:
        return None
    return rank_probabilities(np.array([arm.scores for arm in arms])).tolist()
