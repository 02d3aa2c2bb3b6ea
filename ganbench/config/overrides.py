"""Read what was typed before Hydra does: in the order and with the quotes it needs, and without what it would answer
with a traceback, or not at all.
"""

import os
import re
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf

from ganbench.config.compose import option_names
from ganbench.config.messages import quoted
from ganbench.config.schema import CONF, Config
from ganbench.errors import Refused, did_you_mean, meaning_of, unknown_key_message, unknown_option_message

# Values that are no texts in Hydra's grammar, which raises a bare ValueError for them as the option of a group.
NO_TEXT = re.compile(r"(?<=[=,])(null|true|false|nan|[-+]?[\d.]+)(?=,|$)", re.IGNORECASE)

# Settings that are any text, such as a path: Hydra's grammar would make lists, numbers or nothing of some of them.
TEXTS = (
    "dataset.background",
    "dataset.held_out",
    "dataset.root",
    "metric.features.weights",
    "name",
    "wandb.dir",
    "wandb.entity",
    "wandb.group",
    "wandb.name",
    "wandb.notes",
    "wandb.project",
)
PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*|")  # what Hydra reads as it is, but for the words below
WORDS = ("true", "false", "nan", "inf")
# What Hydra shall read: null, a text in quotes, an interpolation, and the functions that list values.
FUNCTIONS = "choice|extend_list|glob|interval|range|shuffle|sort|tag"
FOR_HYDRA = re.compile(rf"""(?i:null)|'.*'|".*"|.*\$\{{.*|({FUNCTIONS})\(.*\)""", re.DOTALL)

LIST = re.compile(r"(^|,)\s*\[")  # a list, or several values of which one is a list
EMPTY = re.compile(r"\{\s*\}")

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
LIST_OF_FLAGS = "python -m ganbench --hydra-help lists the flags"
HYDRA_GROUPS = ("env", "help", "hydra_help", "hydra_logging", "job_logging", "launcher", "output", "sweeper")


def as_hydra_reads(arguments: Sequence[str]) -> list[str]:
    """Return a command line that means to Hydra what this one means to people. Raise Refused for its flags."""
    _reject_unknown_flags(arguments)
    parsed = _parsed(arguments)
    overrides = parsed.pop("overrides")
    _reject_flags_at_odds(parsed)
    if parsed["multirun"] and parsed["cfg"]:
        overrides.append(f"hydra.sweeper.show={parsed.pop('cfg')}")  # Hydra itself shows no sweep
    # First the flags, since Hydra reads no override after a flag that follows others.
    flags = [_flag(name, value) for name, value in parsed.items() if value]
    return flags + written_for_hydra(overrides)


def _parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """Read a command line by Hydra's own parser, and refuse where that would print its whole usage."""
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        parsed, unknown = parser.parse_known_intermixed_args(arguments)
    except ArgumentError as error:
        raise Refused(f"{error.argument_name}: {error.message}; {LIST_OF_FLAGS}.") from None
    if unknown:
        raise Refused(f"{unknown[0]} is not a flag; {LIST_OF_FLAGS}.")
    return vars(parsed)


def completion_of_line(arguments: Sequence[str]) -> list[str]:
    """Return the flags and overrides with which Hydra completes a line; put the line into the order that it needs.

    A shell hands over the line in COMP_LINE. Hydra completes only overrides, and knows no folders that the line names.
    """
    if "COMP_LINE" not in os.environ or not {"-sc", "--shell-completion"} & set(arguments):
        return list(arguments)
    program, *typed, word = os.environ["COMP_LINE"].split(" ")
    overrides = [each for each in typed if "=" in each and not each.startswith("-")]
    multirun = [each for each in typed if each in ("-m", "--multirun")]
    os.environ["COMP_LINE"] = " ".join([program, *multirun, *overrides, word])
    folders = [f"--config-dir={folder}" for flag, folder in pairwise(typed) if flag in ("--config-dir", "-cd")]
    folders += [each for each in typed if each.startswith(("--config-dir=", "hydra.searchpath="))]
    return [*arguments, *folders]


