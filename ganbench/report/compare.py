"""Arms and their statistics. Lower scores are better."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, NamedTuple

from ganbench.report.load import INCIDENTAL, Run
from ganbench.report.statistics import Paired, bca_interval, holm, iqm, minimum_detectable_difference, paired

LEVEL = 0.05
# The share of seeds at which the better one must be ahead, beside the test. With 3/4, of differences of one standard
# deviation a quarter would be missed at ten seeds; the test alone misses a fifth.
MIN_WIN_RATE = 0.6
ENDED = ("finished", "diverged")


@dataclass
class Method:
    """All runs that differ only in their seed."""

    label: str
    runs: list[Run]

    @property
    def finals(self) -> dict[int, float]:
        """By seed; of two runs with one seed, which the page complains of, the first."""
        first: dict[int, float] = {}
        for run in sorted(self.runs, key=lambda run: run.seed):
            first.setdefault(run.seed, run.final)
        return first

    @property
    def scores(self) -> list[float]:
        """Final scores by seed; a run that did not get one counts as inf, the worst."""
        return list(self.finals.values())

    @property
    def finished(self) -> list[float]:
        return [score for score in self.scores if math.isfinite(score)]

    @property
    def iqm(self) -> float:
        return float(iqm(self.scores))

    @cached_property  # ten thousand resamples, and shown in several places
    def interval(self) -> tuple[float, float] | None:
        return bca_interval(self.scores)

    @property
    def rank(self) -> tuple[float, int, float]:
        """Sorts arms by interquartile mean; where that is infinite, by how many runs have a score, and their mean."""
        return self.iqm, -len(self.finished), fmean(self.finished or [math.inf])

    @property
    def best(self) -> float:
        """Mean over seeds of the best score on the way: flattering, since it picks after the fact."""
        return fmean(run.best for run in self.runs)

    @property
    def seconds(self) -> float:
        return fmean(run.seconds for run in self.runs)

    @property
    def speed(self) -> float:
        return fmean(run.speed for run in self.runs)


def group_by_method(runs: list[Run]) -> list[Method]:
    """Of runs that came to their own end, the best first; others were cut short, and say nothing of their method.

    Arms that share a pair of loss and penalty get the settings that tell them apart in their label."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.status in ENDED:
            groups.setdefault(run.arm, []).append(run)
    found = [Method(group[0].label, group) for group in groups.values()]
    for label in {arm.label for arm in found}:
        twins = [arm for arm in found if arm.label == label]
        if len(twins) > 1:
            for arm, told in zip(twins, differences([twin.runs[0].config for twin in twins]), strict=True):
                arm.label += " (" + ", ".join(f"{k}={v}" for k, v in told.items()) + ")"
    return sorted(found, key=lambda arm: arm.rank)


