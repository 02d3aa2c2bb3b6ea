"""When things happen in a run: at step k, once the generator has been updated k times."""

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig


@dataclass(frozen=True)
class Schedule:
    """The steps of a run, one for each generator update, and at which of them it evaluates, probes and saves."""

    steps: int
    images_per_step: int  # real images that the critic sees
    log_every: int
    evaluations: frozenset[int]
    probes: frozenset[int]
    checkpoints: frozenset[int]

    def images(self, step: int) -> int:
        """Return how many real images the critic has seen before this step."""
        return step * self.images_per_step

    def logs_at(self, step: int) -> bool:
        """Tell whether the losses since the last log line are written at this step."""
        return step % self.log_every == 0 or step in self.evaluations


def make_schedule(cfg: DictConfig, probe_moments: Sequence[float], earlier_budgets: Sequence[int] = ()) -> Schedule:
    """Lay out a run's budget; `probe_moments` are shares of it. Validation has seen to it that the steps are whole.

    A run that was extended is also evaluated where it ended before.
    """
    p = cfg.protocol
    images_per_step = p.batch * p.n_critic
    steps = p.images // images_per_step
    evaluations = frozenset(round(k * steps / p.evaluations) for k in range(p.evaluations + 1))
    evaluations |= {budget // images_per_step for budget in earlier_budgets}
    probes = frozenset(round(moment * steps) for moment in probe_moments)
    return Schedule(
        steps=steps,
        images_per_step=images_per_step,
        log_every=p.log_every,
        evaluations=evaluations,
        probes=probes,
        # Also before what takes long, and may be interrupted.
        checkpoints=evaluations | probes | frozenset(range(0, steps, cfg.checkpoint_every)),
    )