def written_for_hydra(overrides: Sequence[str]) -> list[str]:
    """Write overrides so that Hydra reads what is meant: with quotes where it needs them."""
    chosen = [_choose(override) for override in overrides]
    return [_quote_text(_quote_option(override)) for override in chosen if override != "experiment=null"]  # the default


def _flag(name: str, value: str | bool) -> str:
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag}={value}"


def _choose(override: str) -> str:
    """Write `+group=option` as `group=option`: all groups of ganbench have an option already, or null."""
    return override.lstrip("+") if override.startswith("+") and _is_of_a_group(override) else override


def _quote_option(override: str) -> str:
    """Quote options such as `loss=1` and `penalty=null`, so that Hydra looks for them and lists those there are."""
    return NO_TEXT.sub(r"'\1'", override) if _is_of_a_group(override) else override


def _is_of_a_group(override: str) -> bool:
    group = override.lstrip("+").partition("=")[0]
    return bool(group) and (CONF / group).is_dir()


def _quote_text(override: str) -> str:
    """Quote texts such as `dataset.root=~/my photos (2)`. Commas separate several, unless such a path exists."""
    key, equals, value = override.partition("=")
    if not equals or key.lstrip("+") not in TEXTS:
        return override
    is_one = os.path.exists(os.path.expanduser(value))
    if FOR_HYDRA.fullmatch(value) and not is_one:
        return override
    texts = [value] if is_one else value.split(",")
    return f"{key}={','.join(text if _is_plain(text) else quoted(text) for text in texts)}"


def _is_plain(text: str) -> bool:
    return bool(PLAIN.fullmatch(text)) and text.lower() not in WORDS