def differences(configs: list[dict[str, Any]], ignore: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """For each configuration its value of every setting that is not the same in all of them.

    Of settings that copy one another (`optimizer.lr`, `optimizer.critic.lr`) only the one nearest the top is told.
    """
    flat = [_flat({k: v for k, v in c.items() if k not in INCIDENTAL + ignore}) for c in configs]
    columns = {k: tuple(json.dumps(f.get(k)) for f in flat) for k in sorted(set().union(*flat))}
    shortest = {
        column: min((k for k in columns if columns[k] == column), key=lambda k: (k.count("."), len(k)))
        for column in columns.values()
    }
    telling = sorted(k for column, k in shortest.items() if len(set(column)) > 1)
    return [{k: f.get(k) for k in telling} for f in flat]


def on_shared_seeds(found: list[Method]) -> tuple[list[Method], set[int]]:
    """The arms with only the seeds that all of them have, and the seeds left out; as they are if none is shared."""
    seeds = [set(arm.finals) for arm in found]
    shared, seen = set.intersection(*seeds), set.union(*seeds)
    if not shared or shared == seen:
        return found, set()
    cut = [Method(arm.label, [run for run in arm.runs if run.seed in shared]) for arm in found]
    return sorted(cut, key=lambda arm: arm.rank), seen - shared


class Comparison(NamedTuple):
    """Two arms at the same seeds, `first` with the lower interquartile mean; p corrected for the number of pairs."""

    first: Method
    second: Method
    paired: Paired
    p: float

    @property
    def seeds(self) -> list[int]:
        """Those that both have."""
        return sorted(set(self.first.finals) & set(self.second.finals))

    def detectable(self, pairs: int) -> float | None:
        """The smallest difference that these seeds would have shown four times in five, among so many pairs."""
        found = self.paired
        return minimum_detectable_difference(found.deviation, found.n, LEVEL / pairs) if found.deviation else None

    @property
    def shown(self) -> bool:
        """Whether `first` may be called better, by the rule that the page states."""
        return self.p < LEVEL and self.paired.tested > 0 and self.paired.wins >= MIN_WIN_RATE


def comparisons(found: list[Method]) -> list[Comparison]:
    """Of every pair of arms that share a seed; p after Holm, over all of them."""
    pairs = [(a, b) for i, a in enumerate(found) for b in found[i + 1 :] if set(a.finals) & set(b.finals)]
    results = [_paired(a, b) for a, b in pairs]
    return [
        Comparison(*pair, one, p) for pair, one, p in zip(pairs, results, holm([r.p for r in results]), strict=True)
    ]


def _paired(a: Method, b: Method) -> Paired:
    both = sorted(set(a.finals) & set(b.finals))
    return paired([a.finals[s] for s in both], [b.finals[s] for s in both])


class Course(NamedTuple):
    """An arm's scores through training, over its seeds; inf where too few have one, nan where there is no interval."""

    images: list[int]
    middle: list[float]
    low: list[float]
    high: list[float]


def course(arm: Method, metric: str) -> Course:
    """The interquartile mean and its BCa interval at each evaluation; a run that had ended by then counts as worst."""
    curves = [dict(zip(*run.curve(metric), strict=True)) for run in arm.runs]
    moments = sorted(set().union(*curves))
    scores = [[curve.get(images, math.inf) for curve in curves] for images in moments]
    bands = [bca_interval(each) or (math.nan, math.nan) for each in scores]
    low, high = zip(*bands, strict=True) if bands else ((), ())
    return Course(moments, [float(iqm(each)) for each in scores], list(low), list(high))


def verdict(found: list[Method], metric: str, pairs: list[Comparison] | None = None) -> list[str]:
    """What the scores say, by fixed rules, in sentences; `pairs` are all comparisons, if they have been made."""
    timed = [arm for arm in found if arm.finished]
    if len(timed) < 2:
        return ["There is nothing to compare: fewer than two methods have a final score."]
    best, all_pairs = found[0], comparisons(found) if pairs is None else pairs
    against = [c for c in all_pairs if c.first is best]
    said = [
        _order(best, found[1], metric),
        *_significant(best, against, len(all_pairs)),
        *_undecided(best, against, len(all_pairs)),
    ]
    fast, slow = (pick(timed, key=lambda arm: arm.seconds) for pick in (min, max))
    return [
        *said,
        f"Training took {_seconds(fast)} ({fast.label}) to {_seconds(slow)} ({slow.label}) a run, "
        f"evaluation apart; {best.label} took {_seconds(best)}.",
    ]


def plural(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "s")


def _seconds(arm: Method) -> str:
    return f"{arm.seconds:.0f} s" if arm.seconds >= 10 else f"{arm.seconds:.2g} s"


def _order(best: Method, second: Method, metric: str) -> str:
    if not math.isfinite(best.iqm):
        return (
            f"In no method did enough runs reach a final {metric}; {best.label} comes first with {len(best.finished)}."
        )
    second_words = f"{second.iqm:.3g}" if math.isfinite(second.iqm) else "too few runs that reached one"
    around = f" ({best.interval[0]:.3g} to {best.interval[1]:.3g})" if best.interval else ""
    return (
        f"{best.label} has the lowest final {metric}, {best.iqm:.3g}{around} in the interquartile mean over "
        f"{plural(len(best.scores), 'seed')}, before {second.label} with {second_words}."
    )


def _significant(best: Method, against: list[Comparison], pairs: int) -> list[str]:
    if not against:
        return ["No two methods share a seed, so that nothing can be paired, and nothing is claimed."]
    seeds = min(c.paired.n for c in against)
    if seeds < fewest_to_claim(pairs):
        return [
            f"With {plural(seeds, 'seed')} this is a hint, not a result: for {plural(pairs, 'comparison')} claims need "
            f"{fewest_to_claim(pairs)} seeds or more, since fewer could show no difference, however large."
        ]
    beaten = [c for c in against if c.shown]
    if not beaten:
        return []
    names, least = ", ".join(c.second.label for c in beaten), min(c.paired.wins for c in beaten)
    where = f"{least * seeds:g} of {seeds} seeds" + (" or more" if least < 1 else "")
    return [
        f"It is better than {names}: ahead at {where}, and p < 0.05 in a sign-flip test of paired differences, "
        f"corrected for {plural(pairs, 'comparison')}."
    ]


def fewest_to_claim(pairs: int) -> int:
    """Seeds at which the least p of a sign-flip test, 2 / 2^n, is below the level once corrected."""
    return math.floor(math.log2(2 * max(pairs, 1) / LEVEL)) + 1


def _undecided(best: Method, against: list[Comparison], pairs: int) -> list[str]:
    """No difference shown is no proof of none: how large it would have had to be."""
    told = []
    for c in against:
        if not c.shown and c.paired.n >= fewest_to_claim(pairs):
            seen = c.detectable(pairs)
            told.append(f"{c.second.label} ({f'{seen:.2g}' if seen is not None else 'unknown'})")
    if not told:
        return []
    return [
        f"No difference is shown between {best.label} and {', '.join(told)}; in brackets the smallest that these seeds "
        "would have shown four times in five."
    ]


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {path: node}
    return {k: v for key, below in node.items() for k, v in _flat(below, f"{path}.{key}" if path else key).items()}
