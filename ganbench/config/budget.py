"""Count updates and real images: how many updates of the critic come before each of the generator's."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from omegaconf import DictConfig


@dataclass(frozen=True)
class Budget:
    """A run's real images, and how its updates share them. Step k begins when the generator has had k updates.

    With `critic_start`, so many updates of the critic, instead of `n_critic`, come before each of the first
    `critic_start_steps` updates of the generator, and before every one whose number is a multiple of
    `critic_start_every`: 100, 25 and 500 in the code of WGAN (Arjovsky et al. 2017).
    """

    images: int
    batch: int  # real images that one update of the critic sees
    n_critic: int
    critic_start: int | None
    critic_start_steps: int
    critic_start_every: int | None

    @property
    def steps(self) -> int:
        """Return the whole steps that the budget has room for."""
        return self.steps_within(self.images)

    def critic_updates_before(self, step: int) -> int:
        """Return how many updates the critic has had when a step begins."""
        if self.critic_start is None:
            return step * self.n_critic
        starts = self._starts_before(step)
        return starts * self.critic_start + (step - starts) * self.n_critic

    def images_before(self, step: int) -> int:
        """Return how many real images the critic has seen when a step begins."""
        return self.critic_updates_before(step) * self.batch

    def steps_within(self, images: int) -> int:
        """Return how many whole steps take no more than so many real images."""
        most = images // (self.batch * min(self.n_critic, self.critic_start or self.n_critic))
        if self.critic_start is None:
            return most
        return bisect_right(range(most + 1), images, key=self.images_before) - 1

    def step_at(self, share: Fraction | float) -> int:
        """Return the step that is nearest to a share of the budget's images."""
        if self.critic_start is None:
            return round(share * self.steps)
        before = self.steps_within(int(share * self.images))
        return min(before, before + 1, key=lambda step: abs(self.images_before(step) - share * self.images))

    def evaluations(self, n: int) -> frozenset[int]:
        """Return the steps of n evenly spaced evaluations and of the one before training."""
        return frozenset(self.step_at(Fraction(k, n)) for k in range(n + 1))

    def _starts_before(self, step: int) -> int:
        """Count the steps before this one that have `critic_start` updates."""
        first = min(step, self.critic_start_steps)
        every = self.critic_start_every
        if every is None:
            return first
        return first + _multiples_below(step, every) - _multiples_below(first, every)


def make_budget(protocol: DictConfig | Mapping[str, Any]) -> Budget:
    """Read the budget from the settings of a protocol, of a run of an earlier version, too."""
    return Budget(
        images=protocol.get("images", 0),
        batch=protocol.get("batch", 1),
        n_critic=protocol.get("n_critic", 1),
        critic_start=protocol.get("critic_start"),
        critic_start_steps=protocol.get("critic_start_steps", 0),
        critic_start_every=protocol.get("critic_start_every"),
    )


def _multiples_below(limit: int, divisor: int) -> int:
    """Count 0, divisor, 2 * divisor, … below the limit."""
    return -(-limit // divisor)
