"""Figures of what happened on the way: losses, logits, gradients, diversity, and the classes of samples."""

from statistics import fmean
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from ganbench.report.compare import Method
from ganbench.report.figures.svg import INK, Figure, color, log_if_positive, reference_line, short_numbers, stroke
from ganbench.report.study import Study, mean_at_end, values_at_end

DIVERSITY = {
    "modes": "modes found",
    "classes": "classes found",
    "high_quality": "share of good samples",
    "recall": "recall",
    "coverage": "coverage",
    "density": "density",
    "precision": "precision",
    "memorisation": "memorisation",
}
GRADIENTS = {
    "g_grad_norm": "gradient norm of the generator",
    "d_grad_norm": "gradient norm of the critic",
    "g_saturated": "share of fakes where the generator's loss is flat",
}
STROKES = ("-", "--", ":")
# Above these, samples get marks for being near to real ones by being near to each other.
CROWDED, LOPSIDED = 1.5, 0.3


def mean_curve(arm: Method, name: str) -> tuple[list[float], list[float]]:
    """Over seeds, point by point, as far as all runs got that have it."""
    found = [curve for run in arm.runs if (curve := run.curve(name))[0]]
    shared = min((len(x) for x, _ in found), default=0)
    return tuple([fmean(c[axis][i] for c in found) for i in range(shared)] for axis in (0, 1))


def by_arm(study: Study, names: tuple[str, ...]) -> list[Figure]:
    """A panel for each arm: the named records against images seen, one kind of stroke each."""
    panels = []
    for number, arm in enumerate(study.arms):
        drawn = {name: mean_curve(arm, name) for name in names}
        shown = {name: curve for name, curve in drawn.items() if any(curve[1])}
        if shown:
            words = f"{', '.join(shown)} against real images seen, mean over seeds."
            panel = Figure(f"{names[0]}-{number}", arm.label, words)
            with panel.draw(4.6, 2.5) as axes:
                for name, curve in shown.items():
                    tint = color(study.tints[arm.label])
                    axes.plot(*curve, color=tint, lw=1.5, ls=STROKES[names.index(name)])
                _along_images(axes)
            panels.append(panel)
    return panels


def gradients(study: Study) -> list[Figure]:
    """Of both players' weights, and how much of the generator's loss is flat, if that was told."""
    return [panel for name, title in GRADIENTS.items() if (panel := _over_arms(study, name, title))]


def diversity(study: Study) -> list[Figure]:
    """What there is of it, over training."""
    return [panel for name, title in DIVERSITY.items() if (panel := _over_arms(study, name, title))]


def _over_arms(study: Study, name: str, title: str) -> Figure | None:
    """A curve for each arm and what real data get; None if no run has it."""
    curves = {arm.label: curve for arm in study.arms if (curve := mean_curve(arm, name))[0]}
    if not curves:
        return None
    panel = Figure(name, title, f"Against real images seen, mean over seeds of {', '.join(curves)}.")
    with panel.draw(4.6, 2.7) as axes:
        for label, curve in curves.items():
            tint = study.tints[label]
            axes.plot(*curve, color=color(tint), lw=1.8, ls=stroke(tint))
        reference_line(axes, study.real.get(name))
        if name.endswith("_norm"):
            log_if_positive(axes, [y for _, values in curves.values() for y in values])
        _along_images(axes)
    return panel


def _along_images(axes: Axes) -> None:
    axes.set_xlabel("real images seen")
    short_numbers(axes)


def histograms(study: Study) -> list[Figure]:
    """A panel for each arm: the share of samples in each class or mode at the end, a tick at that of real data."""
    real = study.real.get("histogram")
    panels = []
    for number, arm in enumerate(study.arms):
        ends, _ = values_at_end(arm, lambda row: row.get("histogram"))
        if ends:
            shares = np.mean(ends, axis=0)
            words = f"Share of samples in each of {len(shares)}, mean over seeds at the end; a tick for real data."
            panel = Figure(f"histogram-{number}", arm.label, words)
            with panel.draw(4.6, 2.2) as axes:
                _bars(axes, shares, real, color(study.tints[arm.label]))
            panels.append(panel)
    return panels


def _bars(axes: Axes, shares: np.ndarray, real: list[float] | None, tint: str) -> None:
    n = len(shares)
    axes.bar(range(n), shares, width=0.75, color=tint, alpha=0.75)
    if real:
        axes.hlines(real, [i - 0.45 for i in range(n)], [i + 0.45 for i in range(n)], color=INK, lw=1.6)
    axes.set_xticks(range(n) if n <= 12 else range(0, n, -(-n // 10)))
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("share")
    axes.set_xlim(-0.6, n - 0.4)


class Crowd(NamedTuple):
    density: float | None
    coverage: float | None
    recall: float | None

    def __str__(self) -> str:
        told = []
        if self.density is not None and self.density > CROWDED:
            told.append(f"density {self.density:.2g} is above {CROWDED}")
        if None not in (self.coverage, self.recall) and self.coverage - self.recall > LOPSIDED:
            told.append(
                f"coverage {self.coverage:.2g} is more than {LOPSIDED} above recall {self.recall:.2g}",
            )
        return " and ".join(told)


def too_much_alike(study: Study) -> list[str]:
    """A sentence for each arm whose samples lie near real ones but also nearer to each other than real ones do."""
    crowds = {arm.label: Crowd(*(mean_at_end(arm, name) for name in Crowd._fields)) for arm in study.arms}
    return [
        f"{label}: {crowd}, so its samples may be too much alike: near to real ones, and nearer to each other."
        for label, crowd in crowds.items()
        if str(crowd)
    ]
