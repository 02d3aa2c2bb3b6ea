"""Refuses what cannot be run, before anything is written. Nothing here imports torch, so it answers at once."""

import ast
import os
import re
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf

from ganbench.config.compose import method_label, option_names, resolve, root_cause
from ganbench.config.schema import CONF, GROUPS, Config, Track
from ganbench.config.signature import Argument, NoSuchTarget, accepts_argument, fits_annotation, signature
from ganbench.errors import Refused, unknown_key_message

# What the trainer itself hands to what a group's option names.
GIVEN_BY_CODE = ("D", "real", "fake", "rng", "data", "device", "name", "params")

# Of these the trainer builds its objects, besides of the groups themselves.
TARGET_NODES = ("model.generator", "model.critic", "optimizer.generator", "optimizer.critic", "metric.features")


def validate(cfg: DictConfig) -> None:
    """Raise Refused for a setting that is unknown, of the wrong type, out of range or at odds with another."""
    _check_leaves(cfg, "")
    _check_groups(cfg)
    _check_parts(cfg)
    _check_protocol(cfg)
    check_value("dataset.shape", "dataset.shape", cfg.dataset.get("shape"))
    _check_compatibility(cfg)
    for group in (*GROUPS, "optimizer"):
        _check_targets(cfg, cfg[group], group)
    _check_speed(cfg)
    _check_ranges(cfg)
    resolve(cfg)  # what nothing above has read must be readable too


def reject_null_option(overrides: list[str]) -> None:
    """Hydra would stumble over `penalty=null` or `loss=1` without a word of what to write instead."""
    no_name = re.compile(r"(^|,)(null|true|false|nan|[-+]?[\d.]+)(,|$)", re.IGNORECASE)
    for override in overrides:
        group, _, values = override.lstrip("+").partition("=")
        if (CONF / group).is_dir() and no_name.search(values):
            raise Refused(
                f"{override}: that is no option of {group}; leave it out, or choose {' or '.join(option_names(group))}."
            )


def reject_dropped_override(overrides: list[str]) -> None:
    """What `+` adds to a part of a fixed form, such as `+speed.foo=1`, would not be seen again."""
    for override in [override for override in overrides if override.startswith("+")]:
        where, _, value = override.lstrip("+").partition("=")
        group, _, key = where.partition(".")
        form = getattr(Config.__dataclass_fields__.get(group), "default_factory", None)
        if key and is_dataclass(form) and key.partition(".")[0] not in form.__dataclass_fields__:
            raise Refused(unknown_key_message(where, list(form.__dataclass_fields__), value))


def _check_groups(cfg: DictConfig) -> None:
    unknown = set(cfg) - set(Config.__dataclass_fields__)
    if unknown:
        raise Refused(unknown_key_message(sorted(unknown)[0], list(Config.__dataclass_fields__)))
    for group in (*GROUPS, "optimizer", "protocol", "speed", "wandb"):
        if OmegaConf.is_missing(cfg, group):
            raise Refused(f"{group} is missing: choose one of {', '.join(option_names(group))}.")
    for group in GROUPS:
        node = cfg[group]
        name = node.get("name")
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            raise Refused(
                f"{group}.name={name} cannot be part of a folder's name: "
                "its YAML file needs `name: …`, a text of up to 50 letters, digits, - and _."
            )
        if "_target_" not in node and group != "model":
            raise Refused(f"{group} has no _target_: its YAML file must name the class or function that it stands for.")
        missing = [k for k in node if OmegaConf.is_missing(node, k)]
        if missing:
            raise Refused(f"{group}.{missing[0]} has no value: give one with {group}.{missing[0]}=…")


def _check_leaves(node: DictConfig | ListConfig, path: str) -> None:
    """What no key can be, known or not: a number that is none or that no tensor holds, or a text without end."""
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
            continue
        value, where = node[key], f"{path}{key}"
        if OmegaConf.is_config(value):
            _check_leaves(value, f"{where}.")
        limit = 1e18 if isinstance(value, int) else 3e38  # what int64 and float32 hold
        if isinstance(value, int | float) and not -limit < value < limit:
            raise Refused(f"{where}={value} is no number to work with: allowed is any between -{limit} and {limit}.")
        if isinstance(value, str) and len(value) > 1000:
            raise Refused(f"{where}={value[:30]}… has {len(value)} characters: allowed are up to 1000.")


def _check_parts(cfg: DictConfig) -> None:
    for key in TARGET_NODES:
        part = OmegaConf.select(cfg, key)
        if part is None and key == "metric.features" and "features" not in cfg.metric:
            continue
        if not isinstance(part, DictConfig) or "_target_" not in part:
            raise Refused(f"{key}={part}: allowed is a mapping whose _target_ names a class or function.")


