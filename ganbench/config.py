"""What a configuration consists of, and how its parts become objects. Nothing here imports torch."""

import hashlib
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf

HERE = Path(__file__).resolve().parent
CONF = next(p for p in (HERE / "conf", HERE.parent / "conf") if (p / "config.yaml").is_file())

GROUPS = ("loss", "penalty", "model", "dataset", "metric", "probe")

# Settings that say where and how a run was made, not what was compared.
INCIDENTAL = ("seed", "name", "device", "wandb", "probe", "smoke", "checkpoint_every", "retry", "sweep")


class Device(Enum):
    auto = "auto"
    cuda = "cuda"
    cpu = "cpu"


class Precision(Enum):
    fp32 = "fp32"
    bf16 = "bf16"
    bf16_all = "bf16_all"


class Track(Enum):
    equal = "equal"
    paper = "paper"
    tuned = "tuned"


class ScoredOn(Enum):
    held_out = "held_out"
    selection = "selection"


class WandbMode(Enum):
    offline = "offline"
    online = "online"
    disabled = "disabled"


@dataclass
class Protocol:
    name: str = MISSING
    track: Track = MISSING
    images: int = MISSING
    batch: int = MISSING
    n_critic: int = MISSING
    reuse_fakes: bool = False
    lr: float = MISSING
    betas: Any = MISSING  # an interpolation of a list cannot have a type
    ema: float = MISSING
    penalty_weight: float = MISSING
    evaluations: int = MISSING
    log_every: int = MISSING
    method: str | None = None
    authors: Any = None
    scored_on: ScoredOn = ScoredOn.held_out
    trials: int | None = None
    space: Any = None
    trial: str | None = None


@dataclass
class Optimizer:
    name: str = MISSING
    lr: float = MISSING
    betas: Any = None
    generator: Any = MISSING
    critic: Any = MISSING


@dataclass
class Wandb:
    mode: WandbMode = MISSING
    project: str = MISSING
    entity: str | None = None
    group: str | None = None


@dataclass
class Speed:
    channels_last: bool = False
    fused: bool | None = None
    graphs: bool = False
    keep_memory: bool = True
    skip_zeros: bool = True


@dataclass
class Sweep:
    parallel: Any = "auto"


@dataclass
class Config:
    seed: int = MISSING
    device: Device = MISSING
    precision: Precision = MISSING
    threads: int = MISSING
    checkpoint_every: int = MISSING
    retry: bool = MISSING
    name: str = MISSING
    loss: Any = MISSING
    penalty: Any = MISSING
    model: Any = MISSING
    dataset: Any = MISSING
    metric: Any = MISSING
    probe: Any = MISSING
    optimizer: Optimizer = field(default_factory=Optimizer)
    protocol: Protocol = field(default_factory=Protocol)
    speed: Speed = field(default_factory=Speed)
    wandb: Wandb = field(default_factory=Wandb)
    sweep: Sweep = field(default_factory=Sweep)
    smoke: Any = None


def register() -> None:
    """Make the schema, the resolvers, our sweeper and launcher known to Hydra. Call once, before composing."""
    sys.path.append(str(HERE / "plugins"))
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("extras", _extras, replace=True)


def composed(*overrides: str) -> DictConfig:
    """The configuration of a command line, for what does not begin with one."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def build(node: DictConfig, **given: Any) -> Any:
    """The object that a group option describes; its `name` is for people, not for the constructor."""
    arguments = OmegaConf.to_container(node, resolve=True)
    arguments.pop("name", None)
    try:
        return instantiate(arguments, **given)
    except InstantiationException as wrapped:
        raise root_cause(wrapped) from None


def root_cause(error: BaseException) -> BaseException:
    """The error that all others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Every setting as it is written down, and as a run that is there already is held against it."""
    return OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)


def identifying(config: dict[str, Any]) -> dict[str, Any]:
    """Of resolved settings, those that make a run the run it is; some of them are incidental to a comparison."""
    return {k: v for k, v in config.items() if k not in INCIDENTAL or k in ("seed", "probe")}


def label(cfg: DictConfig) -> str:
    """The pair that was trained, such as `wgan-gp`; never the name of the file that chose it."""
    return f"{cfg.loss.name}-{cfg.penalty.name}"


class Refused(ValueError):
    """A configuration that cannot be run. The message names key, value and what is allowed."""


def options(group: str) -> list[str]:
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))


def _extras(override_dirname: str) -> str:
    """What a sweep varies beside loss, penalty and seed, made safe for a folder's name."""
    text = override_dirname.replace("/", "_")
    if len(text) > 120:  # a folder's name ends at 255 bytes
        text = f"{text[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    return f"-{text}" if text else ""
