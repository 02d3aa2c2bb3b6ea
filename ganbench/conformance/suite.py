"""Which checks are asked of what: every option that ganbench has, or what one command line names."""

import math
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ganbench import randomness
from ganbench.config.compose import build, method_label, option_names
from ganbench.config.validate import validate as refuse_settings
from ganbench.conformance import critics, dynamics, losses, metrics, penalties, steps
from ganbench.conformance.checks import Checks, check_true, run_checks

Compose = Callable[..., DictConfig]  # overrides in, settings out

IMAGES, POINTS = "dataset=mnist5k", "dataset=ring"
# Beyond every loss alone and every penalty with the loss that it came with.
PAIRS = (
    "loss=wgan penalty=none",
    "loss=wgan penalty=zero_centered",
    "loss=wgan penalty=r1",
    "loss=lsgan penalty=r1",
    "loss=hinge penalty=r1",
    "loss=rpgan penalty=r1r2",
)


def everything(compose: Compose) -> Checks:
    """Every loss, penalty, critic and metric that ships, and the pairs whose games have known ends."""
    singles = [compose(f"loss={option}") for option in option_names("loss")]
    crossed = [compose("loss=gan", f"penalty={option}") for option in option_names("penalty")]
    pairs = _distinct(chain(singles, crossed, (compose(*pair.split()) for pair in PAIRS)))
    plain, seen = compose(), set()
    for cfg in pairs:
        for group in ("loss", "penalty"):
            if (group, cfg[group].name) not in seen:
                seen.add((group, cfg[group].name))
                yield from _single(group, cfg)
        yield from _games(cfg)
        yield from _steps(cfg)
        yield from footing(cfg, plain)
    for overrides in CRITICS:
        yield from critic(compose(*overrides.split()))
    yield from _turns(compose("loss=wgan-gp", "model.critic_norm=spectral"))
    yield from metrics.check()


CRITICS = [f"{IMAGES} model.critic_norm={norm}" for norm in ("none", "layer", "instance", "spectral")]
RESNET = f"{IMAGES} model=resnet model.width=16"
CRITICS += [f"{RESNET} model.critic_norm={norm}" for norm in ("none", "layer", "spectral")]
CRITICS += [f"{POINTS} model.critic_norm={norm}" for norm in ("none", "layer", "spectral")]


def one(cfg: DictConfig, plain: DictConfig) -> Checks:
    """The loss, penalty and critic of one configuration; `plain` is what it would be without the first two.

    Where one of the three misses a claim there is no sense in playing with them, and the rest is not asked.
    """
    refuse_settings(cfg)
    parts = []
    for rows in (_single("loss", cfg), _single("penalty", cfg), critic(cfg), footing(cfg, plain)):
        for row in rows:
            parts.append(row)
            yield row
    if all(row.ok for row in parts):
        yield from _steps(cfg)
        yield from _games(cfg)
    else:
        yield check_true("step", method_label(cfg), "not asked while the above does not hold", False)


def footing(cfg: DictConfig, plain: DictConfig) -> Checks:
    """A loss may bring its penalty, and nothing else: not a net, a norm or a learning rate."""
    ours, theirs = (_rest(c) for c in (cfg, plain))
    other = sorted(k for k in ours if ours[k] != theirs.get(k))
    claim = "brings nothing but loss and penalty" + (f" (it changes {', '.join(other)})" if other else "")
    yield check_true("footing", method_label(cfg), claim, not other)


def critic(cfg: DictConfig) -> Checks:
    norm = cfg.model.get("critic_norm", "none")
    D, _, x, _ = players(cfg)
    yield from critics.check(f"{cfg.model.name}/{norm}", D, x, spectral=norm == "spectral")


def _single(group: str, cfg: DictConfig) -> Checks:
    check = {"loss": losses.check, "penalty": penalties.check}[group]
    name = cfg[group].name
    yield from run_checks(group, name, [lambda: check(name, build(cfg[group]), _settings(cfg[group]))])


def _games(cfg: DictConfig) -> Checks:
    names, settings = (cfg.loss.name, cfg.penalty.name), _settings(cfg.penalty)

    def of_weight(weight: float) -> Callable[..., torch.Tensor]:
        return build(cfg.penalty, **({"weight": weight} if "weight" in settings else {}))

    yield from dynamics.check(names, build(cfg.loss), of_weight, _settings(cfg.loss), settings.get("c", math.inf))


def _steps(cfg: DictConfig) -> Checks:
    D, G, x, z = players(cfg)
    loss, penalty = build(cfg.loss), build(cfg.penalty)
    yield from steps.check(method_label(cfg), loss, penalty, D, G, x, z)


def _turns(cfg: DictConfig) -> Checks:
    yield from steps.turns_alike(
        method_label(cfg),
        build(cfg.loss),
        build(cfg.penalty),
        *players(cfg),
    )


def players(cfg: DictConfig) -> tuple[nn.Module, nn.Module, torch.Tensor, torch.Tensor]:
    """The configuration's nets as training would draw them, six samples in its shape, and six z."""
    with randomness.seeded_initialization(0, "init/G"):
        G = build(cfg.model.generator)
    with randomness.seeded_initialization(0, "init/D"):
        D = build(cfg.model.critic)
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(6, *cfg.dataset.shape, generator=rng) * 2 - 1
    return D, G, x, torch.randn(6, cfg.model.z_dim, generator=rng)


def _settings(node: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(node, resolve=True)


def _rest(cfg: DictConfig) -> dict[str, Any]:
    flat = OmegaConf.to_container(cfg, resolve=True)
    return {k: v for k, v in flat.items() if k not in ("loss", "penalty", "hydra")}


def _distinct(configs: Iterable[DictConfig]) -> list[DictConfig]:
    """The first of each pair of loss and penalty."""
    first: dict[str, DictConfig] = {}
    for cfg in configs:
        first.setdefault(method_label(cfg), cfg)
    return list(first.values())