def _check_protocol(cfg: DictConfig) -> None:
    p = cfg.protocol
    if p.method not in (None, method_label(cfg)):
        raise Refused(
            f"protocol.method={p.method} is not what is trained: allowed is {method_label(cfg)}; leave it out."
        )
    if p.track is not Track.tuned:
        for key in ("trials", "space", "trial"):
            if p[key] is not None:
                raise Refused(f"protocol.{key}={p[key]}: allowed with protocol=tuned only; leave it out.")
    if p.authors is not None:
        _check_authors(p.authors)
        if method_label(cfg) not in p.authors:
            raise Refused(
                f"protocol={p.name} has no settings for {method_label(cfg)}: it knows {', '.join(p.authors)}; "
                "choose one of these, or protocol=equal."
            )


def _check_speed(cfg: DictConfig) -> None:
    speed = cfg.speed
    if speed.channels_last and len(cfg.dataset.get("shape") or ()) == 1:
        raise Refused(f"speed.channels_last=true: dataset={cfg.dataset.name} has no channels; allowed is false.")
    if speed.graphs and not speed.fused_optimizer:
        raise Refused("speed.graphs=true: allowed with speed.fused_optimizer=true only, as in speed=graphs.")
    for player in ("generator", "critic"):
        option = cfg.optimizer[player]
        if speed.fused_optimizer and not accepts_argument(option, "fused"):
            raise Refused(
                f"speed.fused_optimizer=true: {option['_target_']} has no fused kernel; allowed is null, or optimizer=adam."
            )


def _check_authors(authors: Any) -> None:
    """Of every method, so that a sweep over methods finds none without."""
    for method, settings in authors.items() if isinstance(authors, DictConfig) else [(None, authors)]:
        where = "protocol.authors" + (f".{method}" if method else "")
        if not isinstance(settings, DictConfig):
            raise Refused(f"{where}={settings}: allowed is a mapping of settings, such as lr, betas and n_critic.")
        for key, value in settings.items():
            check_value(f"{where}.{key}", f"protocol.{key}", value)


def _check_targets(cfg: DictConfig, node: Any, path: str) -> None:
    """Hold every `_target_` in and below `node`, which is at `path`, against the signature of what it names."""
    if not isinstance(node, DictConfig):
        return
    if "_target_" in node:
        if not isinstance(node.get("_partial_", False), bool):
            raise Refused(f"{path}._partial_={node['_partial_']}: allowed is true or false.")
        _check_arguments(cfg, node, path, _target_arguments(node["_target_"], path))
    for key in node:
        _check_targets(cfg, node[key], f"{path}.{key}")


def _check_arguments(cfg: DictConfig, node: DictConfig, path: str, arguments: dict[str, Argument] | None) -> None:
    if arguments is None:
        return
    settable = {name: argument for name, argument in arguments.items() if name not in GIVEN_BY_CODE}
    for key in [k for k in node if k not in ("name", "_target_", "_partial_")]:
        if key not in settable:
            raise Refused(unknown_key_message(f"{path}.{key}", list(settable), node[key]))
        if not fits_annotation(node[key], settable[key].annotation):
            allowed = ast.unparse(settable[key].annotation)
            raise Refused(f"{_written_key(cfg, f'{path}.{key}')}={node[key]} does not fit: allowed is {allowed}.")
    for name, argument in settable.items():
        if argument.required and name not in node:
            raise Refused(f"{path}.{name} has no value: {node['_target_']} needs one; give it with +{path}.{name}=…")
    if "rng" in arguments and not node.get("_partial_"):
        raise Refused(f"{path}: {node['_target_']} is called with samples later: add `_partial_: true` to its YAML.")


def _written_key(cfg: DictConfig, key: str) -> str:
    """The key that a value was written under, where `${…}` copies it."""
    path, _, last = key.rpartition(".")
    node = OmegaConf.select(cfg, path) if path else cfg
    if not OmegaConf.is_interpolation(node, last):
        return key
    copied = re.fullmatch(r"\$\{([\w.]+)\}", OmegaConf.to_container(node, resolve=False)[last])
    return _written_key(cfg, copied[1]) if copied else key


def _target_arguments(target: Any, path: str) -> dict[str, Argument] | None:
    said = f"{path}._target_={target}"
    if not isinstance(target, str):
        raise Refused(f"{said}: allowed is the name of a class or function, such as ganbench.losses.GAN.")
    if target.partition(".")[0] in sys.stdlib_module_names:
        raise Refused(f"{said} belongs to Python itself: allowed is what ganbench, torch or a module of yours defines.")
    try:
        return signature(target)
    except NoSuchTarget as missing:
        raise Refused(f"{said}: {missing}.") from None


NAME = r"[A-Za-z0-9_.-]{0,49}[A-Za-z0-9_-]"


