"""What the recipes of papers cost: `python -m ganbench.bench.recipes` prints the hours of each on a GPU.

An estimate, made of the operations that an update takes, counted without a GPU, and one rate for all of them. Scores
are left out, since they take little beside training.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from hydra.types import RunMode
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ganbench.bench.costs import NoModuleTracking
from ganbench.config.budget import make_budget
from ganbench.config.compose import build, compose_config, hydra_of_ganbench
from ganbench.config.schema import CONF, Track
from ganbench.training.preflight import is_relativistic

RATE = 10e12  # operations a second in fp32, a seventh of an H100's peak: small batches do not fill it
LAUNCHES = 0.003  # seconds that an update takes in addition, however small
SAMPLES = 8  # that are counted; an update of more takes as many times as much

RECIPES = sorted(file.stem for file in (CONF / "experiment/paper").glob("*.yaml"))


def hours(recipe: str) -> float:
    """Return the hours that all runs of a recipe take together, at RATE and with LAUNCHES."""
    total = 0.0
    for overrides, n in runs(recipe):
        cfg = compose_config(f"experiment=paper/{recipe}", *overrides, "name=cost")
        trials = cfg.protocol.trials if cfg.protocol.track is Track.tuned else 0
        total += (n + trials) * seconds(cfg)
    return total / 3600


def runs(recipe: str) -> list[tuple[tuple[str, ...], int]]:
    """Return the overrides of each of a recipe's runs but for the seed, and how many seeds it has."""
    with hydra_of_ganbench() as hydra:
        cfg = hydra.compose_config("config", [f"experiment=paper/{recipe}", "name=cost"], RunMode.RUN)
    params = {str(key): str(value) for key, value in (cfg.hydra.sweeper.params or {}).items()}
    seeds = params.pop("seed", "0")
    n = int(seeds.removeprefix("range(0,").rstrip(")")) if seeds.startswith("range") else len(seeds.split(","))
    values = [[f"{key}={value}" for value in text.split(",")] for key, text in params.items()]
    return [(overrides, n) for overrides in itertools.product(*values)]


def seconds(cfg: DictConfig) -> float:
    """Return the seconds that a run's updates take."""
    budget = make_budget(cfg.protocol)
    critic_updates = budget.critic_updates_before(budget.steps)
    critic, generator = update_operations(cfg)
    generator_batch = cfg.protocol.generator_batch or cfg.protocol.batch
    operations = critic_updates * critic * cfg.protocol.batch + budget.steps * generator * generator_batch
    return operations / RATE + (critic_updates + budget.steps) * LAUNCHES


def update_operations(cfg: DictConfig) -> tuple[float, float]:
    """Count the operations of an update of the critic and of the generator, for each sample of its batch.

    Nothing is computed: the nets are on the meta device, whose tensors have only a shape.
    """
    with torch.device("meta"):
        G, D = build(cfg.model.generator), build(cfg.model.critic)
        z = torch.randn(SAMPLES, cfg.model.z_dim)
        real = torch.zeros(SAMPLES, *cfg.dataset.shape)
    loss, penalty = build(cfg.loss), build(cfg.penalty)
    rng = torch.Generator()

    def critic_loss() -> Tensor:
        with torch.no_grad():
            fake = G(z)
        return loss.d(D(real), D(fake)) + penalty(D, real, fake, rng)

    def generator_loss() -> Tensor:
        fake = D(G(z))
        return loss.g(fake, D(real)) if is_relativistic(loss) else loss.g(fake)

    critic = count_operations(critic_loss)
    D.requires_grad_(False)
    return critic / SAMPLES, count_operations(generator_loss) / SAMPLES


def count_operations(loss: Callable[[], Tensor]) -> int:
    """Count the operations of a loss and of its gradients."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _backward_operations})
    counter.mod_tracker = NoModuleTracking()  # type: ignore[assignment]
    with counter:
        loss().backward()
    return counter.get_total_flops()


def _backward_operations(*arguments: Any, out_shape: Any) -> int:
    """Count those of a convolution's gradients from the arguments of aten.convolution_backward, shapes for tensors.

    torch's own count takes a convolution in groups for a full one.
    """
    grad, x, weight = arguments[:3]
    transposed, output_mask = arguments[7], arguments[10]
    forward = 2 * grad[0] * math.prod((x if transposed else grad)[2:]) * math.prod(weight)
    return forward * sum(output_mask[:2])


def rounded(value: float) -> float:
    """Round to one digit, and 10 to 20 to two: an estimate has no more."""
    return float(f"{value:.1g}") if not f"{value:e}".startswith("1") else float(f"{value:.2g}")


def main() -> None:
    for recipe in RECIPES:
        print(f"{recipe}: {rounded(hours(recipe)):g} hours")


if __name__ == "__main__":
    main()
