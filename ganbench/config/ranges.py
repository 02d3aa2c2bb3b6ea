"""Hold the allowed values of every setting in one table, and check a value against it."""

import math
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf

from ganbench.config.messages import setting
from ganbench.config.schema import LrDecay
from ganbench.errors import Refused, unknown_key_message

NAME = r"[A-Za-z0-9_.-]{0,49}[A-Za-z0-9_-]"  # of an option; it becomes a part of folder names
NAME_WORDS = "a name of up to 50 letters, digits, ., - and _"
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")  # of Pillow, by which images are scaled


class Range(NamedTuple):
    """What a setting may be: in words, and as a test. The test may raise TypeError for a value of another kind."""

    words: str
    accepts: Callable[[Any], Any]


def whole(low: int, high: int = 10**18) -> Range:
    words = f"a whole number from {low} to {high:,}" if high < 10**18 else f"a whole number >= {low}"
    return Range(words, lambda v: type(v) is int and low <= v <= high)


def one_of(*values: str) -> Range:
    return Range(f"one of: {', '.join(values)}", values.__contains__)


def or_value(value: Any, words: str, other: Range) -> Range:
    """Also allow one special value."""
    return Range(f"{other.words}, or {words}", lambda v: v == value or other.accepts(v))


def list_of(words: str, accepts: Callable[[Any], bool], minimum: int = 0, maximum: float = math.inf) -> Range:
    return Range(words, lambda v: isinstance(v, ListConfig) and minimum <= len(v) <= maximum and all(map(accepts, v)))


def text(words: str, longest: int, banned: str = "") -> Range:
    """Allow printable text of 1 to `longest` bytes without the banned characters."""
    return Range(words, lambda v: v.isprintable() and 0 < len(v.encode()) <= longest and not set(v) & set(banned))


def pattern(words: str, regex: str) -> Range:
    return Range(words, lambda v: re.fullmatch(regex, v))


def or_null(other: Range) -> Range:
    return or_value(None, "null", other)


def _is_file_path(value: str) -> bool:
    return bool(value) and "\0" not in value and all(len(os.fsencode(part)) < 256 for part in value.split("/"))


def _is_color(value: str) -> bool:
    from PIL import ImageColor

    try:
        return bool(ImageColor.getrgb(value))
    except ValueError:
        return False


def _is_policy(value: list[str]) -> bool:
    return 0 < len(set(value)) == len(value) and set(value) <= {"color", "translation", "cutout"}


POSITIVE = Range("a finite number > 0", lambda v: 0 < v < math.inf)
NOT_NEGATIVE = Range("a finite number >= 0", lambda v: 0 <= v < math.inf)
BETAS = list_of("two numbers >= 0 and < 1", lambda beta: 0 <= beta < 1, 2, 2)
MULTIPLE_OF_16 = Range("a multiple of 16 from 16 to 65,536", lambda v: whole(16, 65_536).accepts(v) and v % 16 == 0)
RUN_NAME = Range(
    "a name without slashes, of up to 100 bytes", lambda v: text("", 100, "/\\").accepts(v) and v not in (".", "..")
)
FILE_PATH = Range("a path whose parts have fewer than 256 bytes", _is_file_path)
WIDTH = whole(1, 4096)
SAMPLES = or_value(None, "null for all", whole(2, 10_000_000))