def _whole(low: int, high: float) -> Callable[[Any], bool]:
    return lambda v: type(v) is int and low <= v <= high


def _plain_text(text: str, longest: int, banned: str = "") -> bool:
    return text.isprintable() and 0 < len(text.encode()) <= longest and not set(text) & set(banned)


def _is_path(text: str) -> bool:
    return bool(text) and "\0" not in text and all(len(os.fsencode(part)) < 256 for part in text.split("/"))


# What is allowed, the test that a good value passes, and the keys it holds for. The upper ends lie far above what is
# of use, and below what would only fail once it runs.
RANGES = (
    ("a whole number, 0 or more", _whole(0, 1e18), "seed probe.seed"),
    (
        "a whole number, 1 or more",
        _whole(1, 1e18),
        "checkpoint_every protocol.images protocol.log_every metric.k_neighbors probe.steps",
    ),
    (
        "a whole number from 1 to 4096",
        _whole(1, 4096),
        "model.width model.z_dim model.generator.width model.critic.width probe.z_dim",
    ),
    ("a whole number from 1 to 1000", _whole(1, 1000), "protocol.n_critic"),
    ("auto, or a whole number from 1 to 1000", lambda v: v == "auto" or _whole(1, 1000)(v), "sweep.parallel"),
    ("a whole number from 1 to 256", _whole(1, 256), "threads"),
    ("a whole number from 1 to 100", _whole(1, 100), "dataset.side"),
    ("a whole number from 1 to 10,000", _whole(1, 10_000), "dataset.modes"),
    ("a whole number from 1 to 100,000", _whole(1, 100_000), "protocol.evaluations"),
    ("a whole number from 2 to 100,000", _whole(2, 100_000), "protocol.batch probe.batch metric.n_fake"),
    ("a whole number from 20 to 10,000,000", _whole(20, 10_000_000), "dataset.n"),
    ("a multiple of 16 up to 65,536", lambda v: _whole(16, 65_536)(v) and v % 16 == 0, "probe.n"),
    ("0, or a whole number from 3 to 1000", lambda v: v == 0 or _whole(3, 1000)(v), "metric.n_subsets"),
    ("a whole number, 1 or more, or null", lambda v: v is None or _whole(1, 1e18)(v), "protocol.trials"),
    (
        "a whole number from 2 to 10,000,000, or null for all",
        lambda v: v is None or _whole(2, 10_000_000)(v),
        "metric.n_real metric.n_train",
    ),
    (
        "a list of whole numbers from 1 to 4096",
        lambda v: isinstance(v, ListConfig) and len(v) > 0 and all(map(_whole(1, 4096), v)),
        "dataset.shape",
    ),
    ("a list of numbers from 0 to 1", lambda v: all(0 <= m <= 1 for m in v), "probe.moments"),
    (
        "above 0, and finite",
        lambda v: 0 < v < float("inf"),
        "protocol.lr optimizer.lr optimizer.generator.lr optimizer.critic.lr penalty.c dataset.std dataset.radius "
        "loss.scale",
    ),
    ("0 or more, and finite", lambda v: 0 <= v < float("inf"), "protocol.penalty_weight penalty.weight penalty.scale"),
    ("at least 0 and below 1", lambda v: 0 <= v < 1, "protocol.ema"),
    ("above 0 and below 1", lambda v: 0 < v < 1, "dataset.test_share"),
    (
        "two numbers from 0 to below 1",
        lambda v: len(v) == 2 and all(0 <= b < 1 for b in v),
        "protocol.betas optimizer.generator.betas optimizer.critic.betas",
    ),
    ("up to 50 letters, digits, - and _", lambda v: re.fullmatch(NAME, v), "protocol.name optimizer.name"),
    (
        "a plain name without slashes, of up to 100 bytes",
        lambda v: _plain_text(v, 100, "/\\") and v not in (".", ".."),
        "name",
    ),
    ("up to 128 characters, none of them / \\ # ? % :", lambda v: _plain_text(v, 128, "/\\#?%:"), "wandb.project"),
    ("up to 100 characters, or null", lambda v: v is None or _plain_text(v, 100), "wandb.group"),
    (
        "up to 100 characters without slashes, or null",
        lambda v: v is None or _plain_text(v, 100, "/\\"),
        "wandb.entity",
    ),
    (
        "a path, whose parts have fewer than 256 bytes",
        lambda v: v is None or _is_path(v),
        "dataset.root metric.features.weights",
    ),
    (
        "64 hexadecimal digits, or null",
        lambda v: v is None or re.fullmatch("[0-9a-fA-F]{64}", v),
        "metric.features.sha256",
    ),
)


def _check_ranges(cfg: DictConfig) -> None:
    for words, good, keys in RANGES:
        for key in keys.split():
            _check_range(cfg, key, good, words)
    _check_budget(cfg.protocol)


