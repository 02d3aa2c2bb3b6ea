"""Keep from Weights & Biases what names a user, a machine or a variable, unless the user asks for it. Needs no W&B."""

import getpass
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

# What W&B would send by itself, by the variable with which a user asks for it: its setting, and our value for it.
WITHHELD: dict[str, tuple[str, Any]] = {
    "WANDB_HOST": ("host", ""),
    "WANDB_PROGRAM": ("program", "python -m ganbench"),  # it may lie in a user's folder
    "WANDB_CONSOLE": ("console", "off"),  # warnings and tracebacks name folders; ganbench.log has all
    "WANDB_DISABLE_GIT": ("disable_git", True),  # the address of a fork; the commit is in the summary
    "WANDB__DISABLE_META": ("x_disable_meta", True),  # folders, host, email; the device is in the summary
}


def private_settings() -> dict[str, Any]:
    """Return W&B's settings that withhold what is not asked for."""
    return dict(each for variable, each in WITHHELD.items() if variable not in os.environ)


def without_names(value: Any) -> Any:
    """Return settings or text with `~` for the user's home, and USER for the user's name where folders have it."""
    match value:
        case dict():
            return {key: without_names(each) for key, each in value.items()}
        case list():
            return [without_names(each) for each in value]
        case str():
            return _without_user(_without_home(value))
    return value


def seen_from_here(folder: Path) -> Path:
    """Return the way to a folder from the current one; all of its path if it lies elsewhere, as it was asked to."""
    whole, here = folder.resolve(), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole


def shown_folder(out: Path) -> str:
    """Return a run's folder as seen from the current one; its name if it lies elsewhere."""
    folder = seen_from_here(out)
    return folder.name if folder.is_absolute() else str(folder)


def _without_home(text: str) -> str:
    home = os.path.expanduser("~").rstrip("/")
    return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text) if home else text


def _without_user(text: str) -> str:
    with suppress(KeyError, OSError):  # in a container, a user may have no name
        return re.sub(rf"(?<=[/\\]){re.escape(getpass.getuser())}(?=[/\\])", "USER", text)
    return text
