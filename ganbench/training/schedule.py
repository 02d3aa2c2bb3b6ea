"""When things happen in a run: at step k, once the generator has been updated k times."""

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from ganbench.config.budget import Budget, make_budget


@dataclass(frozen=True)
class Schedule:
    """The steps of a run, one for each generator update, and at which of them it evaluates, probes and saves."""

    steps: int
    budget: Budget
    log_every: int
    evaluations: frozenset[int]
    probes: frozenset[int]
    checkpoints: frozenset[int]

    def images(self, step: int) -> int:
        """Return how many real images the critic has seen before this step."""
        return self.budget.images_before(step)

    def critic_step(self, step: int) -> int:
        """Return how many updates the critic has had before this step."""
        return self.budget.critic_updates_before(step)

    def logs_at(self, step: int) -> bool:
        """Tell whether the losses since the last log line are written at this step."""
        return step % self.log_every == 0 or step in self.evaluations


def make_schedule(cfg: DictConfig, probe_moments: Sequence[float], earlier_budgets: Sequence[int] = ()) -> Schedule:
    """Lay out a run's budget; `probe_moments` are shares of it. Validation has seen to it that the steps are whole.

    A run that was extended is also evaluated where it ended before.
    """
    budget = make_budget(cfg.protocol)
    steps = budget.steps
    evaluations = budget.evaluations(cfg.protocol.evaluations)
    evaluations |= {budget.steps_within(images) for images in earlier_budgets}
    probes = frozenset(budget.step_at(moment) for moment in probe_moments)
    return Schedule(
        steps=steps,
        budget=budget,
        log_every=cfg.protocol.log_every,
        evaluations=evaluations,
        probes=probes,
        # Also before what takes long, and may be interrupted.
        checkpoints=evaluations | probes | frozenset(range(0, steps, cfg.checkpoint_every)),
    )
