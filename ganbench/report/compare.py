"""Arms and their statistics. Lower scores are better."""

import json
import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from scipy import stats

from ganbench.report.read import INCIDENTAL, Run

FEWEST_TO_CLAIM = 6  # an exact sign-flip test of n paired seeds cannot reach p < 0.05 with fewer


@dataclass
class Arm:
    """All runs that differ only in their seed."""

    label: str
    runs: list[Run]

    @property
    def finals(self) -> dict[int, float]:
        """By seed; of two runs with one seed, which the page complains of, the first."""
        return {run.seed: run.final for run in reversed(self.runs)}

    @property
    def finished(self) -> list[float]:
        return [run.final for run in self.runs if math.isfinite(run.final)]

    @property
    def mean(self) -> float:
        """Of the final scores of the runs that have one."""
        return fmean(self.finished) if self.finished else math.inf

    @property
    def rank(self) -> tuple[int, float]:
        """Sorts arms: an arm with a run that has no final score comes after all arms without."""
        return len(self.runs) - len(self.finished), self.mean

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % t interval of the mean; None with fewer than two scores."""
        return t_interval(self.finished)

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


def t_interval(values: list[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of normal values; None with fewer than two."""
    if len(values) < 2:
        return None
    error = float(stats.sem(values))
    if error == 0:
        return values[0], values[0]
    low, high = stats.t.interval(0.95, len(values) - 1, fmean(values), error)
    return float(low), float(high)


def arms(runs: list[Run]) -> list[Arm]:
    """Best first. Arms that share a pair of loss and penalty get the settings that tell them apart in their label."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.status != "unreadable":
            groups.setdefault(run.arm, []).append(run)
    found = [Arm(group[0].label, group) for group in groups.values()]
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


def paired(a: Arm, b: Arm) -> list[float]:
    """Final scores of a less those of b, over the seeds that both finished."""
    both = sorted(set(a.finals) & set(b.finals))
    return [a.finals[s] - b.finals[s] for s in both if math.isfinite(a.finals[s]) and math.isfinite(b.finals[s])]


def verdict(found: list[Arm], metric: str) -> list[str]:
    """What the scores say, by fixed rules, in sentences."""
    told = [arm for arm in found if arm.finished]
    if len(told) < 2:
        return ["There is nothing to compare: fewer than two methods have a final score."]
    best, rest = told[0], told[1:]
    said = [_order(best, rest, metric), _paired_words(best, rest)]
    seeds = min(len(arm.finished) for arm in told)
    if seeds < FEWEST_TO_CLAIM:
        said.append(f"With {seeds} seed(s) this is a hint, not a result: claims need {FEWEST_TO_CLAIM} or more.")
    fast, slow = (pick(told, key=lambda arm: arm.seconds) for pick in (min, max))
    said.append(
        f"Training took {fast.seconds:.0f} s ({fast.label}) to {slow.seconds:.0f} s ({slow.label}) a run, "
        f"evaluation apart; {best.label} took {best.seconds:.0f} s."
    )
    return said


def _order(best: Arm, rest: list[Arm], metric: str) -> str:
    lowest = min([best, *rest], key=lambda arm: arm.mean)
    if lowest is not best:
        return (
            f"{best.label} comes first with a mean final {metric} of {best.mean:.3g}, since more of its runs "
            f"reached a score; {lowest.label} has {lowest.mean:.3g} "
            f"over {len(lowest.finished)} of its {len(lowest.runs)}."
        )
    last = f" and {rest[-1].label}, the last, with {rest[-1].mean:.3g}" if len(rest) > 1 else ""
    second = f"before {rest[0].label} with {rest[0].mean:.3g}"
    return f"{best.label} has the lowest mean final {metric}, {best.mean:.3g}, {second}{last}."


def _paired_words(best: Arm, rest: list[Arm]) -> str:
    gaps = {arm.label: t_interval(paired(arm, best)) for arm in rest}
    known = {label: gap for label, gap in gaps.items() if gap}
    clear = [label for label, gap in known.items() if gap[0] > 0]
    if not known:
        return "No two methods share two finished seeds, so differences have no interval."
    if not clear:
        return "Paired by seed, no 95 % interval of its difference to another method excludes zero."
    return (
        f"Paired by seed, its 95 % interval of the difference excludes zero against {', '.join(clear)} "
        "(one comparison at a time, not corrected for their number)."
    )


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {path: node}
    return {k: v for key, below in node.items() for k, v in _flat(below, f"{path}.{key}" if path else key).items()}
