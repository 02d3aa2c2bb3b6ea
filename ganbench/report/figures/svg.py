"""How a figure becomes SVG text in a page, in the page's own colours."""

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter, NullLocator

# Told apart by people with any colour vision (after Okabe and Ito 2008): on white, and on dark.
COLORS = ("#0072b2", "#c85500", "#00805e", "#b0508f", "#947000", "#4a4a4a", "#3d93cc", "#8b5a2b")
COLORS_ON_DARK = ("#4aa3e8", "#f0883e", "#2fc79a", "#e08cc4", "#e0bb3c", "#c3cad2", "#a8d8f8", "#c99c6e")
INK, SOFT, AXIS, GRID, CARD = "#1f2933", "#52606d", "#9aa5b1", "#e4e7eb", "#ffffff"
# The page's name of each colour that a figure is drawn in, so that its style sheet has the last word.
NAMES = {INK: "ink", SOFT: "soft", AXIS: "axis", GRID: "line", CARD: "card"}
NAMES |= {color: f"c{i}" for i, color in enumerate(COLORS)}
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": AXIS,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}


class Figure:
    """One figure of a page: its heading, what is drawn in words, and its SVG once it is drawn."""

    def __init__(self, name: str, title: str, words: str):
        self.name, self.title, self.words, self.svg = name, title, words, Markup()

    @contextmanager
    def draw(self, width: float = 4.6, height: float = 3.1) -> Iterator[Axes]:
        """Axes to draw on; the SVG is there once the block has ended."""
        with matplotlib.rc_context(STYLE | {"svg.hashsalt": self.name}):
            figure = MatplotlibFigure(figsize=(width, height), layout="constrained")
            figure.patch.set_alpha(0)
            axes = figure.subplots()
            axes.patch.set_alpha(0)
            yield axes
            buffer = io.StringIO()
            plain = {"Date": None, "Creator": None, "Format": None, "Type": None}
            FigureCanvasSVG(figure).print_svg(buffer, metadata=plain)
        self.svg = Markup(_inline(buffer.getvalue(), self.name, f"{self.title}. {self.words}"))


def _inline(svg: str, name: str, words: str) -> str:
    """Only the <svg> element, as wide as its place, its ids distinct from other figures', its colours the page's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:xmlns(?::xlink)?|version)="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', svg).replace("url(#", f"url(#{name}-")
    svg = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda found: f"var(--{NAMES[found[0]]})", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    label = Markup.escape(words)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'role="img" aria-label="{label}"', svg, count=1)


def color(tint: int) -> str:
    return COLORS[tint % len(COLORS)]


def stroke(tint: int) -> str:
    """Solid; dashed where colours begin again."""
    return ("-", (0, (5, 1.5)), (0, (1, 1)))[min(tint // len(COLORS), 2)]


def reference_line(axes: Axes, value: float | None, vertical: bool = False) -> None:
    """A dotted line at what real data get."""
    if value is not None:
        (axes.axvline if vertical else axes.axhline)(value, color=SOFT, lw=1.2, ls=":")


def finite(values: Any) -> np.ndarray:
    """With nan, which leaves a gap in a line, for what is infinite."""
    values = np.array(values, float)
    return np.where(np.isfinite(values), values, np.nan)


def log_if_positive(axes: Axes, values: list[float]) -> None:
    if values and min(values) > 0:
        axes.set_yscale("log")
        decades = math.log10(max(values) / min(values))
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if decades < 4 else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def log_where_it_can(axes: Axes, values: list[float]) -> None:
    """As above; where some are not above 0, evenly around it and in the logarithm beyond."""
    if values and min(values) <= 0 < max(values):
        even = 10 ** math.ceil(math.log10(max(-min(values), max(values) * 1e-4)))
        axes.set_yscale("symlog", linthresh=even, linscale=0.5)
        axes.set_ylim(bottom=-2 * even)
        axes.set_yticks([-even, 0, *(even * 10**k for k in range(math.floor(math.log10(max(values) / even)) + 1))])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        log_if_positive(axes, values)


def short_numbers(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
