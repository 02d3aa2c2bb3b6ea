"""Refuses what cannot be run, before anything is written. Nothing here imports torch, so it answers at once."""

import ast
import difflib
import re
import sys
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from ganbench.config import CONF, GROUPS, Config, Refused, options
from ganbench.signature import Argument, NoSuchTarget, fits, signature

# What the trainer itself hands to what a group's option names.
GIVEN_BY_CODE = ("self", "D", "real", "fake", "rng", "data", "device", "name", "params")


def check(cfg: DictConfig) -> None:
    """Raise Refused for a setting that is unknown, of the wrong type, out of range or at odds with another."""
    _check_groups(cfg)
    _check_pairs(cfg)
    for group in (*GROUPS, "optimizer"):
        _check_targets(cfg[group], group)
    _check_ranges(cfg)


def refuse_null(overrides: list[str]) -> None:
    """Hydra would stumble over `penalty=null` without a word of what to write instead."""
    for override in overrides:
        group, _, values = override.lstrip("+").partition("=")
        if (CONF / group).is_dir() and "null" in values.split(","):
            raise Refused(
                f"{override}: null is not an option of {group}; leave it out, or choose {' or '.join(options(group))}."
            )


def _check_groups(cfg: DictConfig) -> None:
    unknown = set(cfg) - set(Config.__dataclass_fields__)
    if unknown:
        raise Refused(unknown_key(sorted(unknown)[0], list(Config.__dataclass_fields__)))
    for group in (*GROUPS, "optimizer", "protocol", "wandb"):
        if OmegaConf.is_missing(cfg, group):
            raise Refused(f"{group} is missing: choose one of {', '.join(options(group))}.")
    for group in GROUPS:
        node = cfg[group]
        if not re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-]", str(node.get("name", ""))):
            raise Refused(
                f"{group}.name={node.get('name')} cannot be part of a folder's name: "
                "its YAML file needs `name: …` of letters, digits, - and _."
            )
        if "_target_" not in node and group != "model":
            raise Refused(f"{group} has no _target_: its YAML file must name the class or function that it stands for.")
        missing = [k for k in node if OmegaConf.is_missing(node, k)]
        if missing:
            raise Refused(f"{group}.{missing[0]} has no value: give one with {group}.{missing[0]}=…")


