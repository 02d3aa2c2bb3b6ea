"""Which checks apply to what: to every option that ships with ganbench, or to one method."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from omegaconf import DictConfig

from ganbench.config.compose import build, method_label, option_names, resolve
from ganbench.config.validate import validate
from ganbench.conformance import critics, dynamics, losses, metrics, penalties, steps
from ganbench.conformance.checks import Check, Checks, check_true, run_checks
from ganbench.interfaces import Penalty
from ganbench.training.players import draw_net
from ganbench.training.updates import Objective

Compose = Callable[..., DictConfig]  # from overrides

# In addition to every loss with its own penalty, and every penalty with the GAN loss.
PAIRS = (
    "loss=wgan penalty=none",
    "loss=wgan penalty=zero_centered",
    "loss=wgan penalty=r1",
    "loss=lsgan penalty=r1",
    "loss=hinge penalty=r1",
    "loss=rpgan penalty=r1r2",
)

DCGAN = "dataset=mnist5k"
RESNET = "dataset=mnist5k model=sngan_resnet model.width=16"
CNN = "dataset=mnist5k model=sngan_cnn model.width=4"
INFOGAN = "dataset=mnist5k model=infogan model.width=4"
R3GAN = "dataset=mnist5k model=r3gan model.width=8"
MLP = "dataset=ring"
CRITICS = (
    *(f"{DCGAN} model.critic_norm={norm}" for norm in ("none", "layer", "instance", "spectral")),
    *(f"{RESNET} model.critic_norm={norm}" for norm in ("none", "layer", "spectral")),
    *(f"{CNN} model.critic_norm={norm}" for norm in ("none", "layer", "instance", "spectral")),
    *(f"{INFOGAN} model.critic_norm={norm}" for norm in ("none", "layer", "spectral")),
    R3GAN,
    *(f"{MLP} model.critic_norm={norm}" for norm in ("none", "layer", "spectral")),
)


def all_checks(compose: Compose) -> Checks:
    """Check every loss, penalty, critic and metric that ships, and the methods whose dynamics are known."""
    default = compose()
    checked: set[tuple[str, str]] = set()
    for cfg in _methods(compose):
        for group in ("loss", "penalty"):
            if (group, cfg[group].name) not in checked:
                checked.add((group, cfg[group].name))
                yield from _option_checks(group, cfg)
        yield from _dynamics_checks(cfg)
        yield from _update_checks(cfg)
        yield from footing_check(cfg, default)
    for overrides in CRITICS:
        yield from critic_checks(compose(*overrides.split()))
    yield from _power_iteration_check(compose("loss=wgan-gp", "model.critic_norm=spectral"))
    yield from metrics.check()


def method_checks(cfg: DictConfig, without_method: DictConfig) -> Checks:
    """Check the loss, penalty and critic of one configuration; the other one is the same without loss and penalty.

    Updates and dynamics are checked only if all of these pass.
    """
    validate(cfg)
    passed = True
    for row in _part_checks(cfg, without_method):
        passed = passed and row.passed
        yield row
    if passed:
        yield from _update_checks(cfg)
        yield from _dynamics_checks(cfg)
    else:
        yield check_true("step", method_label(cfg), "skipped because a check above failed", False)


def _part_checks(cfg: DictConfig, without_method: DictConfig) -> Checks:
    yield from _option_checks("loss", cfg)
    yield from _option_checks("penalty", cfg)
    yield from critic_checks(cfg)
    yield from footing_check(cfg, without_method)


def _methods(compose: Compose) -> list[DictConfig]:
    """Compose every loss, every penalty and the pairs; of each method the first configuration."""
    return list(_first_of_each_method(_compose_methods(compose)))


def _compose_methods(compose: Compose) -> Iterator[DictConfig]:
    for loss in option_names("loss"):
        yield compose(f"loss={loss}")
    for penalty in option_names("penalty"):
        yield compose("loss=gan", f"penalty={penalty}")
    for pair in PAIRS:
        yield compose(*pair.split())


def _first_of_each_method(configs: Iterable[DictConfig]) -> Iterator[DictConfig]:
    labels = set()
    for cfg in configs:
        if method_label(cfg) not in labels:
            labels.add(method_label(cfg))
            yield cfg


def footing_check(cfg: DictConfig, without_method: DictConfig) -> Iterator[Check]:
    """Check that a loss brings at most its penalty: no model, norm or learning rate of its own."""
    actual, expected = _other_settings(cfg), _other_settings(without_method)
    changed = sorted(key for key in actual if actual[key] != expected.get(key))
    description = "changes only loss and penalty" + (f", but also {', '.join(changed)}" if changed else "")
    yield check_true("footing", method_label(cfg), description, not changed)


def _other_settings(cfg: DictConfig) -> dict[str, Any]:
    return {key: value for key, value in resolve(cfg).items() if key not in ("loss", "penalty", "hydra")}


def critic_checks(cfg: DictConfig) -> Checks:
    norm = cfg.model.get("critic_norm", "none")
    game = make_game(cfg)
    yield from critics.check(f"{cfg.model.name}/{norm}", game.D, game.real, spectral=norm == "spectral")


def _option_checks(group: str, cfg: DictConfig) -> Checks:
    """Check the loss or the penalty alone."""
    name, settings = cfg[group].name, resolve(cfg[group])
    module = losses if group == "loss" else penalties
    # Building a user's class may fail, too.
    yield from run_checks(group, name, [lambda: module.check(name, build(cfg[group]), settings)])


def _dynamics_checks(cfg: DictConfig) -> Checks:
    settings = resolve(cfg.penalty)

    def make_penalty(weight: float) -> Penalty:
        return build(cfg.penalty, weight=weight) if "weight" in settings else build(cfg.penalty)

    yield from dynamics.check(
        cfg.loss.name, cfg.penalty.name, build(cfg.loss), make_penalty, resolve(cfg.loss), settings.get("c", math.inf)
    )


def _update_checks(cfg: DictConfig) -> Checks:
    yield from steps.check(method_label(cfg), make_objective(cfg), make_game(cfg))


def _power_iteration_check(cfg: DictConfig) -> Checks:
    yield from steps.power_iterations(method_label(cfg), make_objective(cfg), make_game(cfg))


def make_objective(cfg: DictConfig) -> Objective:
    """Build loss and penalty, without the checks that a run begins with."""
    return Objective(build(cfg.loss), build(cfg.penalty))


def make_game(cfg: DictConfig) -> steps.Game:
    """Make D and G as training would initialize them, six samples of the dataset's shape, and six z."""
    cpu = torch.device("cpu")
    G = draw_net(cfg, "generator", "init/G", cpu)
    D = draw_net(cfg, "critic", "init/D", cpu)
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(6, *cfg.dataset.shape, generator=rng) * 2 - 1
    z = torch.randn(6, cfg.model.z_dim, generator=rng)
    return steps.Game(D, G, x, z)
