"""One iteration of training: updates of the critic, one of the generator, and the average's move."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ganbench.errors import Diverged
from ganbench.training.batches import Batch, CriticBatch
from ganbench.training.cuda_graphs import CudaGraphIteration, seeded
from ganbench.training.players import Players
from ganbench.training.updates import Objective, Terms, critic_update, generator_update

Iteration = Callable[[Batch], list[Terms]]


def make_iteration(cfg: DictConfig, players: Players, objective: Objective, draw: Callable[[int], Batch]) -> Iteration:
    """Bind the iteration of a run; with speed.graphs=true it is captured on a first batch and tried on a second.

    `draw` returns the batch that is so many steps ahead. Raise Refused for an objective that cannot be captured.
    """
    p = cfg.protocol
    decay = partial(ema_decay, decay=p.ema, half_life=p.ema_half_life)
    run = partial(iterate, players, objective, ema_decay=decay, reuse_fakes=p.reuse_fakes)
    return CudaGraphIteration(run, players, [draw(0), draw(1)]) if cfg.speed.graphs else seeded(run)


def iterate(
    players: Players,
    objective: Objective,
    batch: Batch,
    *,
    ema_decay: Callable[[int], float],
    reuse_fakes: bool = False,
) -> list[Terms]:
    """Update all players once; return the terms of each update, the generator's last.

    `ema_decay` returns the average's decay for the real images of an iteration. With `reuse_fakes` the generator learns
    from the samples of the critic's last update. Diverged says when it was.
    """
    *earlier, last = batch.critic
    rows = [_critic_update(players, objective, critic_batch) for critic_batch in earlier]
    fake = None
    if reuse_fakes:
        with objective.autocast():
            fake = players.G(last.z)
    rows.append(_critic_update(players, objective, last._replace(fake=fake)))
    with annotate_divergence(last.when):
        rows.append(generator_update(players, batch.generator._replace(fake=fake), objective))
    update_average(players.average, players.G, ema_decay(batch.images))
    return rows


def ema_decay(images: int, *, decay: float, half_life: float | None) -> float:
    """Return the share of the average that an iteration leaves: the same at each, or a half after `half_life` images.

    `images` is how many real images the critic sees in the iteration (Karras et al. 2018 and their code).
    """
    return decay if half_life is None else 0.5 ** (images / half_life)


@torch.no_grad()
def update_average(average: nn.Module, G: nn.Module, decay: float) -> None:
    """Move the average's weights towards G's by 1 - decay, and batch norm's statistics with them.

    Statistics copied from G would belong to other weights than the averaged ones.
    """
    torch._foreach_lerp_(_floats(average), _floats(G), 1 - decay)


def _floats(net: nn.Module) -> list[Tensor]:
    """Return weights and statistics; not by state_dict(), which takes four times as long, at every update."""
    return [x for x in chain(net.parameters(), net.buffers()) if x.is_floating_point()]


@contextmanager
def annotate_divergence(when: dict[str, int]) -> Iterator[None]:
    """Add `when` to any Diverged raised inside."""
    try:
        yield
    except Diverged as error:
        error.facts |= when
        raise


def _critic_update(players: Players, objective: Objective, batch: CriticBatch) -> Terms:
    with annotate_divergence(batch.when):
        return critic_update(players, batch, objective)