# The upper ends lie far above what is useful, and below what would fail only once it runs. pydantic's constraints would
# not shorten this: OmegaConf's schema cannot carry them, every sentence of theirs would have to be replaced by ours,
# and its import takes a sixth of the second that a refusal may take.
RANGES: dict[str, Range] = {
    "seed": whole(0),
    "name": RUN_NAME,
    "threads": whole(1, 256),
    "checkpoint_every": whole(1),
    "sweep.parallel": or_value("auto", "auto", whole(1, 1000)),
    "protocol.name": pattern(NAME_WORDS, NAME),
    "protocol.images": whole(1),
    "protocol.batch": whole(2, 100_000),
    "protocol.generator_batch": or_null(whole(2, 100_000)),
    "protocol.n_critic": whole(1, 1000),
    "protocol.critic_start": or_null(whole(1, 1000)),
    "protocol.critic_start_steps": whole(0),
    "protocol.critic_start_every": or_null(whole(1)),
    "protocol.lr": POSITIVE,
    "protocol.lr_decay": Range("none or linear", lambda v: v in ("none", "linear", *LrDecay)),
    "protocol.lr_warmup": whole(0),
    "protocol.betas": BETAS,
    "protocol.ema": or_null(Range("a number >= 0 and < 1", lambda v: 0 <= v < 1)),
    "protocol.ema_half_life": or_null(POSITIVE),
    "protocol.penalty_weight": NOT_NEGATIVE,
    "protocol.evaluations": whole(1, 100_000),
    "protocol.log_every": whole(1),
    "protocol.trials": or_null(whole(1)),
    "optimizer.name": pattern(NAME_WORDS, NAME),
    "optimizer.lr": POSITIVE,
    "optimizer.eps": or_null(POSITIVE),
    "optimizer.generator.lr": POSITIVE,
    "optimizer.generator.betas": BETAS,
    "optimizer.generator.eps": POSITIVE,
    "optimizer.critic.lr": POSITIVE,
    "optimizer.critic.betas": BETAS,
    "optimizer.critic.eps": POSITIVE,
    "loss.scale": POSITIVE,
    "penalty.weight": NOT_NEGATIVE,
    "penalty.scale": NOT_NEGATIVE,
    "penalty.c": POSITIVE,
    "model.init": one_of("torch", "dcgan", "orthogonal"),
    "model.width": WIDTH,
    "model.depth": whole(1, 100),
    "model.blocks": whole(1, 100),
    "model.z_dim": WIDTH,
    "model.generator.width": WIDTH,
    "model.generator.depth": whole(1, 100),
    "model.generator.blocks": whole(1, 100),
    "model.critic.width": WIDTH,
    "model.critic.depth": whole(1, 100),
    "model.critic.blocks": whole(1, 100),
    "dataset.shape": list_of("a list of whole numbers from 1 to 4,096", WIDTH.accepts, minimum=1),
    "dataset.n": whole(20, 10_000_000),
    "dataset.modes": whole(1, 10_000),
    "dataset.side": whole(1, 100),
    "dataset.radius": POSITIVE,
    "dataset.std": POSITIVE,
    "dataset.test_share": Range("a number > 0 and < 1", lambda v: 0 < v < 1),
    "dataset.root": or_null(FILE_PATH),
    "dataset.held_out": or_null(FILE_PATH),
    "dataset.filter": one_of(*FILTERS),
    "dataset.crop": or_null(whole(1, 65_536)),
    "dataset.on_error": one_of("refuse", "skip"),
    "dataset.n_test": whole(2, 10_000_000),
    "dataset.category": one_of(
        *("bedroom", "bridge", "church_outdoor", "classroom", "conference_room"),
        *("dining_room", "kitchen", "living_room", "restaurant", "tower"),
    ),
    "dataset.background": Range("a color, such as white or #808080", _is_color),
    "augment.policy": Range("a list of color, translation and cutout, each once at most", _is_policy),
    "metric.frechet": or_null(pattern(NAME_WORDS, NAME)),
    "metric.n_fake": whole(2, 100_000),
    "metric.reference": pattern("held_out (papers: test), train, or all, which is both", "held_out|train|all"),
    "metric.n_real": SAMPLES,
    "metric.n_pairs": SAMPLES,
    "metric.n_train": SAMPLES,
    "metric.k_neighbors": whole(1),
    "metric.n_subsets": or_value(0, "0", whole(3, 1000)),
    "metric.features.weights": or_null(FILE_PATH),
    "metric.features.sha256": or_null(pattern("64 hexadecimal digits", "[0-9a-fA-F]{64}")),
    "hydra.sweeper.max_batch_size": or_null(whole(1)),
    "paper.samples": or_null(whole(1)),
    "paper.seeds": or_null(whole(1)),
    "paper.h100_hours": POSITIVE,
    "probe.moments": list_of("a list of numbers from 0 to 1", lambda share: 0 <= share <= 1),
    "probe.steps": whole(1),
    "probe.n": MULTIPLE_OF_16,
    "probe.batch": whole(2, 100_000),
    "probe.z_dim": WIDTH,
    "probe.seed": whole(0),
    "wandb.project": text("a text of up to 128 bytes without / \\ # ? % :", 128, "/\\#?%:"),
    "wandb.entity": or_null(text("a text of up to 100 bytes without slashes", 100, "/\\")),
    "wandb.group": or_null(text("a text of up to 100 bytes", 100)),
    "wandb.name": or_null(text("a text of up to 128 bytes", 128)),
    "wandb.tags": or_null(list_of("a list of texts of up to 64 bytes", text("", 64).accepts)),
    "wandb.notes": or_null(Range("a text of up to 1000 characters", lambda v: len(v) <= 1000)),
    "wandb.dir": or_null(FILE_PATH),
}


def check_ranges(cfg: DictConfig) -> None:
    """Raise Refused for a setting whose value is not allowed; a key that an option does not have is passed over."""
    for key in RANGES:
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if isinstance(node, DictConfig) and last in node and not _is_allowed(node[last], RANGES[key]):
            check_value(original_key(cfg, key), key, node[last])


def check_value(written: str, key: str, value: Any) -> None:
    """Raise Refused for a value that the setting `key` could not have; `written` is the name that the message uses."""
    if key not in RANGES:
        group = key.partition(".")[0]
        siblings = [other.removeprefix(f"{group}.") for other in RANGES if other.startswith(f"{group}.")]
        raise Refused(unknown_key_message(written, siblings))
    if not _is_allowed(value, RANGES[key]):
        raise Refused(f"{setting(written, value)} must be {RANGES[key].words}.")


def _is_allowed(value: Any, allowed: Range) -> bool:
    if isinstance(value, bool | DictConfig):  # True would pass as 1
        return False
    try:
        return bool(allowed.accepts(value))
    except (TypeError, AttributeError):
        return False


def original_key(cfg: DictConfig, key: str) -> str:
    """Follow `${…}` copies back to the key, or the environment variable, under which the value was written."""
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if not OmegaConf.is_interpolation(node, last):
        return key
    unresolved = OmegaConf.to_container(node, resolve=False)
    assert isinstance(unresolved, dict)
    if variable := re.match(r"\$\{environment:(\w+)", unresolved[last]):
        return variable[1] if os.environ.get(variable[1]) else key
    copied = re.fullmatch(r"\$\{([\w.]+)\}", unresolved[last])
    return original_key(cfg, copied[1]) if copied else key
