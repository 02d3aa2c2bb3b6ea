"""Declare the settings and their types for Hydra; a user's own options may have others in the groups typed `Any`."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING

HERE = Path(__file__).resolve().parent.parent  # the package
CONF = next(p for p in (HERE / "conf", HERE.parent / "conf") if (p / "config.yaml").is_file())

GROUPS = ("loss", "penalty", "model", "dataset", "augment", "metric", "probe")

# Settings that say where and how a run was made, not what was compared.
INCIDENTAL = ("seed", "name", "device", "wandb", "probe", "_smoke_", "checkpoint_every", "retry", "sweep", "paper")


class Precision(Enum):
    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"
    bf16_all = "bf16_all"


class Track(Enum):
    equal = "equal"
    paper = "paper"
    tuned = "tuned"


class LrDecay(Enum):
    none = "none"
    linear = "linear"


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
    generator_batch: int | None = None
    n_critic: int = MISSING
    critic_start: int | None = None
    critic_start_steps: int = 25
    critic_start_every: int | None = 500
    reuse_fakes: bool = False
    flip_reals: bool = False
    lr: float = MISSING
    lr_decay: LrDecay = LrDecay.none
    lr_warmup: int = 0
    betas: Any = MISSING  # an interpolation of a list cannot have a type
    ema: float | None = MISSING
    ema_half_life: float | None = None
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
    eps: float | None = None
    generator: Any = MISSING
    critic: Any = MISSING


@dataclass
class Wandb:
    mode: WandbMode = MISSING
    project: str = MISSING
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    tags: Any = None  # as betas
    notes: str | None = None
    dir: str | None = None
    artifacts: bool = False


@dataclass
class Speed:
    benchmark: bool = False
    channels_last: bool = False
    deterministic: bool = True
    fused_optimizer: bool | None = None
    graphs: bool = False
    keep_memory: bool = True
    skip_zeros: bool = True


@dataclass
class Sweep:
    parallel: Any = "auto"


class RealImages(Enum):
    held_out = "held_out"
    train = "train"
    all = "all"


# In words, by the name of RealImages.
REAL_IMAGES = {"held_out": "held-out images", "train": "training images", "all": "training and held-out images"}


@dataclass
class Published:
    """A number that is printed for a method: null if only samples or curves are."""

    method: str = MISSING  # loss and penalty, or the recipe's own name for it
    metric: str = MISSING
    value: float | None = None
    low: float | None = None
    high: float | None = None
    dataset: str | None = None  # if the recipe has several
    source: str | None = None  # where it was read, if not in the paper itself


@dataclass
class Paper:
    """What a paper says of the runs of a recipe, which no run depends on but by interpolation."""

    recipe: str = MISSING  # the name of its file
    title: str = MISSING
    arxiv: str = MISSING
    table: str = MISSING
    published: list[Published] = MISSING
    protocol: str = MISSING
    samples: int | None = None  # that are scored
    reference: RealImages | None = None  # that samples are compared with; null: not said
    seeds: int | None = None
    h100_hours: float = MISSING  # of all its runs
    data: dict[str, Any] = MISSING  # the dataset, or several, with the shape of its images
    differs: list[str] = MISSING
    method: str | None = None  # the paper's name of what is trained, if loss and penalty do not tell
    setting: str | None = None
    settings: dict[str, Any] | None = None  # by setting, what it sets


@dataclass
class Config:
    seed: int = MISSING
    device: str = MISSING  # cuda:1 is one, too
    precision: Precision = MISSING
    threads: int = MISSING
    checkpoint_every: int = MISSING
    retry: bool = MISSING
    name: str = MISSING
    loss: Any = MISSING
    penalty: Any = MISSING
    model: Any = MISSING
    dataset: Any = MISSING
    augment: Any = MISSING
    metric: Any = MISSING
    probe: Any = MISSING
    optimizer: Optimizer = field(default_factory=Optimizer)
    protocol: Protocol = field(default_factory=Protocol)
    speed: Speed = field(default_factory=Speed)
    wandb: Wandb = field(default_factory=Wandb)
    sweep: Sweep = field(default_factory=Sweep)
    paper: Any = None  # as Paper, which an override could not change where it is null
    _smoke_: Any = None  # how many samples experiment=smoke gives each metric
