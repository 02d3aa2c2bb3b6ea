"""What a configuration may say. Nothing here imports torch, so that a wrong override is refused at once."""

import ast
import difflib
import importlib.util
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

HERE = Path(__file__).resolve().parent
CONF = next(p for p in (HERE / "conf", HERE.parent / "conf") if (p / "config.yaml").is_file())


# What the trainer itself hands to what a group's option names.
GIVEN_BY_CODE = ("self", "D", "real", "fake", "rng", "data", "device", "name", "params")
GROUPS = ("loss", "penalty", "model", "dataset", "metric")


class Device(Enum):
    auto = "auto"
    cuda = "cuda"
    cpu = "cpu"


class Precision(Enum):
    fp32 = "fp32"
    bf16 = "bf16"


class WandbMode(Enum):
    offline = "offline"
    online = "online"
    disabled = "disabled"


@dataclass
class Protocol:
    name: str = MISSING
    images: int = MISSING
    batch: int = MISSING
    n_critic: int = MISSING
    lr: float = MISSING
    betas: list[float] = MISSING
    ema: float = MISSING
    penalty_weight: float = MISSING
    evaluations: int = MISSING
    log_every: int = MISSING


@dataclass
class Optimizer:
    name: str = MISSING
    lr: float = MISSING
    betas: Any = None  # an interpolation of a list cannot have a type
    generator: Any = MISSING
    critic: Any = MISSING


@dataclass
class Wandb:
    mode: WandbMode = MISSING
    project: str = MISSING
    entity: str | None = None
    group: str | None = None


@dataclass
class Config:
    seed: int = MISSING
    device: Device = MISSING
    precision: Precision = MISSING
    threads: int = MISSING
    name: str = MISSING
    loss: Any = MISSING
    penalty: Any = MISSING
    model: Any = MISSING
    dataset: Any = MISSING
    metric: Any = MISSING
    optimizer: Optimizer = field(default_factory=Optimizer)
    protocol: Protocol = field(default_factory=Protocol)
    wandb: Wandb = field(default_factory=Wandb)
    smoke: Any = None


def register() -> None:
    """Make the schema and the resolvers known to Hydra. Call once, before composing."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("extras", _extras, replace=True)


def build(node: DictConfig, **given: Any) -> Any:
    """The object that a group option describes; its `name` is for people, not for the constructor."""
    arguments = OmegaConf.to_container(node, resolve=True)
    arguments.pop("name", None)
    try:
        return instantiate(arguments, **given)
    except InstantiationException as wrapped:
        cause = wrapped
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise cause from None


def label(cfg: DictConfig) -> str:
    """The pair that was trained, such as `wgan-gp`; never the name of the file that chose it."""
    return f"{cfg.loss.name}-{cfg.penalty.name}"


class Refused(ValueError):
    """A configuration that cannot be run. The message names key, value and what is allowed."""


def check(cfg: DictConfig) -> None:
    """Raise Refused for a setting that is unknown, of the wrong type, out of range or at odds with another."""
    _check_groups(cfg)
    _check_pairs(cfg)
    for group in (*GROUPS, "optimizer"):
        _check_targets(cfg[group], group)
    _check_ranges(cfg)


def _extras(override_dirname: str) -> str:
    """What a sweep varies beside loss, penalty and seed, made safe for a folder's name."""
    kept = [o for o in override_dirname.split(",") if o]
    text = ",".join(kept).replace("/", "_")
    return f"-{text}" if text else ""


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


def options(group: str) -> list[str]:
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))


