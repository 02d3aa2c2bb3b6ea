"""Refuses what cannot be run, before anything is written. Nothing here imports torch, so it answers at once."""

import ast
import difflib
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ganbench.config import GROUPS, Config, Refused, options
from ganbench.signature import NoSuchTarget, fits, signature

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
    for group in GROUPS:
        if f"{group}=null" in overrides:
            raise Refused(f"{group}=null is not an option: choose one of {', '.join(options(group))}.")


def _check_groups(cfg: DictConfig) -> None:
    unknown = set(cfg) - set(Config.__dataclass_fields__)
    if unknown:
        raise Refused(unknown_key(sorted(unknown)[0], list(Config.__dataclass_fields__)))
    for group in GROUPS:
        node = cfg[group]
        if "name" not in node:
            raise Refused(f"{group} has no name: add `name: …` to its YAML file; labels are made of it.")
        missing = [k for k in node if OmegaConf.is_missing(node, k)]
        if missing:
            raise Refused(f"{group}.{missing[0]} has no value: give one with {group}.{missing[0]}=…")


def unknown_key(key: str, allowed: list[str], value: Any = None) -> str:
    close = difflib.get_close_matches(key.rpartition(".")[2], allowed, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    said = f"{key}={value}" if value is not None else key
    return f"{said}: there is no setting {key}.{hint} Allowed here: {', '.join(sorted(allowed))}."


def _check_targets(node: Any, path: str) -> None:
    """Hold every `_target_` below `node` against the signature of what it names."""
    if isinstance(node, DictConfig) and "_target_" in node:
        arguments = _arguments(node["_target_"], path)
        given = [k for k in node if k not in ("name", "_target_", "_partial_")] if arguments is not None else []
        for key in given:
            if key not in arguments:
                allowed = [a for a in arguments if a not in GIVEN_BY_CODE]
                raise Refused(unknown_key(f"{path}.{key}", allowed, node[key]))
            if not fits(node[key], arguments[key]):
                raise Refused(f"{path}.{key}={node[key]} does not fit: allowed is {ast.unparse(arguments[key])}.")
    if isinstance(node, DictConfig):
        for key in node:
            _check_targets(node[key], f"{path}.{key}")


def _arguments(target: str, path: str) -> dict[str, ast.expr | None] | None:
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
    ("optimizer.lr", lambda v: 0 < v < float("inf"), "above 0, and finite"),
    ("penalty.weight", lambda v: 0 <= v < float("inf"), "0 or more, and finite"),
    ("penalty.c", lambda v: 0 < v < float("inf"), "above 0, and finite"),
    ("penalty.scale", lambda v: 0 <= v < float("inf"), "0 or more, and finite"),
    ("model.width", lambda v: v >= 1, "1 or more"),
    ("model.z_dim", lambda v: v >= 1, "1 or more"),
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
