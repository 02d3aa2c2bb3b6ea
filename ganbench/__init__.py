"""Compare GAN losses on equal footing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"
__all__ = ("CONF", "compare", "load", "register", "run")  # mypy finds them below, Python in __getattr__

if TYPE_CHECKING:
    from ganbench.api.make import run as run
    from ganbench.api.run import load as load
    from ganbench.api.sweep import compare as compare
    from ganbench.config.compose import register as register
    from ganbench.config.schema import CONF as CONF

# Where they are. They are imported when they are first used, so that importing the package takes no time.
_PLACES = {
    "CONF": "config.schema",
    "compare": "api.sweep",
    "load": "api.run",
    "register": "config.compose",
    "run": "api.make",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'ganbench' has no attribute {name!r}")
    return getattr(import_module(f"ganbench.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
