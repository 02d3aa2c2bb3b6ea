"""Set every key of every option to hostile values. Each is refused with the key's name, or accepted because a rule
below allows it and then built; no other error may occur.
"""

import copy
import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from conftest import settings
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganbench.config.compose import build, option_names, resolve
from ganbench.config.messages import one_line_error
from ganbench.config.schema import Track
from ganbench.config.validate import validate
from ganbench.errors import Refused
from ganbench.sweeps import tuning
from ganbench.training.players import make_players

LONG = "x" * 10_000
HOSTILE = [None, True, "x", "", math.nan, math.inf, -1, 0, 0.5, 10**9, 10**30, [], [1, 2, 3], {"a": 1},
           LONG, "../../x", "${nope}", "a\nb"]  # fmt: skip

GROUPS = (
    "dataset",
    "model",
    "augment",
    "metric",
    "optimizer",
    "protocol",
    "probe",
    "penalty",
    "loss",
    "wandb",
    "experiment",
)
# Other options that an option needs.
REQUIRED = {
    "dataset=folder": ["dataset.root=photos"],
    "dataset=prepared": ["dataset.root=photos-64"],
    "dataset=lsun": ["dataset.category=tower"],
    "dataset=stl10": ["dataset.shape=[3,32,32]"],
    "model=mlp": ["dataset=ring"],
    "metric=energy_distance": ["dataset=ring"],
    "metric=modes_kl": ["dataset=stacked_mnist5k"],
}


def above(low: float) -> Any:
    return lambda v: type(v) in (int, float) and low < v < 1e18


def whole(low: int) -> Any:
    return lambda v: type(v) is int and low <= v < 1e18


def one_of(*values: Any) -> Any:
    return lambda v: any(type(v) is type(value) and v == value for value in values)


def unquoted_text(v: Any) -> bool:
    """Allow what a setting that is a text takes without quotes."""
    return v == "x" or (isinstance(v, bool | int | float) and len(str(v)) < 50)


# Which of the hostile values a key may have; other keys may have none of them.
LEGITIMATE = {
    r"seed|probe\.seed": whole(0),
    # As OmegaConf reads a yes or no.
    r"retry|protocol\.(reuse_fakes|flip_reals)|wandb\.artifacts": lambda v: type(v) in (bool, int),
    r"speed\.(channels_last|deterministic|keep_memory|skip_zeros)": lambda v: type(v) in (bool, int),
    r"speed\.benchmark": lambda v: type(v) in (bool, int) and not v,
    r"speed\.fused_optimizer": lambda v: v is None or type(v) in (bool, int),
    r"sweep\.parallel": one_of("auto", 1, 3),
    r"speed\.graphs": one_of(0),  # without a GPU
    r"checkpoint_every|protocol\.(images|log_every)|metric\.k_neighbors|probe\.steps": whole(1),
    r"metric\.n_subsets": one_of(0),
    r"paper": one_of(None),
    r"metric\.features\.model": one_of("x", "", "../../x", "a\nb"),  # timm knows its models, when it loads them
    r"metric\.(n_real|n_train|n_pairs)|metric\.features\.sha256": one_of(None),
    r"protocol\.(method|authors|trials|space|trial)": one_of(None),
    r"probe\.moments": one_of([]),
    r"probe\.seeds": one_of(None, [], [1, 2, 3]),
    r"(protocol|optimizer)\.lr": lambda v: above(0)(v) or v == 10**30,  # which diverges, and that is an answer
    r"protocol\.penalty_weight": lambda v: one_of(0, 10**30)(v) or above(0)(v),
    r"(optimizer\.\w+|protocol\.authors\.[\w-]+)\.lr": above(0),
    r"optimizer\.eps": lambda v: above(0)(v) or v == 10**30,
    r"optimizer\.\w+\.eps": above(0),
    r"penalty\.c|dataset\.(std|radius)|loss\.scale": above(0),
    r"loss\.[abc]": above(-1e18),
    r"penalty\.(weight|scale)": lambda v: one_of(0)(v) or above(0)(v),
    r"protocol\.ema": one_of(0, 0.5),
    r"protocol\.(generator_batch|critic_start|ema_half_life)": one_of(None),
    r"protocol\.lr_warmup": one_of(0, 1, 3),
    r"augment\._partial_": one_of(True),
    r"dataset\.test_share": one_of(0.5),
    r"model\.((generator|critic)\.)?(fuse_rescaling|fast_double_backward)": one_of(True),
    r"penalty\.(_partial_|clip)": one_of(True),
    r"(loss|penalty|model|dataset|augment|metric|probe)\.name": one_of("x"),
    r"(protocol|optimizer)\.name|name|wandb\.project": unquoted_text,
    r"wandb\.entity": lambda v: v is None or unquoted_text(v),
    r"wandb\.(group|name)": lambda v: v is None or v == "../../x" or unquoted_text(v),
    r"wandb\.tags": lambda v: v in (None, []),
    r"wandb\.notes": lambda v: v in (None, "", "../../x", "a\nb") or unquoted_text(v),
    r"wandb\.dir": lambda v: v in (None, "../../x", "a\nb") or unquoted_text(v),
    r"dataset\.root": one_of("x", "../../x", "a\nb"),
    r"dataset\.crop": one_of(None),
    r"dataset\.held_out": one_of(None, "x", "../../x", "a\nb"),
    r"metric\.frechet": one_of(None, "x"),
    r"metric\.features\.weights": one_of(None, "x", "../../x", "a\nb"),
    r"protocol\.space\.(lr|penalty_weight)\.high": one_of(0.5, 10**9),
    r"protocol\.space\.penalty_weight\.low": one_of(0.5),
    r"protocol\.space\.\w+\.log": one_of(True, 0),
    r"protocol\.space\.(lr|penalty_weight)\.of": one_of(None, [1, 2, 3]),
    r"protocol\.space\.n_critic\.of": one_of([1, 2, 3]),
}