def unknown_key(key: str, allowed: list[str], value: Any = None) -> str:
    close = difflib.get_close_matches(key.rpartition(".")[2], allowed, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    said = f"{key}={value}" if value is not None else key
    here = f"Allowed here: {', '.join(sorted(allowed))}." if allowed else "Nothing can be set here."
    return f"{said}: there is no setting {key}.{hint} {here}"


def _check_targets(node: Any, path: str) -> None:
    """Hold every `_target_` below `node` against the signature of what it names."""
    if not isinstance(node, DictConfig):
        return
    if "_target_" in node:
        _check_arguments(node, path, _arguments(node["_target_"], path))
    for key in node:
        _check_targets(node[key], f"{path}.{key}")


def _check_arguments(node: DictConfig, path: str, arguments: dict[str, Argument] | None) -> None:
    if arguments is None:
        return
    settable = {name: argument for name, argument in arguments.items() if name not in GIVEN_BY_CODE}
    for key in [k for k in node if k not in ("name", "_target_", "_partial_")]:
        if key not in settable:
            raise Refused(unknown_key(f"{path}.{key}", list(settable), node[key]))
        if not fits(node[key], settable[key].annotation):
            raise Refused(f"{path}.{key}={node[key]} does not fit: allowed is {ast.unparse(settable[key].annotation)}.")
    for name, argument in settable.items():
        if argument.required and name not in node:
            raise Refused(f"{path}.{name} has no value: {node['_target_']} needs one; give it with +{path}.{name}=…")
    if "rng" in arguments and not node.get("_partial_"):
        raise Refused(f"{path}: {node['_target_']} is called with samples later: add `_partial_: true` to its YAML.")


def _arguments(target: str, path: str) -> dict[str, Argument] | None:
    try:
        return signature(target)
    except NoSuchTarget as missing:
        raise Refused(f"{path}._target_={target}: {missing}.") from None


# key, the test that a good value passes, and the words for it
RANGES = (
    ("seed", lambda v: v >= 0, "0 or more"),
    ("threads", lambda v: v >= 1, "1 or more"),
    ("protocol.images", lambda v: v >= 1, "1 or more"),
    ("protocol.batch", lambda v: v >= 2, "2 or more"),
    ("protocol.n_critic", lambda v: v >= 1, "1 or more"),
    ("protocol.lr", lambda v: 0 < v < float("inf"), "above 0, and finite"),
    ("protocol.ema", lambda v: 0 <= v < 1, "at least 0 and below 1"),
    ("protocol.penalty_weight", lambda v: 0 <= v < float("inf"), "0 or more, and finite"),
    ("protocol.evaluations", lambda v: v >= 1, "1 or more"),
    ("protocol.log_every", lambda v: v >= 1, "1 or more"),
    ("protocol.betas", lambda v: len(v) == 2 and all(0 <= b < 1 for b in v), "two numbers from 0 to below 1"),
    ("optimizer.lr", lambda v: 0 < v < float("inf"), "above 0, and finite"),
    ("optimizer.generator.lr", lambda v: 0 < v < float("inf"), "above 0, and finite"),
    ("optimizer.critic.lr", lambda v: 0 < v < float("inf"), "above 0, and finite"),
    (
        "optimizer.generator.betas",
        lambda v: len(v) == 2 and all(0 <= b < 1 for b in v),
        "two numbers from 0 to below 1",
    ),
    ("optimizer.critic.betas", lambda v: len(v) == 2 and all(0 <= b < 1 for b in v), "two numbers from 0 to below 1"),
    ("penalty.weight", lambda v: 0 <= v < float("inf"), "0 or more, and finite"),
    ("penalty.c", lambda v: 0 < v < float("inf"), "above 0, and finite"),
    ("penalty.scale", lambda v: 0 <= v < float("inf"), "0 or more, and finite"),
    ("model.width", lambda v: v >= 1, "1 or more"),
    ("model.z_dim", lambda v: v >= 1, "1 or more"),
    ("model.generator.width", lambda v: v >= 1, "1 or more"),
    ("model.critic.width", lambda v: v >= 1, "1 or more"),
    ("dataset.n", lambda v: v >= 20, "20 or more"),
    ("dataset.modes", lambda v: v >= 1, "1 or more"),
    ("dataset.side", lambda v: v >= 1, "1 or more"),
    ("dataset.std", lambda v: 0 < v < float("inf"), "above 0, and finite"),
    ("dataset.radius", lambda v: 0 < v < float("inf"), "above 0, and finite"),
    ("metric.n_fake", lambda v: v >= 2, "2 or more"),
    ("metric.n_real", lambda v: v is None or v >= 2, "2 or more, or null for all"),
    ("dataset.test_share", lambda v: 0 < v < 1, "above 0 and below 1"),
)


def _check_ranges(cfg: DictConfig) -> None:
    for key, good, words in RANGES:
        node, _, last = key.rpartition(".")
        parent = OmegaConf.select(cfg, node) if node else cfg
        if last not in parent:
            continue
        value = parent[last]
        try:
            fine = good(value)
        except TypeError:
            fine = False
        if not fine:
            raise Refused(f"{key}={value} is out of range: allowed is {words}.")
    _check_budget(cfg.protocol)
    if not cfg.name or set(cfg.name) & set("/\\\0") or cfg.name in (".", ".."):
        raise Refused(f"name={cfg.name} cannot be a folder: allowed is a plain name without slashes.")


def _check_budget(protocol: DictConfig) -> None:
    unit = protocol.batch * protocol.n_critic
    steps, rest = divmod(protocol.images, unit)
    if rest:
        near = ", ".join(str(n * unit) for n in (steps, steps + 1) if n)
        raise Refused(
            f"protocol.images={protocol.images} is no whole number of generator steps of "
            f"n_critic {protocol.n_critic} x batch {protocol.batch} = {unit} images: allowed nearby are {near}."
        )
    if steps < protocol.evaluations:
        raise Refused(
            f"protocol.evaluations={protocol.evaluations} is more than the {steps} generator steps "
            f"of protocol.images={protocol.images}: allowed are 1 to {steps}."
        )


def _check_pairs(cfg: DictConfig) -> None:
    """Refuse built-in options that cannot work together; a user's own options are judged when they are built."""
    shape = list(cfg.dataset.get("shape") or [])
    points, grey = len(shape) == 1, shape[:1] == [1]
    data = f"dataset={cfg.dataset.name} (shape {shape})"
    if cfg.dataset._target_ in ("ganbench.data.ring", "ganbench.data.grid") and shape != [2]:
        raise Refused(f"dataset.shape={shape} does not suit {cfg.dataset.name}: allowed is [2].")
    if len(shape) == 3 and shape[0] not in (1, 3):
        raise Refused(f"dataset.shape={shape} has {shape[0]} channels: allowed are 1 (grey) and 3 (colour).")
    if cfg.model.get("generator", {}).get("z_dim", cfg.model.get("z_dim")) != cfg.model.get("z_dim"):
        raise Refused(
            f"model.generator.z_dim={cfg.model.generator.z_dim} is not model.z_dim={cfg.model.z_dim}: set the latter."
        )
    needs = (
        ("model", "dcgan", len(shape) == 3 and shape[1:] == [32, 32], "images of 32x32", "model=mlp"),
        ("model", "mlp", points, "points, not images", "model=dcgan"),
        ("metric", "fd_lenet", grey and len(shape) == 3, "grey images", "metric=fid or metric=modes"),
        ("metric", "fid", len(shape) == 3, "images", "metric=modes"),
        ("metric", "energy_distance", points, "2-D mixtures (ring, grid)", "metric=fd_lenet or metric=fid"),
    )
    for group, name, fine, what, cure in needs:
        if cfg[group].name == name and not fine:
            raise Refused(f"{group}={name} is for {what}, not for {data}: try {cure}.")


def explained(error: Exception) -> str:
    """Key, value and what is allowed, from Hydra's or OmegaConf's own error."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    key, parent = getattr(cause, "full_key", None), getattr(cause, "parent_node", None)
    if isinstance(error, (MissingConfigException, OverrideParseException)) or not key:
        return str(error)
    said = next((a for a in sys.argv[1:] if a.lstrip("+~").split("=")[0] in (key, key.split(".")[0])), key)
    if key not in said:
        said = key
    if parent is not None and cause.key is not None and "not in" in str(cause):
        return unknown_key(key, [str(k) for k in parent if not str(k).startswith("_")], said.partition("=")[2] or None)
    return f"{said}: {str(cause).splitlines()[0]}"