def reject_senseless_overrides(overrides: Sequence[str]) -> None:
    """Raise Refused for what Hydra would answer with a traceback, or drop silently: `+key=value` of a key not there."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if not key and "=" in override:
            raise Refused(f"{override} names no setting; write key=value or group=option.")
        if key.startswith("experiment.") or re.match(r"\+*experiment=\{", override):
            names = ", ".join(option_names("experiment"))
            raise Refused(f"{key}: an experiment has no settings of its own; use experiment=..., with one of: {names}.")
        if override == f"~{key}":
            _reject_removal(key)
        if key == "paper":
            raise Refused("paper=...: what a paper says is in its recipe; use experiment=paper/..., with its name.")
        _reject_unknown_group(key)
        if _is_of_a_group(override) or "/" in key:
            _reject_no_option(key, override.partition("=")[2])
        group, _, setting = key.partition(".")
        schema = _schema_of(group)
        if override.startswith("+") and setting and schema:
            fields = list(schema.__dataclass_fields__)
            if setting.partition(".")[0] not in fields:
                raise Refused(unknown_key_message(key, fields))


def _reject_removal(key: str) -> None:
    """Refuse to remove what every run has. OmegaConf would name the first setting that lacks it, not the cause."""
    if key in Config.__dataclass_fields__:
        options = option_names(key)
        value = f", with one of: {', '.join(options)}" if options else " with another value"
        raise Refused(f"~{key}: {key} cannot be removed; pass {key}=...{value}.")


def _reject_unknown_flags(arguments: Sequence[str]) -> None:
    """Refuse a misspelt `--flag` with the nearest one, and one that may be several; argparse would print its usage."""
    for argument in arguments:
        flag = argument.partition("=")[0]
        if not flag.startswith("--") or flag == "--":
            continue
        meant = [known for known in FLAGS if known.startswith(flag)]
        if len(meant) > 1:
            raise Refused(f"{flag} may be {' or '.join(meant)}; write it in full.")
        if not meant:
            if meaning := meaning_of(flag.removeprefix("--")):
                raise Refused(f"{flag} is not a flag; {meaning}.")
            hint = did_you_mean(flag, FLAGS)
            raise Refused(f"{flag} is not a flag; {hint}use one of: {', '.join(FLAGS)}.")


def _reject_flags_at_odds(parsed: dict[str, Any]) -> None:
    """Refuse what Hydra would answer with a traceback: two things to do at once."""
    tasks = [flag for flag in ("run", "multirun", "cfg", "shell_completion", "info") if parsed[flag]]
    if len(tasks) > 1 and tasks != ["multirun", "cfg"]:
        written = [f"--{flag.replace('_', '-')}" for flag in tasks]
        raise Refused(f"{' and '.join(written)} are two things to do; use one of them.")
    if parsed["resolve"] and tasks != ["cfg"] and not parsed["help"]:
        raise Refused("--resolve resolves what --cfg shows of one run; use it with --cfg job, and without -m.")
    if parsed["experimental_rerun"]:
        raise Refused("--experimental-rerun is of Hydra alone; rerun the same command, with its name=..., instead.")
    if parsed["config_path"]:
        folder = parsed["config_path"]
        raise Refused(f"--config-path={folder}: ganbench has its own; add your options by --config-dir={folder}.")
    if parsed["config_dir"]:
        _check_config_dir(Path(parsed["config_dir"]))
    if parsed["package"] and tasks != ["cfg"]:
        raise Refused("--package is a part of what --cfg shows of one run; use it with --cfg job, and without -m.")


def _check_config_dir(folder: Path) -> None:
    """Refuse what is no folder of groups: Hydra would not find an option in it, and not say why."""
    if not folder.is_dir():
        raise Refused(
            f"--config-dir={folder} is not a folder; pass the one that holds your options, such as options/ for "
            "options/loss/relaxed.yaml."
        )
    group = Path(os.path.abspath(folder)).name
    groups = [place.name for place in CONF.iterdir() if place.is_dir()]
    has_groups = any((folder / name).is_dir() for name in groups)  # then other files may be beside them
    if group in groups and not has_groups and any(folder.glob("*.yaml")):
        raise Refused(
            f"--config-dir={folder} holds options of the group {group}; pass the folder above it: "
            f"--config-dir={os.path.normpath(folder / '..')}."
        )


def _reject_unknown_group(key: str) -> None:
    """Refuse `hydra/…` groups that Hydra does not have, and `group@package`, for no group has a second place."""
    group, at, package = key.partition("@")
    if at:
        raise Refused(f"{key}: {group} has one place only, not {package} as well; write {group}=... instead.")
    parent, slash, name = key.partition("/")
    if slash and parent == "hydra" and name not in HYDRA_GROUPS:
        hint = did_you_mean(name, HYDRA_GROUPS)
        raise Refused(f"{key} is not a group of options; {hint}hydra has: {', '.join(HYDRA_GROUPS)}.")


def _reject_no_option(group: str, value: str) -> None:
    """Refuse a list of options, of which Hydra would make a mixture, and settings that are none.

    Only experiments may be a list: each is a setup, and the later one changes what it sets.
    """
    options = option_names(group)
    is_list = bool(LIST.search(value)) and not FOR_HYDRA.fullmatch(value)
    if is_list and group == "experiment":
        for option in re.findall(r"[^\s,\[\]'\"]+", value):
            if option.removesuffix(".yaml") not in options:
                raise Refused(unknown_option_message(group, option, options))
    elif is_list or EMPTY.fullmatch(value):
        fix = f"use one of: {', '.join(options)}" if options else f"write {group}=... with the name of one"
        several = ", or with -m several without brackets" if is_list and options else ""  # Hydra's own are no sweeps
        is_wrong = "must be one option, not a list" if is_list else "sets nothing"
        raise Refused(f"{group}={value} {is_wrong}; {fix}{several}.")


def _schema_of(group: str) -> Any:
    """Return the dataclass of a group's settings, None for a group that is free to have any."""
    if group == "hydra":
        return HydraConf
    field = Config.__dataclass_fields__.get(group)
    schema = field.default_factory if field else None
    return schema if is_dataclass(schema) else None
