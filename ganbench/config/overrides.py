"""Check what was typed before Hydra composes it, where Hydra would answer with a traceback, or not at all."""

import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

from hydra.conf import HydraConf

from ganbench.config.compose import option_names
from ganbench.config.schema import CONF, Config
from ganbench.errors import Refused, did_you_mean, unknown_key_message

# Values that are no texts in Hydra's grammar, which raises a bare ValueError for them as the option of a group.
NO_TEXT = re.compile(r"(?<=[=,])(null|true|false|nan|[-+]?[\d.]+)(?=,|$)", re.IGNORECASE)

# Hydra's flags, which may be shortened, and its groups of options.
FLAGS = (
    "--cfg",
    "--config-dir",
    "--config-name",
    "--config-path",
    "--experimental-rerun",
    "--help",
    "--hydra-help",
    "--info",
    "--multirun",
    "--package",
    "--resolve",
    "--run",
    "--shell-completion",
    "--version",
)
HYDRA_GROUPS = ("env", "help", "hydra_help", "hydra_logging", "job_logging", "launcher", "output", "sweeper")


def multirun_first(arguments: Sequence[str]) -> list[str]:
    """Put -m before the overrides, since Hydra reads no override after a flag that follows others."""
    return sorted(arguments, key=lambda argument: argument not in ("-m", "--multirun"))


def quote_options(overrides: Sequence[str]) -> list[str]:
    """Quote options such as `loss=1` and `penalty=null`, so that Hydra looks for them and lists those there are."""
    return [NO_TEXT.sub(r"'\1'", override) if _is_of_a_group(override) else override for override in overrides]


def _is_of_a_group(override: str) -> bool:
    group = override.lstrip("+").partition("=")[0]
    return bool(group) and (CONF / group).is_dir()


def reject_senseless_overrides(overrides: Sequence[str]) -> None:
    """Raise Refused for what Hydra would answer with a traceback, or drop silently: `+key=value` of a key not there."""
    _reject_unknown_flags(overrides)
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if not key and "=" in override:
            raise Refused(f"{override} names no setting; write key=value or group=option.")
        if key.startswith("experiment."):
            names = ", ".join(option_names("experiment"))
            raise Refused(f"{key}: an experiment has no settings of its own; use experiment=..., with one of: {names}.")
        _reject_unknown_group(key)
        group, _, setting = key.partition(".")
        schema = _schema_of(group)
        if override.startswith("+") and setting and schema:
            fields = list(schema.__dataclass_fields__)
            if setting.partition(".")[0] not in fields:
                raise Refused(unknown_key_message(key, fields))


def _reject_unknown_flags(arguments: Sequence[str]) -> None:
    """Refuse a misspelt `--flag` with the nearest one; argparse would print its whole usage instead."""
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and not any(known.startswith(flag) for known in FLAGS):
            hint = did_you_mean(flag, FLAGS)
            raise Refused(f"{flag} is not a flag; {hint}use one of: {', '.join(FLAGS)}.")


def _reject_unknown_group(key: str) -> None:
    """Refuse `hydra/…` groups that Hydra does not have, and `group@package`, for no group has a second place."""
    group, at, package = key.partition("@")
    if at:
        raise Refused(f"{key}: {group} has one place only, not {package} as well; write {group}=... instead.")
    parent, slash, name = key.partition("/")
    if slash and parent == "hydra" and name not in HYDRA_GROUPS:
        hint = did_you_mean(name, HYDRA_GROUPS)
        raise Refused(f"{key} is not a group of options; {hint}hydra has: {', '.join(HYDRA_GROUPS)}.")


def _schema_of(group: str) -> Any:
    """Return the dataclass of a group's settings, None for a group that is free to have any."""
    if group == "hydra":
        return HydraConf
    field = Config.__dataclass_fields__.get(group)
    schema = field.default_factory if field else None
    return schema if is_dataclass(schema) else None
