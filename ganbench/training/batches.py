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


class Batches:
    """The batches of a run, drawn from its training data [M, ...] and on their device, each as a function of its step.

    What the configuration says is read once: at every step that would take as long as the drawing itself.
    """

    def __init__(self, cfg: DictConfig, train: Tensor):
        self.train = train
        self.mirrored = cfg.protocol.flip_reals
        self.seed = cfg.seed
        self.z_dim = cfg.model.z_dim
        self.budget = make_budget(cfg.protocol)
        self.generator_batch = cfg.protocol.generator_batch or cfg.protocol.batch
        self.is_augmented = is_augmented(cfg)

    def __call__(self, step: int) -> Batch:
        """Draw the batch of a step."""
        updates = range(self.budget.critic_updates_before(step), self.budget.critic_updates_before(step + 1))
        critic = [self._of_critic(step, k) for k in updates]
        return Batch(critic, self._of_generator(step, critic[-1].real), randomness.key(self.seed, "own", step))

    def _of_critic(self, step: int, critic_step: int) -> CriticBatch:
        n = self.budget.batch
        return CriticBatch(
            real=self._reals(n, "data", critic_step),
            z=self._latents(n, "z_d", critic_step),
            rng=randomness.generator(self.seed, "penalty", critic_step, self.train.device),
            when={"step": step, "critic_step": critic_step, "images": (critic_step + 1) * n},
            augment_rng=self._augment_rng("augment_d", critic_step),
        )

    def _of_generator(self, step: int, last: Tensor) -> GeneratorBatch:
        """Draw as many reals as fakes: the critic's `last` ones if that is right, else from a stream of their own."""
        n = self.generator_batch
        return GeneratorBatch(
            real=last if n == len(last) else self._reals(n, "data_g", step),
            z=self._latents(n, "z_g", step),
            augment_rng=self._augment_rng("augment_g", step),
        )

    def _reals(self, n: int, stream: str, counter: int) -> Tensor:
        return real_batch(self.train, self.seed, counter, n, stream, self.mirrored)

    def _latents(self, n: int, stream: str, counter: int) -> Tensor:
        return randomness.normal((n, self.z_dim), self.seed, stream, counter, self.train.device)

    def _augment_rng(self, stream: str, counter: int) -> torch.Generator | None:
        if not self.is_augmented:
            return None
        return randomness.generator(self.seed, stream, counter, self.train.device)
