"""Turn settings and the errors of Hydra and OmegaConf into one plain sentence."""

import re
import shlex
from enum import Enum
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganbench.config.schema import CONF, Config
from ganbench.config.typed import typed_arguments
from ganbench.errors import (
    RENAMED,
    Refused,
    did_you_mean,
    meaning_of,
    renamed_message,
    unknown_key_message,
    unknown_option_message,
)

# What OmegaConf says of a value that has the wrong type, and what the setting must do.
TYPE_ERRORS = (
    (r"expected one of \[(.*)\]", r"be one of: \1"),
    (r"could not be converted to Integer", "be a whole number"),
    (r"could not be converted to Float", "be a number"),
    (r"not a valid bool|could not be converted to Boolean", "be true or false"),
    (r"Incompatible value 'None'|not Optional", "not be null"),
    (r"Cannot assign \w+ to Dict", "be a mapping"),
    (r"Cannot convert '\w+' to string|not a valid input for <enum", "be a single word"),
)


# What Hydra, OmegaConf and YAML raise for settings that they cannot read.
UNREADABLE = (HydraException, OmegaConfBaseException, yaml.YAMLError)


def root_cause(error: BaseException) -> BaseException:
    """Return the error that all others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def setting(key: str, value: Any) -> str:
    """Write `key=value` as it was typed on the command line; a value from elsewhere as YAML writes it."""
    for argument in reversed(typed_arguments()):
        typed_key, _, text = argument.lstrip("+").partition("=")
        if typed_key == key and _stands_for(text, value):
            return f"{key}={value if isinstance(value, str) else text}"  # a text without quotes
    return f"{key}={_as_yaml(value)}"


def _stands_for(text: str, value: Any) -> bool:
    """Tell whether `text` is how `value` was typed."""
    try:
        if type(value) in (int, float):
            return float(text) == value
        return text == value or yaml.safe_load(text) == value
    except (ValueError, yaml.YAMLError):
        return False


def _as_yaml(value: Any) -> str:
    if OmegaConf.is_list(value):
        return f"[{', '.join(map(_as_yaml, value))}]"
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def quoted(text: str) -> str:
    """Quote a text for Hydra, which then reads it as it is, whatever characters are in it."""
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", text).replace("'", "\\'")
    return f"'{escaped}'"


def one_line_error(error: Exception) -> str:
    """Say in one sentence what Hydra, OmegaConf or a check of ours found wrong."""
    message = str(error)
    if isinstance(error, Refused):
        return message
    if isinstance(error, yaml.YAMLError):
        return f"A YAML file cannot be read: {' '.join(message.split())}."
    for name in RENAMED:
        if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.=-])", message):
            return renamed_message(name)
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if ambiguous := re.match(r"Ambiguous value for argument '(.+)'\n", message):
        return _several_values(ambiguous[1])
    if missing := re.match(r"Could not delete from config. '(.+)' does not exist", message):
        return f"~{missing[1]}: there is no {missing[1]} to remove; python -m ganbench --cfg job shows all settings."
    if of_recipe := re.match(r"Could not override '(paper/.+?)'", message):
        return f"{of_recipe[1]}=... chooses among the settings of a recipe; add experiment={of_recipe[1]}."
    if in_yaml := re.match(r"In '(.+?)': .*?Key '(.+?)' not in '(.+?)'", " ".join(message.split())):
        return f"{in_yaml[1]}.yaml: {in_yaml[2]} is not a setting of {in_yaml[3].lower()}; remove or correct it."
    cause = root_cause(error)
    return _key_error(cause) if isinstance(cause, OmegaConfBaseException) and cause.full_key else _one_line(message)


def _unreadable(override: str | None) -> str:
    """Say how to write what Hydra's grammar cannot read."""
    key, equals, value = (override or "").partition("=")
    if not (key and equals):
        return f"{override} cannot be read; write key=value or group=option."
    if value.endswith(","):
        return f"{override} ends with a comma, as where a shell splits at a space; write the values without spaces."
    if value.count("[") > value.count("]"):
        return f"{override} has a bracket that nothing closes; write {key}=[...], without spaces."
    if (CONF / key.lstrip("+")).is_dir():
        return (
            f"{override} cannot be read; write {key}= and the name of an option: python -m ganbench --help lists them."
        )
    in_quotes = _for_shell(f"{key}={quoted(value)}")
    return f"{override} cannot be read; quote the value, and for the shell all of it: {in_quotes}"


