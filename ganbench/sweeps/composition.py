"""Compose the runs of a sweep: Hydra composes the first of those that differ in numbers alone, others are copies of it.

A number chooses no option: where it is another, only its own place in the configuration is another, and what copies it.
All else is left to Hydra, a run at a time.
"""

import ast
import copy
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ganbench.config.ranges import RANGES
from ganbench.config.signature import fits_annotation, signature
from ganbench.runs.status import Wanted

Shape = tuple[object, ...]

# Numbers that are judged by themselves alone: no check compares them with another setting.
INDEPENDENT = (
    *("seed", "checkpoint_every", "protocol.lr", "protocol.ema", "protocol.penalty_weight", "protocol.log_every"),
    *("optimizer.lr", "optimizer.generator.lr", "optimizer.critic.lr", "loss.scale"),
    *("penalty.weight", "penalty.scale", "penalty.c", "probe.seed"),
)
LIMIT = 1e18  # of numbers that pass any check of their size
RESOLVER = re.compile(r"\$\{([\w.]+):")
# These see nothing of a configuration but their arguments.
KNOWN_RESOLVERS = ("agent_run", "environment", "extras", "hydra", "method", "now", "runs_folder", "wandb_mode")
FOLDER = re.compile(r'"[^"$]*/[^"$]*"')  # a text that cannot be the path of a setting
WORD = re.compile(r"(?<![\w}])\.?[\w.]+")  # which may be the path of a setting; what follows a `}` is the end of one


class Composer:
    """Composes the configurations of a sweep's runs."""

    def __init__(self, context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]]):
        self.context = context
        self.config = config
        self.families: dict[Shape, Family] = {}
        self.sizes = Counter(shape(tuple(overrides)) for overrides in job_overrides)

    def family(self, overrides: Sequence[str]) -> "Family | None":
        """Return the family of a run, if a run of it was kept."""
        return self.families.get(shape(tuple(overrides)))

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Have Hydra compose the configuration of a run, with the name of the sweep."""
        composed = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(composed):
            composed.name = self.config.name
        return composed

    def keep(self, composed: DictConfig, overrides: Sequence[str], has_means: bool) -> None:
        """Keep a run that has been checked, if there are others of its family."""
        key = shape(tuple(overrides))
        if self.sizes[key] > 1 and key not in self.families:
            self.families[key] = Family(composed, overrides, has_means)


class Family:
    """Runs that differ in numbers alone, and the configuration that Hydra has composed for the first of them."""

    def __init__(self, composed: DictConfig, overrides: Sequence[str], has_means: bool):
        self.composed = composed
        self.has_means = has_means  # whether the files and the GPU that its runs need were looked for
        self.first = numbers(tuple(overrides))
        self.places = {key: _places(key, composed) for key in self.first}
        self.scratch = copy.deepcopy(composed)

    def allows(self, overrides: Sequence[str]) -> bool:
        """Tell whether a run is valid for sure, given that the first is; else the checks themselves must tell."""
        return all(
            line == self.first[key] or self._allows(key, line) for key, line in numbers(tuple(overrides)).items()
        )

    def _allows(self, key: str, line: str) -> bool:
        places = self.places[key]
        if places is None:
            return False
        try:
            OmegaConf.update(self.scratch, key, parsed(line).value(), merge=True)
        except OmegaConfBaseException:
            return False
        value = OmegaConf.select(self.scratch, key)
        return abs(value) < LIMIT and all(_allowed_at(place, annotation, value) for place, annotation in places)

    def become(self, overrides: Sequence[str], index: int) -> DictConfig:
        """Return the configuration of a run; it is the same object for all, and holds until it is asked again."""
        become(self.scratch, overrides, index)
        return self.scratch

    def wanted(self, config: DictConfig) -> Wanted:
        """Return what `Wanted.by` does of a run that is allowed: what the first asks for, with the run's own numbers.

        Resolving all settings again would take longer than all else that is done for the run.
        """
        settings = self._wanted_first.settings
        for place, _ in chain.from_iterable(places or () for places in self.places.values()):
            settings = _with_value(settings, place.split("."), OmegaConf.select(config, place))
        return self._wanted_first._replace(settings=settings)

    @cached_property
    def _wanted_first(self) -> Wanted:
        return Wanted.by(without_hydra(self.composed))


def become(config: DictConfig, overrides: Sequence[str], index: int) -> None:
    """Turn the configuration of a run into that of another of its family, as Hydra would have composed it."""
    changed = numbers(tuple(overrides))
    for key, line in changed.items():
        OmegaConf.update(config, key, parsed(line).value(), merge=True)
    lines = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(lines, list)
    task = [parsed(changed.get(parsed(line).key_or_group, line)) for line in lines]
    job = config.hydra.job
    naming = job.config.override_dirname
    with open_dict(config):
        config.hydra.overrides.task = [each.input_line for each in task]
        job.override_dirname = get_overrides_dirname(task, naming.exclude_keys, naming.item_sep, naming.kv_sep)
        job.id = str(index)
        job.num = index


def without_hydra(config: DictConfig) -> DictConfig:
    """Copy the settings of a run, without those of Hydra."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


