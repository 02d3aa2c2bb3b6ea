"""Methods and their statistics, compared pair by pair. Lower scores are better."""

import itertools
import json
import math
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, NamedTuple

from ganbench.errors import plural
from ganbench.report.load import Run
from ganbench.report.statistics import (
    ALPHA,
    MIN_SEEDS_FOR_INTERVAL,
    PairedDifference,
    center_name,
    holm,
    iqm,
    iqm_interval,
    is_significant,
    min_seeds_for_significance,
    minimum_detectable_difference,
    paired_difference,
    seeds_needed,
)

COUNTED = ("finished", "diverged")  # other runs were cut short, and say nothing of their method


@dataclass
class Method:
    """All runs that differ only in their seed."""

    label: str
    runs: list[Run]

    @cached_property
    def finals(self) -> dict[int, float]:
        """Return final scores by seed; of two runs with one seed, which the page warns about, the first's."""
        finals: dict[int, float] = {}
        for run in self.runs:
            assert run.seed is not None  # only unreadable runs have none, and they belong to no method
            finals.setdefault(run.seed, run.final)
        return dict(sorted(finals.items()))

    @property
    def scores(self) -> list[float]:
        """Return final scores by seed; a run without one counts as inf, the worst."""
        return list(self.finals.values())

    @property
    def finite_scores(self) -> list[float]:
        return [score for score in self.scores if math.isfinite(score)]

    @property
    def iqm(self) -> float:
        return float(iqm(self.scores))

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        return iqm_interval(self.scores)

    @property
    def sort_key(self) -> tuple[float, int, float]:
        """Sort by interquartile mean; where that is infinite, by how many runs have a score, then by their mean."""
        return self.iqm, -len(self.finite_scores), fmean(self.finite_scores or [math.inf])

    @property
    def best(self) -> float:
        """Return the mean over seeds of the best checkpoint's score: optimistic, because chosen in hindsight."""
        return fmean(run.best for run in self.runs)

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.status == "finished"]

    @property
    def seconds(self) -> float:
        """Return the mean training time of a whole budget; nan if no run finished."""
        return fmean(run.seconds for run in self.finished) if self.finished else math.nan

    @property
    def speed(self) -> float:
        """Return the mean of real images per second of training, of the same runs."""
        return fmean(run.speed for run in self.finished) if self.finished else math.nan


def group_by_method(runs: list[Run]) -> list[Method]:
    """Group runs that finished or diverged, the best method first.

    Methods with the same loss and penalty get the settings that differ between them in their label.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.status in COUNTED:
            groups.setdefault(run.method, []).append(run)
    methods = [Method(group[0].label, group) for group in groups.values()]
    for label in {method.label for method in methods}:
        _distinguish([method for method in methods if method.label == label])
    return sorted(methods, key=lambda method: method.sort_key)


def _distinguish(namesakes: list[Method]) -> None:
    """Add to the labels of methods of one name what differs between them."""
    if len(namesakes) == 1:
        return
    settings = differences([method.runs[0].settings for method in namesakes])
    for method, values in zip(namesakes, settings, strict=True):
        method.label += " (" + ", ".join(f"{key}={value}" for key, value in values.items()) + ")"


def differences(settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each of several nested settings, the values that are not the same in all of them.

    Of keys that copy one another (`optimizer.lr`, `optimizer.critic.lr`) only the least nested is returned.
    """
    flat = [_flatten(each) for each in settings]
    keys = sorted(set().union(*flat), key=lambda key: (key.count("."), len(key), key))
    shortest: dict[tuple[str, ...], str] = {}  # by the values of a key in all settings
    for key in keys:
        values = tuple(json.dumps(each.get(key)) for each in flat)
        if len(set(values)) > 1:
            shortest.setdefault(values, key)
    differing = sorted(shortest.values())
    return [{key: each.get(key) for key in differing} for each in flat]


