"""Draw what one iteration consumes, as a pure function of its step."""

from typing import NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor

from ganbench import randomness
from ganbench.datasets import real_batch


class CriticBatch(NamedTuple):
    """What one update of the critic consumes."""

    real: Tensor  # [N, ...], floats
    z: Tensor  # [N, z_dim]
    rng: torch.Generator  # the penalty's noise
    when: dict[str, int]  # step and critic_step, updates of G and D before this one, and images, seen after it
    fake: Tensor | None = None  # G(z), if it has been made already


class GeneratorBatch(NamedTuple):
    """What one update of the generator consumes."""

    real: Tensor  # [N, ...], floats: for losses that compare
    z: Tensor  # [N, z_dim]
    fake: Tensor | None = None  # samples with their graph, to be used instead of G(z)


class Batch(NamedTuple):
    """What one iteration consumes: `n_critic` updates of the critic, then one of the generator."""

    critic: list[CriticBatch]
    generator: GeneratorBatch
    key: int  # where the generators of the whole process start, from which dropout and the like draw

    @property
    def when(self) -> list[dict[str, int]]:
        """Return when each update takes place; the generator's counts as the last one of the critic."""
        updates = [batch.when for batch in self.critic]
        return [*updates, updates[-1]]


def draw_batch(cfg: DictConfig, train: Tensor, step: int) -> Batch:
    """Draw the batch of step `step` from the training data [M, ...], on its device."""
    n_critic = cfg.protocol.n_critic
    critic = [_critic_batch(cfg, train, step, k) for k in range(step * n_critic, (step + 1) * n_critic)]
    z = randomness.normal((cfg.protocol.batch, cfg.model.z_dim), cfg.seed, "z_g", step, train.device)
    return Batch(critic, GeneratorBatch(critic[-1].real, z), randomness.key(cfg.seed, "own", step))


def _critic_batch(cfg: DictConfig, train: Tensor, step: int, critic_step: int) -> CriticBatch:
    n = cfg.protocol.batch
    return CriticBatch(
        real=real_batch(train, cfg.seed, critic_step, n),
        z=randomness.normal((n, cfg.model.z_dim), cfg.seed, "z_d", critic_step, train.device),
        rng=randomness.generator(cfg.seed, "penalty", critic_step, train.device),
        when={"step": step, "critic_step": critic_step, "images": (critic_step + 1) * n},
    )