def legitimate(key: str, value: Any) -> bool:
    return any(re.fullmatch(keys, key) and rule(value) for keys, rule in LEGITIMATE.items())


@cache
def compositions() -> list[DictConfig]:
    """Compose the default and each option of each group."""
    # Recipes of papers are composed and built in tests of their own.
    options = [(group, option) for group in GROUPS for option in option_names(group) if not option.startswith("paper/")]
    typed = [f"{group}={option}" for group, option in options]
    return [settings(), *(settings(*REQUIRED.get(option, []), option) for option in typed)]


def keys(node: DictConfig, path: str = "") -> Iterator[str]:
    """List all keys but `_smoke_`, which only holds sample counts, and whole groups, which Hydra itself checks."""
    for key in [key for key in node if f"{path}{key}" != "_smoke_"]:
        inner = None if OmegaConf.is_missing(node, key) else node._get_node(key)
        if path or not isinstance(inner, DictConfig):
            yield f"{path}{key}"
        if isinstance(inner, DictConfig):
            yield from keys(inner, f"{path}{key}.")


def cases() -> Iterator[tuple[DictConfig, str, Any]]:
    """List each key once with each hostile value; `dataset.shape` once per dataset, since what is allowed differs."""
    seen = set()
    for cfg in compositions():
        for key in keys(cfg):
            kind = re.sub(r"authors\.[^.]+", "authors.*", key), key == "dataset.shape" and cfg.dataset._target_
            is_fact = key.startswith("paper.")  # of a recipe's file; settings copy some, and are checked themselves
            if kind not in seen and not is_fact:
                seen.add(kind)
                yield from ((cfg, key, value) for value in HOSTILE)


def refusal(cfg: DictConfig, key: str, value: Any) -> str | None:
    """Return the refusal of `key=value`, None if it is accepted; leave `cfg` unchanged."""
    group = key.partition(".")[0]
    before = copy.deepcopy(cfg._get_node(group))
    try:
        OmegaConf.update(cfg, key, value)
        validate(cfg)
        if cfg.protocol.track is Track.tuned:
            tuning.check_space(cfg.protocol)
        make(cfg)
    except (Refused, HydraException, OmegaConfBaseException) as error:
        return one_line_error(error)
    finally:
        OmegaConf.update(cfg, group, before, merge=False)
    return None


def make(cfg: DictConfig) -> None:
    """Build what a run builds, except data and metric."""
    resolve(cfg)
    build(cfg.loss)
    build(cfg.penalty)
    build(cfg.probe, name=cfg.loss.name)
    make_players(cfg, torch.device("cpu"))


@pytest.mark.slow
def test_every_option_is_accepted_as_it_is() -> None:
    assert [refusal(cfg, "seed", 3) for cfg in compositions()] == [None] * len(compositions())


@pytest.mark.slow
def test_hostile_values() -> None:
    wrong, n = [], 0
    for cfg, key, value in cases():
        n += 1
        printed = refusal(cfg, key, value)
        if (printed is None) != legitimate(key, value):
            wrong.append(f"{key}={value!r:.40}: {'accepted' if printed is None else printed}")
        elif printed is not None and not (all(part in printed for part in key.split(".")) or "nope" in printed):
            wrong.append(f"{key}={value!r:.40} is not named: {printed:.200}")
    assert wrong == [], "\n".join(wrong)
    assert n > 2000