def _for_shell(argument: str) -> str:
    """Quote an argument as a shell needs it, in the way that is easier to read."""
    return shlex.quote(argument) if set(argument) & set('"$`\\!') else f'"{argument}"'


def _several_values(override: str) -> str:
    """Say how to run several values, if the setting is one."""
    key = override.partition("=")[0].lstrip("+")
    meaning = meaning_of(key)
    if meaning and key not in Config.__dataclass_fields__:
        return f"{key} is not a setting; {meaning}."
    return f"{override} has several values; add -m to run a sweep over them."


def _missing_option(error: MissingConfigException) -> str:
    """Name the options there are, a user's own included."""
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if option and not group and f"--config-name={option}" in typed_arguments():
        return f"--config-name={option}: there is no such configuration; ganbench needs none, so leave it out."
    if not group or error.options is None:
        return _one_line(str(error))
    file = re.match(r"In '(.+?)'", str(error))  # whose defaults list asks for it; `config` is the command line, too
    where = "" if file is None or file[1] in ("config", "hydra/config") else f"{file[1]}.yaml: "
    options = list(error.options)
    if group.startswith("experiment"):  # Hydra lists no options in folders
        group, _, option = (error.missing_cfg_file or "").partition("/")
        options += [f"paper/{file.stem}" for file in (CONF / "experiment/paper").glob("*.yaml")]
    return where + unknown_option_message(group, option, options)


def _key_error(cause: OmegaConfBaseException) -> str:
    """Say what OmegaConf found wrong with the key that it names."""
    key = str(cause.full_key)
    reason = str(cause).splitlines()[0]
    if cause.parent_node is not None and cause.key is not None and "not in" in reason:
        return unknown_key_message(key, map(str, cause.parent_node), owner(key, cause.parent_node))
    overrides = [argument.lstrip("+~") for argument in typed_arguments()]
    written = next((override for override in overrides if override.partition("=")[0] == key), key)
    if reason.endswith("does not support deletion"):
        return f"~{key}: {key} cannot be removed; pass {key}=... with another value."
    if reason == "Cannot merge DictConfig with ListConfig":  # whichever of the two the setting is
        return f"{written} must be a {'list' if cause.object_type is list else 'mapping'}."
    for pattern, allowed in TYPE_ERRORS:
        if found := re.search(pattern, reason):
            return f"{written} must {found.expand(allowed)}{_nearest(written, found)}"
    return f"{written}: {reason}"


def _nearest(written: str, found: re.Match[str]) -> str:
    """End the sentence, by asking whether the nearest of the allowed values was meant if there is one."""
    typed = written.partition("=")[2]
    if found[0].endswith("Integer"):
        return _as_whole_number(typed)
    allowed = found[1].split(", ") if found.groups() else []
    question = did_you_mean(typed, allowed, end="")
    return f"; {question}" if question else "."


def _as_whole_number(typed: str) -> str:
    """End a sentence about a number such as 1e5, which YAML takes for one that may have decimals."""
    try:
        number = float(typed)
    except ValueError:
        return "."
    return f"; did you mean {number:.0f}?" if number.is_integer() and abs(number) < 1e15 else "."


def owner(key: str, node: Any) -> str:
    """Name what holds the setting `key`: the option of a group, as in `loss=gan`, or else the path."""
    parent = key.rpartition(".")[0]
    name = node.get("name") if parent and "." not in parent and OmegaConf.is_dict(node) else None
    return f"{parent}={name}" if isinstance(name, str) else parent


def _one_line(message: str) -> str:
    """Join the lines of Hydra's own messages; links to its documentation of another version are left out."""
    lines = [line.strip() for line in message.splitlines() if line.strip() and not line.startswith("See https")]
    return "; ".join(lines)
