"""Draw what one iteration consumes, as a pure function of its step."""

from typing import NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor

from ganbench import randomness
from ganbench.config.budget import make_budget
from ganbench.config.compose import is_augmented
from ganbench.datasets import real_batch


class CriticBatch(NamedTuple):
    """What one update of the critic consumes."""

    real: Tensor  # [N, ...], floats
    z: Tensor  # [N, z_dim]
    rng: torch.Generator  # the penalty's noise
    when: dict[str, int]  # step and critic_step, updates of G and D before this one, and images, seen after it
    fake: Tensor | None = None  # G(z), if it has been made already
    augment_rng: torch.Generator | None = None  # the augmentation's noise, where there is one


class GeneratorBatch(NamedTuple):
    """What one update of the generator consumes."""

    real: Tensor  # [N, ...], floats: for losses that compare
    z: Tensor  # [N, z_dim]
    fake: Tensor | None = None  # samples with their graph, to be used instead of G(z)
    augment_rng: torch.Generator | None = None  # as above


class Batch(NamedTuple):
    """What one iteration consumes: one or more updates of the critic, then one of the generator."""

    critic: list[CriticBatch]
    generator: GeneratorBatch
    key: int  # where the generators of the whole process start, from which dropout and the like draw

    @property
    def when(self) -> list[dict[str, int]]:
        """Return when each update takes place; the generator's counts as the last one of the critic."""
        updates = [batch.when for batch in self.critic]
        return [*updates, updates[-1]]

    @property
    def images(self) -> int:
        """Return how many real images the critic sees."""
        return sum(len(batch.real) for batch in self.critic)


def draw_batch(cfg: DictConfig, train: Tensor, step: int) -> Batch:
    """Draw the batch of step `step` from the training data [M, ...], on its device."""
    budget = make_budget(cfg.protocol)
    updates = range(budget.critic_updates_before(step), budget.critic_updates_before(step + 1))
    critic = [_critic_batch(cfg, train, step, k) for k in updates]
    generator = _generator_batch(cfg, train, step, critic[-1].real)
    return Batch(critic, generator, randomness.key(cfg.seed, "own", step))


def _critic_batch(cfg: DictConfig, train: Tensor, step: int, critic_step: int) -> CriticBatch:
    n = cfg.protocol.batch
    return CriticBatch(
        real=real_batch(train, cfg.seed, critic_step, n),
        z=randomness.normal((n, cfg.model.z_dim), cfg.seed, "z_d", critic_step, train.device),
        rng=randomness.generator(cfg.seed, "penalty", critic_step, train.device),
        when={"step": step, "critic_step": critic_step, "images": (critic_step + 1) * n},
        augment_rng=_augment_rng(cfg, "augment_d", critic_step, train.device),
    )


def _generator_batch(cfg: DictConfig, train: Tensor, step: int, last: Tensor) -> GeneratorBatch:
    """Draw what the generator's update consumes; as many reals as fakes, the critic's `last` ones if that is right."""
    n = cfg.protocol.generator_batch or cfg.protocol.batch
    return GeneratorBatch(
        real=last if n == len(last) else real_batch(train, cfg.seed, step, n, stream="data_g"),
        z=randomness.normal((n, cfg.model.z_dim), cfg.seed, "z_g", step, train.device),
        augment_rng=_augment_rng(cfg, "augment_g", step, train.device),
    )


def _augment_rng(cfg: DictConfig, stream: str, counter: int, device: torch.device) -> torch.Generator | None:
    return randomness.generator(cfg.seed, stream, counter, device) if is_augmented(cfg) else None
