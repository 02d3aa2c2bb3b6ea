"""A figure: drawn on any axes of matplotlib, or as SVG text for a page, in the page's own colors."""

import io
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter, NullLocator

from ganbench.report.figures.colors import COLORS

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType, RcKeyType

INK = "#1f2933"
SOFT = "#52606d"
AXIS = "#9aa5b1"
GRID = "#e4e7eb"
CARD = "#ffffff"
# The style sheet's variable for each color that a figure is drawn in, so that figures follow light and dark.
CSS_VARIABLES = {INK: "--ink", SOFT: "--soft", AXIS: "--axis", GRID: "--line", CARD: "--card"}
CSS_VARIABLES |= {color: f"--c{i}" for i, color in enumerate(COLORS)}
STYLE: "dict[RcKeyType, object]" = {
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
METHOD = "method "  # what ids of a method's artists begin with
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}  # it would differ from day to day


@dataclass
class Figure:
    """A figure: its title, a description of what is drawn, how it is drawn, and its size in inches."""

    name: str
    title: str
    description: str
    draw: Callable[[Axes], None]
    width: float = 4.6
    height: float = 3.1

    @cached_property
    def svg(self) -> Markup:
        """Return the figure as an <svg> element for a page."""
        with matplotlib.rc_context(STYLE | {"svg.hashsalt": self.name}):
            figure = MatplotlibFigure(figsize=(self.width, self.height), layout="constrained")
            figure.patch.set_alpha(0)
            axes = figure.subplots()
            axes.patch.set_alpha(0)
            self.draw(axes)
            buffer = io.StringIO()
            FigureCanvasSVG(figure).print_svg(buffer, metadata=NO_METADATA)
        return Markup(_inline_svg(buffer.getvalue(), self.name, f"{self.title}. {self.description}"))


@contextmanager
def drawn_for(method: str, axes: Axes) -> Iterator[None]:
    """Mark what is drawn in this block as the method's, so that the page's legend can hide it."""
    before = set(axes.get_children())
    yield
    for artist in axes.get_children():
        if artist not in before:
            artist.set_gid(METHOD + method)


def _inline_svg(file: str, name: str, label: str) -> str:
    """Turn an SVG file into an <svg> element for a page: ids with a prefix, colors as CSS variables, no fixed size."""
    root = ElementTree.fromstring(file)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local_name(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local_name(element.tag)
        attributes = {_local_name(key): value for key, value in element.attrib.items()}
        element.attrib = {key: _for_page(key, value, name) for key, value in attributes.items()}
        if attributes.get("id", "").startswith(METHOD):
            element.attrib = {"data-method": attributes["id"].removeprefix(METHOD)}
        if element.tail and element.tail.isspace():
            element.tail = "\n"  # instead of indentation
    for key in ("width", "height", "version"):
        del root.attrib[key]
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _local_name(tag: str) -> str:
    """Drop the XML namespace, which HTML does not use."""
    return tag.rpartition("}")[2]


def _for_page(key: str, value: str, name: str) -> str:
    """Rewrite an attribute: ids and references get the figure's name, because a page has several figures."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-")
    value = value.replace("url(#", f"url(#{name}-")
    for color, variable in CSS_VARIABLES.items():
        value = value.replace(color, f"var({variable})")
    return value


def color(index: int) -> str:
    """Return the color of this number; they repeat."""
    return COLORS[index % len(COLORS)]


def line_style(index: int) -> "LineStyleType":
    """Return a solid line, or a dashed one where colors repeat."""
    return ("-", (0, (5, 1.5)), (0, (1, 1)))[min(index // len(COLORS), 2)]


def reference_line(axes: Axes, value: float | None, vertical: bool = False) -> None:
    """Draw a dotted line at the real-data reference, if there is one."""
    if value is not None:
        draw = axes.axvline if vertical else axes.axhline
        draw(value, color=SOFT, lw=1.2, ls=":")


def inf_as_nan(values: Iterable[float]) -> np.ndarray:
    """Replace inf by nan, which leaves a gap in a line."""
    values = np.array(values, float)
    return np.where(np.isfinite(values), values, np.nan)


def log_if_positive(axes: Axes, values: list[float]) -> None:
    """Make the y axis logarithmic if all values are positive."""
    if values and min(values) > 0:
        axes.set_yscale("log")
        decades = math.log10(max(values) / min(values))
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if decades < 4 else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def log_or_symlog(axes: Axes, values: list[float]) -> None:
    """Make the y axis logarithmic; where values have both signs, linear around 0 and logarithmic beyond."""
    if values and min(values) <= 0 < max(values):
        linear = 10 ** math.ceil(math.log10(max(-min(values), max(values) * 1e-4)))
        decades = math.floor(math.log10(max(values) / linear))
        axes.set_yscale("symlog", linthresh=linear, linscale=0.5)
        axes.set_ylim(bottom=-2 * linear)
        axes.set_yticks([-linear, 0, *(linear * 10**k for k in range(decades + 1))])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        log_if_positive(axes, values)


def short_numbers(axes: Axes) -> None:
    """Show 25,000 on the x axis as 25k."""
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
