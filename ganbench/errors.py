"""Errors that end a run, and the sentences for a setting or an option that does not exist."""

import difflib
from collections.abc import Iterable

# Former names of options (group=option) and of settings, with their present ones.
RENAMED = {
    "penalty=zero_centred": "penalty=zero_centered",
    "metric=modes": "metric=energy_distance",
    "metric=stacked": "metric=modes_kl",
    "metric.neighbours": "metric.k_neighbors",
    "metric.sizes": "metric.n_subsets",
    "model.fused": "model.fuse_rescaling",
    "model.direct": "model.fast_double_backward",
    "model.generator.fused": "model.generator.fuse_rescaling",
    "model.critic.fused": "model.critic.fuse_rescaling",
    "model.critic.direct": "model.critic.fast_double_backward",
    "speed.fused": "speed.fused_optimizer",
}


class Refused(ValueError):
    """A configuration that cannot be run. The message names the setting, its value, what is allowed and what to do."""


class Diverged(Exception):
    """A number in training became infinite or NaN: `what` was `value` in an update of `player`, critic or generator.

    `facts` holds these three; whoever knows at which update it happened adds that.
    """

    def __init__(self, message: str, what: str, value: float, player: str):
        super().__init__(message)
        self.facts: dict[str, str | int] = {"what": what, "value": str(value), "player": player}


def renamed_message(name: str) -> str:
    """Say what replaces a former name of RENAMED."""
    return f"{name} was renamed; use {RENAMED[name]}."


def unknown_key_message(key: str, allowed: Iterable[str], owner: str = "") -> str:
    """Say that there is no setting `key`, and what `owner` has instead; by default the owner is what `key` is in."""
    if key in RENAMED:
        return renamed_message(key)
    parent, _, last = key.rpartition(".")
    settable = [name for name in allowed if name != ("name" if parent else "hydra") and not name.startswith("_")]
    if not parent:
        settable.append("experiment")  # a group without settings of its own
    has = f"has: {', '.join(sorted(settable))}." if settable else "has none."
    return f"{key}: unknown setting; {did_you_mean(last, settable)}{owner or parent or 'ganbench'} {has}"


def did_you_mean(typed: str, names: Iterable[str], end: str = " ") -> str:
    """Ask whether the name that is most like what was typed was meant; empty if none is like it."""
    close = closest_name(typed, names)
    return f"did you mean {close[0]}?{end}" if close else ""


def closest_name(typed: str, names: Iterable[str]) -> list[str]:
    """Return the name that is most like what was typed, in upper or lower case; empty if none is."""
    by_lower_case = {name.lower(): name for name in names}
    return [by_lower_case[match] for match in difflib.get_close_matches(typed.lower(), by_lower_case, n=1)]


def unknown_option_message(group: str, option: str, options: Iterable[str]) -> str:
    """Say that `group` has no such option, and which it has; the nearest comes first."""
    typed = f"{group}={option}"
    if typed in RENAMED:
        return renamed_message(typed)
    names = sorted(options)
    is_null = option.lower() == "null"
    without_penalty = option.removesuffix("-none")  # as version 0.1.0 showed methods without a penalty
    close = [name for name in names if is_null and name == "none"] or closest_name(without_penalty, names)
    if close:
        first = f"use {group}={close[0]}, or one of"
    else:
        first = "leave it out, or use one of" if is_null else "use one of"
    rest = [name for name in names if name not in close]
    return f"{typed} is not an option; {first}: {', '.join(rest)}."