def method_differences(methods: list[Method]) -> list[dict[str, Any]]:
    """Return, for each method, the settings other than loss and penalty that differ between methods."""
    settings = [dict(method.runs[0].settings) for method in methods]
    for each in settings:
        each.pop("loss", None)
        each.pop("penalty", None)
    return differences(settings)


def _flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn {a: {b: 1}} into {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def on_shared_seeds(methods: list[Method]) -> tuple[list[Method], set[int]]:
    """Keep only the seeds that all methods have, and return the seeds left out; change nothing if none is shared."""
    seeds = [set(method.finals) for method in methods]
    shared = set.intersection(*seeds)
    left_out = set.union(*seeds) - shared
    if not shared or not left_out:
        return methods, set()
    cut = [Method(method.label, [run for run in method.runs if run.seed in shared]) for method in methods]
    return sorted(cut, key=lambda method: method.sort_key), left_out


class Comparison(NamedTuple):
    """Two methods at the same seeds; `better` has the lower interquartile mean, which need not be significant."""

    better: Method
    worse: Method
    difference: PairedDifference
    p: float  # corrected for the number of pairs

    @property
    def seeds(self) -> list[int]:
        return list(self.better.finals)

    def minimum_detectable_difference(self, pairs: int) -> float | None:
        """Return the smallest gap that these seeds show in 80 % of reports, among so many pairs."""
        difference = self.difference
        if not difference.std:
            return None
        return minimum_detectable_difference(difference.std, difference.correlation, difference.n, ALPHA / pairs)

    def seeds_needed(self, gap: float, pairs: int) -> int | None:
        """Return how many seeds would show this gap in 80 % of reports, among so many pairs; None if too many."""
        difference = self.difference
        if not difference.std or gap <= 0:
            return None
        return seeds_needed(gap, difference.std, difference.correlation, pairs)

    @property
    def shown_p(self) -> float | None:
        """Return p; None if there are too few seeds for the test."""
        return self.p if self.difference.n >= MIN_SEEDS_FOR_INTERVAL else None

    @property
    def significant(self) -> bool:
        """Return whether `better` may be called better, by the rule that report/README.md states."""
        return is_significant(self.p, self.difference.tested, self.difference.win_rate)


def compare_all(methods: list[Method]) -> list[Comparison]:
    """Compare every pair of methods with the same seeds; p is Holm-corrected over all of them.

    At only a part of a method's seeds the gap would be one between other numbers than those that rank.
    """
    pairs = [(a, b) for a, b in itertools.combinations(methods, 2) if list(a.finals) == list(b.finals)]
    results = [paired_difference(a.scores, b.scores) for a, b in pairs]
    corrected = holm([result.p for result in results])
    return [Comparison(a, b, result, p) for (a, b), result, p in zip(pairs, results, corrected, strict=True)]


class ScoreCurve(NamedTuple):
    """A method's scores through training: inf where too few seeds have one, nan where there is no interval."""

    images: list[int]
    iqm: list[float]
    low: list[float]
    high: list[float]


def score_curve(method: Method, metric: str) -> ScoreCurve:
    """Return interquartile mean and interval at each evaluation; a run that had ended by then counts as worst."""
    curves = [run.series(metric) for run in method.runs]
    curve = ScoreCurve([], [], [], [])
    for images in sorted(set().union(*curves)):
        scores = [each.get(images, math.inf) for each in curves]
        low, high = iqm_interval(scores) or (math.nan, math.nan)
        curve.images.append(images)
        curve.iqm.append(float(iqm(scores)))
        curve.low.append(low)
        curve.high.append(high)
    return curve


def verdict(methods: list[Method], metric: str, comparisons: list[Comparison], seconds: dict[str, float]) -> list[str]:
    """Say in sentences what the scores show, by fixed rules.

    `methods` are the best first, `seconds` those of a run by the method's label.
    """
    scored = [method for method in methods if method.finite_scores]
    if len(scored) < 2:
        if not scored:
            return ["No method has a final score, so nothing can be compared: see how the runs ended under All runs."]
        return [f"There is nothing to compare: only {scored[0].label} has a final score."]
    best = methods[0]
    with_best = [comparison for comparison in comparisons if comparison.better is best]
    return [
        _ranking(best, methods[1], metric),
        *_significant(with_best, len(comparisons)),
        *_undecided(best, with_best, len(comparisons)),
        *_cost(best, seconds),
    ]


def _ranking(best: Method, second: Method, metric: str) -> str:
    if not math.isfinite(best.iqm):
        runs = plural(len(best.finite_scores), "run")
        return f"No method has enough runs with a final {metric}; {best.label} ranks first, with {runs}."
    interval = f" (95 % interval {best.interval[0]:.3g} to {best.interval[1]:.3g})" if best.interval else ""
    runner_up = f"{second.iqm:.3g}" if math.isfinite(second.iqm) else "too few runs with a score"
    return (
        f"{best.label} has the lowest final {metric}: {_a_center(len(best.scores))} of {best.iqm:.3g}{interval}, "
        f"followed by {second.label} ({runner_up})."
    )


def _a_center(n: int) -> str:
    """Say what the number that ranks is, of so many seeds."""
    if n == 1:
        return "a score (one seed)"
    name = "an interquartile mean (IQM)" if center_name(n) == "IQM" else f"a {center_name(n)}"
    return f"{name} over {n} seeds"


def _significant(with_best: list[Comparison], pairs: int) -> list[str]:
    """Say which methods the best is significantly better than, or why that cannot be said."""
    if not with_best:
        return ["No other method has the same seeds as the best one, so no difference can be significant."]
    seeds = min(comparison.difference.n for comparison in with_best)
    needed = min_seeds_for_significance(pairs)
    if seeds < needed:
        return [
            f"With {plural(seeds, 'seed')} this is a hint, not a result: {plural(pairs, 'comparison')} "
            f"{'needs' if pairs == 1 else 'need'} {needed} seeds or more before a difference, however large, can be "
            "significant."
        ]
    beaten = [comparison for comparison in with_best if comparison.significant]
    if not beaten:
        return []
    names = ", ".join(comparison.worse.label for comparison in beaten)
    rates = [comparison.difference.win_rate for comparison in beaten]
    wins = f"{min(rates) * seeds:g} of {seeds} seeds" + (" or more" if max(rates) > min(rates) else "")
    return [
        f"It is significantly better than {names}: it wins at {wins}, and p < {ALPHA}, Holm-corrected for "
        f"{plural(pairs, 'comparison')}."
    ]


def _undecided(best: Method, with_best: list[Comparison], pairs: int) -> list[str]:
    """Say how large a difference would have been detected where none was: no evidence is not evidence of none."""
    entries = []
    for comparison in with_best:
        if not comparison.significant and comparison.difference.n >= min_seeds_for_significance(pairs):
            detectable = comparison.minimum_detectable_difference(pairs)
            entries.append(f"{comparison.worse.label} ({'unknown' if detectable is None else f'{detectable:.2g}'})")
    if not entries:
        return []
    return [
        f"No significant difference between {best.label} and {', '.join(entries)}; in parentheses, the minimum "
        "detectable difference: the true gap that as many seeds would show in 80 % of reports, if scores are normal."
    ]


def _cost(best: Method, seconds: dict[str, float]) -> list[str]:
    known = {label: value for label, value in seconds.items() if math.isfinite(value)}
    if not known:
        return []
    fastest = min(known, key=known.__getitem__)
    slowest = max(known, key=known.__getitem__)
    low, high = _seconds(known[fastest]), _seconds(known[slowest])
    if low == high:
        return [f"Training takes {low} a run with every method, without evaluation."]
    is_between = best.label in known and best.label not in (fastest, slowest)
    of_best = f"; {best.label} takes {_seconds(known[best.label])}" if is_between else ""
    return [f"Training takes {low} ({fastest}) to {high} ({slowest}) a run, without evaluation{of_best}."]


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"
