"""Figures of training: losses, logits, gradients, diversity, and the classes of samples."""

from statistics import fmean

import numpy as np
from matplotlib.axes import Axes

from ganbench.report.compare import Method
from ganbench.report.figures.svg import (
    INK,
    Figure,
    color,
    drawn_for,
    line_style,
    log_if_positive,
    reference_line,
    short_numbers,
)
from ganbench.report.study import Study, mean_at_end, values_at_end

# By name in metrics.jsonl: the figure's title.
DIVERSITY = {
    "modes": "modes found",
    "classes": "classes found",
    "high_quality": "share of samples near a mode",
    "recall": "recall",
    "coverage": "coverage",
    "density": "density",
    "precision": "precision",
    "memorization": "memorization",
}
GRADIENTS = {
    "g_grad_norm": "gradient norm of the generator's weights",
    "d_grad_norm": "gradient norm of the critic's weights",
    "g_saturated": "share of saturated samples (generator's loss is flat)",
}
LOSS_NAMES = ("d_loss", "g_loss", "d_penalty")
LOGIT_NAMES = ("d_real", "d_fake")
STROKES = ("-", "--", ":")
# Above these, samples score well for being near real ones although they are too near each other.
MAX_DENSITY = 1.5
MAX_COVERAGE_OVER_RECALL = 0.3


def mean_curve(method: Method, name: str) -> tuple[list[float], list[float]]:
    """Return the mean over seeds, point by point, as far as all runs that recorded `name` got."""
    curves = [run.curve(name) for run in method.runs]
    curves = [(x, y) for x, y in curves if x]
    shared = min((len(x) for x, _ in curves), default=0)
    mean_x = [fmean(x[i] for x, _ in curves) for i in range(shared)]
    mean_y = [fmean(y[i] for _, y in curves) for i in range(shared)]
    return mean_x, mean_y


def by_method(study: Study, names: tuple[str, ...]) -> list[Figure]:
    """Draw a figure per method: the named records against real images seen, each in its own stroke."""
    figures = [_of_method(study, names, number) for number in range(len(study.methods_in_detail))]
    return [figure for figure in figures if figure is not None]


def _of_method(study: Study, names: tuple[str, ...], number: int) -> Figure | None:
    """Draw a method's records; None if it has none of them but zeros."""
    method = study.methods[number]
    curves = {name: mean_curve(method, name) for name in names}
    drawn = {name: curve for name, curve in curves.items() if any(curve[1])}
    if not drawn:
        return None

    def draw(axes: Axes) -> None:
        for name, curve in drawn.items():
            stroke = STROKES[names.index(name)]
            axes.plot(*curve, color=color(study.color_index[method.label]), lw=1.5, ls=stroke, label=name)
        _images_on_x(axes)

    description = f"{', '.join(drawn)} against real images seen, mean over seeds."
    return Figure(f"{names[0]}-{number}", method.label, description, draw, height=2.5)


def gradients(study: Study) -> list[Figure]:
    """Draw the gradient norms of both players' weights and, if recorded, the share of saturated samples."""
    return _figures(study, GRADIENTS)


def diversity(study: Study) -> list[Figure]:
    """Draw what was recorded of fidelity and diversity."""
    return _figures(study, DIVERSITY)


def _figures(study: Study, titles: dict[str, str]) -> list[Figure]:
    figures = [_all_methods(study, name, title) for name, title in titles.items()]
    return [figure for figure in figures if figure is not None]


def _all_methods(study: Study, name: str, title: str) -> Figure | None:
    """Draw a curve per method and the real-data reference; None if no run recorded `name`."""
    curves = {method.label: mean_curve(method, name) for method in study.methods}
    curves = {label: curve for label, curve in curves.items() if curve[0]}
    if not curves:
        return None

    def draw(axes: Axes) -> None:
        for label, curve in curves.items():
            index = study.color_index[label]
            with drawn_for(label, axes):
                axes.plot(*curve, color=color(index), lw=1.8, ls=line_style(index), label=label)
        reference_line(axes, study.real_scores.get(name))
        if name.endswith("_norm"):
            log_if_positive(axes, [y for _, values in curves.values() for y in values])
        _images_on_x(axes)

    description = f"Against real images seen, mean over seeds of {', '.join(curves)}."
    return Figure(name, title, description, draw, height=2.7)


def _images_on_x(axes: Axes) -> None:
    axes.set_xlabel("real images seen")
    short_numbers(axes)


def histograms(study: Study) -> list[Figure]:
    """Draw a figure per method: the share of samples in each class or mode at the end, with a tick for real data."""
    figures = [_histogram(study, number) for number in range(len(study.methods_in_detail))]
    return [figure for figure in figures if figure is not None]


def _histogram(study: Study, number: int) -> Figure | None:
    method = study.methods[number]
    at_end, _ = values_at_end(method, lambda row: row.get("histogram"))
    if not at_end:
        return None
    shares = np.mean(at_end, axis=0)

    def draw(axes: Axes) -> None:
        _draw_bars(axes, shares, study.real_scores.get("histogram"), color(study.color_index[method.label]))

    description = f"Share of samples in each of {len(shares)}, mean over seeds at the end; a tick for real data."
    return Figure(f"histogram-{number}", method.label, description, draw, height=2.2)


def _draw_bars(axes: Axes, shares: np.ndarray, real: list[float] | None, bar_color: str) -> None:
    n = len(shares)
    axes.bar(range(n), shares, width=0.75, color=bar_color, alpha=0.75)
    if real:
        axes.hlines(real, [i - 0.45 for i in range(n)], [i + 0.45 for i in range(n)], color=INK, lw=1.6)
    axes.set_xticks(range(n) if n <= 12 else range(0, n, -(-n // 10)))
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("share")
    axes.set_xlim(-0.6, n - 0.4)


def low_diversity_signs(density: float | None, coverage: float | None, recall: float | None) -> list[str]:
    """Name the scores which show that samples are near real ones but nearer to each other than real ones are."""
    signs = []
    if density is not None and density > MAX_DENSITY:
        signs.append(f"density {density:.2g} is above {MAX_DENSITY}")
    if coverage is not None and recall is not None and coverage - recall > MAX_COVERAGE_OVER_RECALL:
        signs.append(f"coverage {coverage:.2g} is more than {MAX_COVERAGE_OVER_RECALL} above recall {recall:.2g}")
    return signs


def low_diversity(study: Study) -> list[str]:
    """Return a warning for each method with signs of low diversity at the end."""
    warnings = []
    for method in study.methods:
        signs = low_diversity_signs(
            density=mean_at_end(method, "density"),
            coverage=mean_at_end(method, "coverage"),
            recall=mean_at_end(method, "recall"),
        )
        if signs:
            warnings.append(f"{method.label}: {' and '.join(signs)}; its samples may be too similar to each other.")
    return warnings
