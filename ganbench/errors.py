"""Errors that end a run, and the sentence for a setting that does not exist."""

import difflib
from typing import Any


class Refused(ValueError):
    """A configuration that cannot be run. The message names key, value and what is allowed."""


class Diverged(Exception):
    """Training produced a number that is not finite: `what` was `value` for the `player`, critic or generator.

    `facts` has these, and when it was, if that is known.
    """

    def __init__(self, said: str, what: str, value: float, player: str):
        super().__init__(said)
        self.facts: dict[str, str | int] = {"what": what, "value": str(value), "player": player}


def unknown_key_message(key: str, allowed: list[str], value: Any = None) -> str:
    close = difflib.get_close_matches(key.rpartition(".")[2], allowed, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    said = f"{key}={value}" if value is not None else key
    here = f"Allowed here: {', '.join(sorted(allowed))}." if allowed else "Nothing can be set here."
    return f"{said}: there is no setting {key}.{hint} {here}"
