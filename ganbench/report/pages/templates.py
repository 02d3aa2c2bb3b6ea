"""Render the templates of pages. Needs no library that draws or computes, so that a page can be there at once."""

from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ganbench.report.figures.colors import COLORS, COLORS_ON_DARK

HERE = Path(__file__).parent


def render(template: str, **variables: Any) -> str:
    """Return the text of a page."""
    return _environment().get_template(template).render(light=COLORS, dark=COLORS_ON_DARK, **variables)


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["repeat_colors"] = lambda index: index % len(COLORS)
    environment.globals["text_of"] = lambda name: Markup((HERE / name).read_text(encoding="utf-8"))
    return environment