def _check_range(cfg: DictConfig, key: str, good: Callable[[Any], bool], words: str) -> None:
    node, _, last = key.rpartition(".")
    parent = OmegaConf.select(cfg, node) if node else cfg
    if isinstance(parent, DictConfig) and last in parent:
        check_in_range(_written_key(cfg, key), parent[last], good, words)


def check_value(where: str, key: str, value: Any) -> None:
    """Raise Refused for a value that a setting of RANGES could not have; `where` it stands instead is told."""
    words, good = next(((words, good) for words, good, keys in RANGES if key in keys.split()), (None, None))
    if good is None:
        allowed = [k.removeprefix("protocol.") for _, _, keys in RANGES for k in keys.split() if "protocol." in k]
        raise Refused(unknown_key_message(where, allowed, value))
    check_in_range(where, value, good, words)


def check_in_range(key: str, value: Any, good: Callable[[Any], bool], words: str) -> None:
    """Raise Refused for a value that is not good, or of a kind that cannot be asked."""
    try:
        fine = not isinstance(value, bool | DictConfig) and good(value)
    except (TypeError, AttributeError):
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


# Of the datasets that come in one size; images are padded to 32x32.
FIXED_SHAPES = {
    f"ganbench.datasets.{name}": shape
    for shape, names in (
        ([2], ("ring", "grid")),
        ([1, 32, 32], ("mnist5k", "mnist", "fashion_mnist")),
        ([3, 32, 32], ("stacked_mnist5k", "cifar10")),
    )
    for name in names
}

SQUARES = [[side, side] for side in (16, 32, 64, 128)]

# What is only ever a copy, with its origin.
MIRRORED_KEYS = (
    ("model.generator.z_dim", "model.z_dim"),
    ("probe.z_dim", "model.z_dim"),
    ("model.generator.shape", "dataset.shape"),
    ("model.critic.shape", "dataset.shape"),
)


def _check_compatibility(cfg: DictConfig) -> None:
    """Refuse built-in options that cannot work together; a user's own options are judged when they are built."""
    shape = list(cfg.dataset.get("shape") or [])
    points, squares = len(shape) == 1, ", ".join(f"{a}x{b}" for a, b in SQUARES)
    data = f"dataset={cfg.dataset.name} (shape {shape})"
    fixed = FIXED_SHAPES.get(cfg.dataset._target_)
    if fixed and shape != fixed:
        raise Refused(f"dataset.shape={shape} does not suit {cfg.dataset.name}: allowed is {fixed}.")
    if len(shape) == 3 and shape[0] not in (1, 3):
        raise Refused(f"dataset.shape={shape} has {shape[0]} channels: allowed are 1 (grey) and 3 (colour).")
    for key, origin in MIRRORED_KEYS:
        copy, due = OmegaConf.select(cfg, key), OmegaConf.select(cfg, origin)
        if copy is not None and copy != due:
            raise Refused(f"{key}={copy} is not {origin}={due}: set the latter.")
    needs = (
        ("model", "dcgan", shape[1:] in SQUARES, f"images of {squares}", "one of these as dataset.shape, or model=mlp"),
        ("model", "resnet", shape[1:] == [32, 32], "images of 32x32", "that as dataset.shape, or model=mlp"),
        ("model", "mlp", points, "points, not images", "model=dcgan"),
        ("metric", "fd_lenet", shape == [1, 32, 32], "grey images of 32x32", "metric=fid or metric=energy_distance"),
        ("metric", "fid", len(shape) == 3, "images", "metric=energy_distance"),
        ("metric", "energy_distance", points, "2-D mixtures (ring, grid)", "metric=fd_lenet or metric=fid"),
        ("metric", "modes_kl", shape[:1] == [3] and "stacked" in cfg.dataset._target_, "stacked digits", "metric=fid"),
    )
    for group, name, fine, what, cure in needs:
        if cfg[group].name == name and not fine:
            raise Refused(f"{group}={name} is for {what}, not for {data}: try {cure}.")


def one_line_error(error: Exception) -> str:
    """Key, value and what is allowed, from Hydra's or OmegaConf's own error."""
    cause = root_cause(error)
    key, parent = getattr(cause, "full_key", None), getattr(cause, "parent_node", None)
    if isinstance(error, (MissingConfigException, OverrideParseException)) or not key:
        return str(error)
    said = next((a for a in sys.argv[1:] if a.lstrip("+~").split("=")[0] == key), key)
    if parent is not None and cause.key is not None and "not in" in str(cause):
        return unknown_key_message(
            key, [str(k) for k in parent if not str(k).startswith("_")], said.partition("=")[2] or None
        )
    return f"{said}: {str(cause).splitlines()[0]}"