@lru_cache(maxsize=100_000)
def parsed(line: str) -> Override:
    """Read an override as Hydra does."""
    (override,) = OverridesParser.create().parse_overrides([line])  # which names one that it cannot read
    return override


@lru_cache(maxsize=1000)
def numbers(overrides: tuple[str, ...]) -> dict[str, str]:
    """Return those overrides, by key, that set a number which no other setting is checked against."""
    read = [parsed(line) for line in overrides]
    alone = [each for each in read if _is_number(each) and not any(_interferes(other, each) for other in read)]
    return {each.key_or_group: str(each.input_line) for each in alone}


@lru_cache(maxsize=1000)
def shape(overrides: tuple[str, ...]) -> Shape:
    """Return the overrides, but of numbers only what kind they are; it is the same for all runs of a family."""
    of_numbers = set(numbers(overrides).values())
    return tuple(_kind(parsed(line)) if line in of_numbers else line for line in overrides)


def _kind(override: Override) -> tuple[str, type]:
    return override.key_or_group, type(override.value())


def _is_number(override: Override) -> bool:
    is_change = override.type is OverrideType.CHANGE and override.package is None
    return is_change and override.key_or_group in INDEPENDENT and type(override.value()) in (int, float)


def _interferes(other: Override, number: Override) -> bool:
    """Tell whether another override may set the number, too, by what it is a part of or what is a part of it."""
    key, place = number.key_or_group, other.key_or_group
    if place == key:
        return other is not number
    is_mapping = isinstance(other.value(), dict)  # of settings, which are set in the order of the overrides
    # An option is chosen before any value is set.
    chooses_option = "." not in place and other.type is OverrideType.CHANGE and not is_mapping
    return place.startswith(f"{key}.") or (key.startswith(f"{place}.") and not chooses_option)


def _places(key: str, composed: DictConfig) -> list[tuple[str, ast.expr | None]] | None:
    """List where a number and its copies are, with the annotations there; None if more than copies depends on it.

    A copy inside a list is more: as a whole, the list is an argument of what is built. Hydra's own part of the
    configuration is left out: it is resolved for each run anew.
    """
    settings = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(settings, dict)
    texts = dict(_texts({name: node for name, node in settings.items() if name != "hydra"}))
    places = [key]
    for place in places:  # which grows
        depending = [other for other, text in texts.items() if _may_depend(text, place)]
        if any(texts[other] != f"${{{place}}}" or _is_in_list(other, composed) for other in depending):
            return None
        places += depending
    return [(place, _annotation(place, composed)) for place in places]


def _is_in_list(place: str, composed: DictConfig) -> bool:
    parents = place.split(".")[:-1]
    return any(OmegaConf.is_list(OmegaConf.select(composed, ".".join(parents[: n + 1]))) for n in range(len(parents)))


def _with_value(settings: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return settings with another value at a path, and leave the given ones as they are."""
    key, *rest = path
    return settings | {key: _with_value(settings[key], rest, value) if rest else value}


def _texts(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place of every text that is resolved, and the text."""
    if isinstance(node, str) and "${" in node:
        yield path, node
    items: Any = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from _texts(value, f"{path}.{key}" if path else str(key))


def _may_depend(text: str, key: str) -> bool:
    """Tell whether what a text is resolved to may depend on a setting."""
    resolvers = RESOLVER.findall(text)
    is_known = all(name in KNOWN_RESOLVERS or name.startswith("oc.") for name in resolvers)
    return not is_known or "${${" in text or any(_may_name(word, key) for word in WORD.findall(FOLDER.sub("", text)))


def _may_name(word: str, key: str) -> bool:
    """Tell whether a word may be the path of a setting, or of what that is a part of; a relative path may be any."""
    return word.startswith(".") or f"{key}.".startswith(f"{word.rstrip('.')}.")


def _annotation(place: str, composed: DictConfig) -> ast.expr | None:
    """Return the annotation of the argument that a setting becomes; None if it becomes none."""
    parent, _, name = place.rpartition(".")
    target = OmegaConf.select(composed, f"{parent}._target_") if parent else None
    argument = (signature(target) or {}).get(name) if target else None
    return argument.annotation if argument else None


def _allowed_at(place: str, annotation: ast.expr | None, value: Any) -> bool:
    is_in_range = place in INDEPENDENT and RANGES[place].accepts(value)
    return is_in_range and (annotation is None or fits_annotation(value, annotation))