def unknown_key(key: str, allowed: list[str], value: Any = None) -> str:
    close = difflib.get_close_matches(key.rpartition(".")[2], allowed, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    said = f"{key}={value}" if value is not None else key
    return f"{said}: there is no setting {key}.{hint} Allowed here: {', '.join(sorted(allowed))}."


def _check_targets(node: Any, path: str) -> None:
    """Hold every `_target_` below `node` against the signature of what it names."""
    if isinstance(node, DictConfig) and "_target_" in node:
        arguments = _signature(node["_target_"], path)
        given = [k for k in node if k not in ("name", "_target_", "_partial_")] if arguments is not None else []
        for key in given:
            if key not in arguments:
                allowed = [a for a in arguments if a not in GIVEN_BY_CODE]
                raise Refused(unknown_key(f"{path}.{key}", allowed, node[key]))
            if not _fits(node[key], arguments[key]):
                raise Refused(f"{path}.{key}={node[key]} does not fit: allowed is {ast.unparse(arguments[key])}.")
    if isinstance(node, DictConfig):
        for key in node:
            _check_targets(node[key], f"{path}.{key}")


def _signature(target: str, path: str) -> dict[str, ast.expr | None] | None:
    """Argument names and annotations of a class or function, read from its source without importing it.

    None where they cannot be read off, as for `**kwargs`; the constructor will judge those.
    """
    module, _, name = target.rpartition(".")
    try:
        return _arguments(_definition(module, name))
    except ModuleNotFoundError as missing:
        raise Refused(f"{path}._target_={target}: there is no module {missing.name!r} of Python source.") from None
    except AttributeError:
        raise Refused(f"{path}._target_={target}: {module or 'the empty module'} defines no {name!r}.") from None


def _definition(module: str, name: str) -> ast.stmt | None:
    """Where `name` of `module` is defined, followed through imports; None if it is an alias of something else."""
    file = _source(module)
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if getattr(node, "name", None) == name:
            return node
        if isinstance(node, ast.ImportFrom):
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            origin = ".".join(filter(None, [package.rsplit(".", node.level - 1)[0], node.module]))
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _definition(origin if node.level else node.module, alias.name)
        if isinstance(node, ast.Assign) and any(ast.unparse(t) == name for t in node.targets):
            return None
    raise AttributeError(name)


def _source(module: str) -> Path:
    """The file of a module, found without importing the packages above it."""
    top, *below = module.split(".")
    spec = importlib.util.find_spec(top) if top else None
    if spec is None:
        raise ModuleNotFoundError(name=module)
    if not spec.submodule_search_locations and not below and str(spec.origin).endswith(".py"):
        return Path(spec.origin)
    for folder in spec.submodule_search_locations or ():
        at = Path(folder, *below)
        for file in (at.with_suffix(".py") if below else at / "__init__.py", at / "__init__.py"):
            if file.is_file():
                return file
    raise ModuleNotFoundError(name=module)


def _arguments(definition: ast.stmt | None) -> dict[str, ast.expr | None] | None:
    if definition is None:
        return None
    if isinstance(definition, ast.FunctionDef):
        if definition.args.kwarg:
            return None
        every = definition.args.posonlyargs + definition.args.args + definition.args.kwonlyargs
        return {a.arg: a.annotation for a in every if a.arg != "self"}
    for part in definition.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return _arguments(part)
    if any("dataclass" in ast.unparse(d) for d in definition.decorator_list):
        return {p.target.id: p.annotation for p in definition.body if isinstance(p, ast.AnnAssign)}
    return None if definition.bases else {}


def _fits(value: Any, annotation: ast.expr | None) -> bool:
    """Whether a value from YAML may stand for an argument annotated so. What is not plain data always may."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _fits(value, left) or _fits(value, right)
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id="bool"):
            return isinstance(value, bool)
        case ast.Name(id="int"):
            return isinstance(value, int) and not isinstance(value, bool)
        case ast.Name(id="float"):
            return isinstance(value, int | float) and not isinstance(value, bool)
        case ast.Name(id="str"):
            return isinstance(value, str)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=allowed):
            return value in ast.literal_eval(allowed)
        case ast.Subscript(value=ast.Name(id="tuple" | "list"), slice=inner):
            kinds = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            if not isinstance(value, ListConfig | list | tuple):
                return False
            if isinstance(kinds[-1], ast.Constant) and kinds[-1].value is ...:
                kinds = kinds[:1] * len(value)
            if ast.unparse(annotation).startswith("list"):
                kinds = kinds[:1] * len(value)
            return len(kinds) == len(value) and all(map(_fits, value, kinds))
    return True


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
