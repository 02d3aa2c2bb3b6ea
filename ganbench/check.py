"""Refuses what cannot be run, before anything is written. Nothing here imports torch, so it answers at once."""

import ast
import difflib
import re
import sys
from collections.abc import Callable
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from ganbench.config import CONF, GROUPS, Config, Refused, label, options, root_cause
from ganbench.signature import Argument, NoSuchTarget, fits, signature

# What the trainer itself hands to what a group's option names.
GIVEN_BY_CODE = ("D", "real", "fake", "rng", "data", "device", "name", "params")


def check(cfg: DictConfig) -> None:
    """Raise Refused for a setting that is unknown, of the wrong type, out of range or at odds with another."""
    _check_groups(cfg)
    _check_method(cfg)
    _check_pairs(cfg)
    for group in (*GROUPS, "optimizer"):
        _check_targets(cfg[group], group)
    _check_ranges(cfg)


def refuse_no_name(overrides: list[str]) -> None:
    """Hydra would stumble over `penalty=null` or `loss=1` without a word of what to write instead."""
    no_name = re.compile(r"(^|,)(null|true|false|nan|[-+]?[\d.]+)(,|$)", re.IGNORECASE)
    for override in overrides:
        group, _, values = override.lstrip("+").partition("=")
        if (CONF / group).is_dir() and no_name.search(values):
            raise Refused(
                f"{override}: that is no option of {group}; leave it out, or choose {' or '.join(options(group))}."
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


def _check_method(cfg: DictConfig) -> None:
    """A protocol that has settings by method must have this one's."""
    known = cfg.protocol.authors
    if known is not None and label(cfg) not in known:
        raise Refused(
            f"protocol={cfg.protocol.name} has no settings for {label(cfg)}: it knows {', '.join(known)}; "
            "choose one of these, or protocol=equal."
        )


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


# What is allowed, the test that a good value passes, and the keys it holds for. What others copy stands first.
RANGES = (
    ("0 or more", lambda v: v >= 0, "seed"),
    (
        "1 or more",
        lambda v: v >= 1,
        "threads checkpoint_every protocol.images protocol.n_critic protocol.evaluations protocol.log_every "
        "model.width model.z_dim model.generator.width model.critic.width dataset.modes dataset.side "
        "metric.neighbours probe.steps",
    ),
    ("2 or more", lambda v: v >= 2, "protocol.batch metric.n_fake"),
    ("a multiple of 16", lambda v: v >= 16 and v % 16 == 0, "probe.n"),
    ("a list of numbers from 0 to 1", lambda v: all(0 <= m <= 1 for m in v), "probe.moments"),
    ("2 or more, or null for all", lambda v: v is None or v >= 2, "metric.n_real metric.n_train"),
    ("0, or 3 or more", lambda v: v == 0 or v >= 3, "metric.sizes"),
    ("20 or more", lambda v: v >= 20, "dataset.n"),
    (
        "above 0, and finite",
        lambda v: 0 < v < float("inf"),
        "protocol.lr optimizer.lr optimizer.generator.lr optimizer.critic.lr penalty.c dataset.std dataset.radius",
    ),
    ("0 or more, and finite", lambda v: 0 <= v < float("inf"), "protocol.penalty_weight penalty.weight penalty.scale"),
    ("at least 0 and below 1", lambda v: 0 <= v < 1, "protocol.ema"),
    ("above 0 and below 1", lambda v: 0 < v < 1, "dataset.test_share"),
    (
        "two numbers from 0 to below 1",
        lambda v: len(v) == 2 and all(0 <= b < 1 for b in v),
        "protocol.betas optimizer.generator.betas optimizer.critic.betas",
    ),
)


def _check_ranges(cfg: DictConfig) -> None:
    for words, good, keys in RANGES:
        for key in keys.split():
            _check_range(cfg, key, good, words)
    _check_budget(cfg.protocol)
    if not cfg.name or set(cfg.name) & set("/\\\0") or cfg.name in (".", ".."):
        raise Refused(f"name={cfg.name} cannot be a folder: allowed is a plain name without slashes.")


def _check_range(cfg: DictConfig, key: str, good: Callable[[Any], bool], words: str) -> None:
    node, _, last = key.rpartition(".")
    parent = OmegaConf.select(cfg, node) if node else cfg
    if last not in parent:
        return
    refuse_outside(key, parent[last], good, words)


def refuse_outside(key: str, value: Any, good: Callable[[Any], bool], words: str) -> None:
    """Raise Refused for a value that is not good, or of a kind that cannot be asked."""
    try:
        fine = good(value)
    except TypeError:
        fine = False
    if not fine:
        raise Refused(f"{key}={value} is out of range: allowed is {words}.")


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
        ("metric", "modes_kl", shape[:1] == [3] and "stacked" in cfg.dataset.name, "stacked digits", "metric=fid"),
    )
    for group, name, fine, what, cure in needs:
        if cfg[group].name == name and not fine:
            raise Refused(f"{group}={name} is for {what}, not for {data}: try {cure}.")


def explained(error: Exception) -> str:
    """Key, value and what is allowed, from Hydra's or OmegaConf's own error."""
    cause = root_cause(error)
    key, parent = getattr(cause, "full_key", None), getattr(cause, "parent_node", None)
    if isinstance(error, (MissingConfigException, OverrideParseException)) or not key:
        return str(error)
    said = next((a for a in sys.argv[1:] if a.lstrip("+~").split("=")[0] == key), key)
    if parent is not None and cause.key is not None and "not in" in str(cause):
        return unknown_key(key, [str(k) for k in parent if not str(k).startswith("_")], said.partition("=")[2] or None)
    return f"{said}: {str(cause).splitlines()[0]}"
