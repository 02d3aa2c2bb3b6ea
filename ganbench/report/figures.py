"""Figures as SVG text to put into a page."""

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, ScalarFormatter

from ganbench.report.compare import Arm, Comparison

# Told apart by people with any colour vision (Okabe and Ito 2008), darkened where white paper asks for it.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b35a93", "#b8860b", "#56a0d3", "#444444", "#8b5a2b")
COSTS = {"images": "real images seen", "steps": "generator steps", "t_train": "training seconds"}
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": "#1f2933",
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": "#52606d",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
}


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def scores(arms: list[Arm], metric: str, floor: float | None) -> str:
    """Score against each kind of cost: thin lines are seeds, thick ones their mean."""
    with _figure("scores", 10, 3.6) as (figure, out):
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (along, words) in zip(panels, COSTS.items(), strict=True):
            for i, arm in enumerate(arms):
                curves = [run.curve(metric, along) for run in arm.runs]
                for x, y in curves:
                    axes.plot(x, y, color=colour(i), lw=0.8, alpha=0.35)
                axes.plot(*_mean(curves), color=colour(i), lw=2, label=arm.label)
            _floor(axes, floor, vertical=False)
            axes.set_xlabel(words)
            _short_numbers(axes)
        _log_if_positive(panels[0], [y for arm in arms for run in arm.runs for y in run.scores])
        panels[0].set_ylabel(f"{metric} (lower is better)")
        panels[-1].legend(frameon=False, fontsize=8)
    return out[0]


def finals(arms: list[Arm], metric: str, floor: float | None) -> str:
    """Final scores: every seed a dot, the interquartile mean a bar, its 95 % interval a line."""
    with _figure("finals", 10, 0.7 + 0.42 * len(arms)) as (figure, out):
        axes = figure.subplots()
        for i, arm in enumerate(arms):
            if arm.interval:
                axes.plot(arm.interval, [i, i], color=colour(i), lw=1.5, alpha=0.6)
            if arm.finished:
                axes.plot([arm.iqm], [i], "|", ms=16, mew=2.5, color=colour(i))
                axes.plot(arm.finished, [i] * len(arm.finished), "o", ms=6, color=colour(i), mec="white", mew=0.8)
        _floor(axes, floor, vertical=True)
        axes.set_yticks(range(len(arms)), [arm.label for arm in arms])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"final {metric} (lower is better)")
    return out[0]


def differences(arms: list[Arm], found: list[Comparison], metric: str) -> str:
    """How far each arm is behind the first at the same seeds: dots, their mean a bar, its t interval a line."""
    against = [c for c in found if c.first is arms[0] and c.paired.mean is not None]
    with _figure("differences", 10, 0.9 + 0.42 * len(against)) as (figure, out):
        axes = figure.subplots()
        for row, c in enumerate(against):
            tint = colour(arms.index(c.second))
            each = [c.second.finals[seed] - c.first.finals[seed] for seed in c.seeds]
            axes.plot(each, [row] * len(each), "o", ms=5, color=tint, mec="white", mew=0.8, alpha=0.8)
            axes.plot([c.paired.mean], [row], "|", ms=16, mew=2.5, color=tint)
            if c.paired.interval:
                axes.plot(c.paired.interval, [row, row], color=tint, lw=1.5, alpha=0.6)
        axes.axvline(0, color="#52606d", lw=1)
        axes.set_yticks(range(len(against)), [c.second.label for c in against])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{metric} above that of {arms[0].label}, by seed")
    return out[0]


def wins(arms: list[Arm], found: list[Comparison]) -> str:
    """A table in colours: the share of seeds at which the row's method is ahead of the column's."""
    share = {(c.first.label, c.second.label): c.paired.wins for c in found}
    share |= {(b, a): 1 - w for (a, b), w in share.items()}
    labels = [arm.label for arm in arms]
    with _figure("wins", 10, 1.2 + 0.5 * len(arms)) as (figure, out):
        axes = figure.subplots()
        cells = [[share.get((a, b), math.nan) for b in labels] for a in labels]
        axes.imshow(cells, cmap="BrBG", vmin=-0.6, vmax=1.6, aspect="auto")
        for i, row in enumerate(cells):
            for j, value in enumerate(row):
                if math.isfinite(value):
                    axes.text(j, i, f"{value:.0%}", ha="center", va="center")
        axes.set_xticks(range(len(labels)), labels)
        axes.set_yticks(range(len(labels)), labels)
        axes.grid(visible=False)
    return out[0]


def curves(arms: list[Arm], names: tuple[str, ...]) -> str:
    """The named records of each arm against images seen, mean over seeds, one panel an arm."""
    columns = 3
    lines = -(-len(arms) // columns)
    with _figure("curves-" + "-".join(names), 10, 2.5 * lines) as (figure, out):
        panels = list(figure.subplots(lines, columns, sharex=True, squeeze=False).flat)
        for axes, arm in zip(panels, arms, strict=False):
            for i, name in enumerate(names):
                x, y = _mean([run.curve(name) for run in arm.runs])
                if any(y):
                    axes.plot(x, y, color=COLOURS[i], lw=1.3, label=name)
            axes.set_title(arm.label, loc="left", fontsize=10)
            _short_numbers(axes)
        for axes in panels[len(arms) :]:
            axes.set_visible(False)
        handles = {label: h for axes in figure.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(
            handles.values(), handles.keys(), ncols=len(handles) or 1, frameon=False, loc="outside lower center"
        )
    return out[0]


def norms(arms: list[Arm]) -> str:
    """Weight-gradient norms of both players, mean over seeds."""
    with _figure("norms", 10, 3.2) as (figure, out):
        panels = figure.subplots(1, 2)
        for axes, name, who in zip(panels, ("g_grad_norm", "d_grad_norm"), ("generator", "critic"), strict=True):
            for i, arm in enumerate(arms):
                axes.plot(*_mean([run.curve(name) for run in arm.runs]), color=colour(i), lw=1.3, label=arm.label)
            axes.set_title(f"gradient norm of the {who}", loc="left", fontsize=10)
            axes.set_yscale("log")
            axes.set_xlabel("real images seen")
            _short_numbers(axes)
        panels[1].legend(frameon=False, fontsize=9)
    return out[0]


@contextmanager
def _figure(name: str, width: float, height: float) -> Iterator[tuple[Figure, list[str]]]:
    """A figure to draw on; its SVG is in the list once the block has ended."""
    out: list[str] = []
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0)
        yield figure, out
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
        out.append(_inline(buffer.getvalue(), name))


def _inline(svg: str, name: str) -> str:
    """Only the <svg> element, as wide as its place, its ids distinct from those of other figures."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="|href="|url\()#', rf"\1#{name}-", svg)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'role="img" aria-label="{name}"', svg, count=1)


def _mean(found: list[tuple[list[float], list[float]]]) -> tuple[list[float], list[float]]:
    """The mean curve, point by point, as far as all runs got."""
    found = [curve for curve in found if curve[0]]
    shared = min((len(x) for x, _ in found), default=0)
    return tuple([fmean(c[axis][i] for c in found) for i in range(shared)] for axis in (0, 1))


def _floor(axes: Axes, floor: float | None, vertical: bool) -> None:
    if floor is not None:
        draw = axes.axvline if vertical else axes.axhline
        draw(floor, color="#52606d", lw=1, ls=":", label="real against real")


def _log_if_positive(axes: Axes, values: list[float]) -> None:
    if values and min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())


def _short_numbers(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
