"""Iterations of a run without the run: what test_speed.py and test_gpu.py compare."""

from collections.abc import Callable
from functools import partial

import torch
from omegaconf import DictConfig
from torch import Tensor

from ganbench.config.compose import build, is_augmented
from ganbench.models import dcgan
from ganbench.training.batches import Batch, Batches
from ganbench.training.cuda_graphs import CudaGraphIteration, seeded
from ganbench.training.device import autocast_and_penalty
from ganbench.training.iteration import Iteration, iterate
from ganbench.training.players import Players, make_players
from ganbench.training.updates import Objective

CPU = torch.device("cpu")


def iterating(cfg: DictConfig, players: Players, device: torch.device = CPU) -> Callable[..., list]:
    """The iteration of a run, with keywords that a test may change."""
    autocast, penalty = autocast_and_penalty(cfg.precision, device, build(cfg.penalty))
    augment = build(cfg.augment) if is_augmented(cfg) else None
    objective = Objective(build(cfg.loss), penalty, autocast, augment)
    return partial(iterate, players, objective, ema_decay=lambda images: 0.9, reuse_fakes=cfg.protocol.reuse_fakes)


def state(players: Players) -> list[Tensor]:
    """All that training changes."""
    moments = [m for o in (players.opt_g, players.opt_d) for part in o.state.values() for m in part.values()]
    return [x.detach().cpu() for net in players[:3] for x in net.state_dict().values()] + [m.cpu() for m in moments]


Outcome = tuple[list[Tensor], Tensor]  # the players' state, and all terms that were returned


def outcome(run: Iteration, players: Players, draw: Callable[[int], Batch], steps: range) -> Outcome:
    terms = [run(draw(step)) for step in steps]
    return state(players), torch.stack([x.cpu() for rows in terms for row in rows for x in row.values()])


def assert_equal(a: Outcome, b: Outcome) -> None:
    """Bit-equal; where not, say where it begins."""
    (weights_a, terms_a), (weights_b, terms_b) = a, b
    apart = (terms_a != terms_b).nonzero().flatten().tolist()
    assert not apart, f"terms {apart[:5]} differ: {terms_a[apart[:5]]}, {terms_b[apart[:5]]}"
    assert len(weights_a) == len(weights_b) > 12
    differ = [not torch.equal(x, y) for x, y in zip(weights_a, weights_b, strict=True)]
    assert not any(differ), f"{sum(differ)} of {len(differ)} parts of the players differ"


class DropoutCritic(dcgan.Critic):
    """Draws from torch's own generator."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.nn.functional.dropout(x, 0.2, self.training))


DROPOUT = "model.critic._target_=iterations.DropoutCritic"


def side_by_side(cfg: DictConfig, device: torch.device, steps: int = 3, resumed: int = 0) -> None:
    """With and without speed.graphs, `resumed` iterations after the beginning, the same."""
    train = build(cfg.dataset).to(device).train
    found = []
    for fixed in (False, True):
        players = make_players(cfg, device)
        iteration = iterating(cfg, players, device)
        run: Iteration = seeded(iteration)
        for step in range(resumed):
            run(Batches(cfg, train)(step))
        if fixed:
            run = CudaGraphIteration(iteration, players, [Batches(cfg, train)(resumed + k) for k in range(2)])
        found.append(outcome(run, players, Batches(cfg, train), range(resumed, resumed + steps)))
    assert_equal(*found)
