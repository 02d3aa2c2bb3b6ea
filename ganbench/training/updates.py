"""One update of each player, never from a number that is not finite.

Each returns its terms by name, detached and on the device. Before an optimizer moves, the host reads these terms, and
waits for the device to do so. An optimizer with `found_inf`, which a fused one reads on the device, is not waited for:
it skips this update and all later ones, and `Meter` raises Diverged when it next reads the terms.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ganbench.errors import Diverged
from ganbench.interfaces import Augment, Loss, Penalty, Projection
from ganbench.models.layers import eval_mode
from ganbench.training.batches import CriticBatch, GeneratorBatch
from ganbench.training.players import Players
from ganbench.training.preflight import is_relativistic

SATURATION_THRESHOLD = 1e-3  # a sample with a smaller |dL_G/dD(x)| teaches the generator nothing

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Objective:
    """What the players minimize, the context in which they compute (penalty and augmentation stay outside of it), and
    how samples are augmented for the critic.
    """

    loss: Loss
    penalty: Penalty
    autocast: Callable[[], AbstractContextManager] = nullcontext
    augment: Augment | None = None


def critic_update(players: Players, batch: CriticBatch, objective: Objective) -> Terms:
    """Update the critic once on real samples and as many fakes, all of them augmented, for the penalty, too.

    Raise Diverged, with weights and optimizer as they were, if a term is not finite (but see `found_inf` above).
    """
    D = players.D
    with objective.autocast():
        fake = _fakes(players.G, batch)
    real, fake = _augmented([batch.real, fake], batch.augment_rng, objective.augment)
    with objective.autocast():
        logits = D(torch.cat([real, fake]))
    real_logits, fake_logits = logits.float().chunk(2)
    d_loss = objective.loss.d(real_logits, fake_logits)
    with eval_mode(D):  # so that spectral norm iterates as often without a penalty as with one
        d_penalty = objective.penalty(D, real, fake.float(), batch.rng)
    players.opt_d.zero_grad()
    (d_loss + d_penalty).backward()
    terms = {"d_real": real_logits.mean(), "d_fake": fake_logits.mean(), "d_loss": d_loss, "d_penalty": d_penalty}
    terms = _move(players.opt_d, terms | {"d_grad_norm": gradient_norm(D)})
    if isinstance(objective.penalty, Projection):
        objective.penalty.project(D)
    return terms


def generator_update(players: Players, batch: GeneratorBatch, objective: Objective) -> Terms:
    """Update the generator once through a frozen critic.

    Only a relativistic loss has the critic judge the real samples, too. Raise Diverged as `critic_update` does.
    """
    D = players.D
    loss = objective.loss
    D.requires_grad_(False)
    with objective.autocast():
        fake = players.G(batch.z) if batch.fake is None else batch.fake
    judged = [fake, batch.real] if is_relativistic(loss) else [fake]
    judged = _augmented(judged, batch.augment_rng, objective.augment)
    with objective.autocast():
        logits = D(torch.cat(judged) if len(judged) > 1 else judged[0])
    logits = logits.float()
    logits.retain_grad()
    g_loss = loss.g(*logits.split(len(batch.z)))
    players.opt_g.zero_grad()
    g_loss.backward()
    D.requires_grad_(True)
    saturated = saturated_share(logits.grad[: len(batch.z)])
    terms = {"g_loss": g_loss, "g_saturated": saturated, "g_grad_norm": gradient_norm(players.G)}
    return _move(players.opt_g, terms)


def saturated_share(gradient: Tensor) -> Tensor:
    """Return the share of samples with |dL_G/dD(x)| < 0.001, from the gradient [N] of the mean loss by logits."""
    return (gradient.abs() * len(gradient) < SATURATION_THRESHOLD).float().mean()


def gradient_norm(net: nn.Module) -> Tensor:
    """Return the Euclidean norm of the gradient of all weights of a net."""
    return torch.nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])


def raise_if_not_finite(terms: Terms) -> None:
    """Raise Diverged for the first term that is not finite; terms are in order of cause and effect."""
    for what, value in zip(terms, torch.stack(list(terms.values())).tolist(), strict=True):
        if not math.isfinite(value):
            player = "generator" if "g_loss" in terms else "critic"
            raise Diverged(f"{what} was {value}", what, value, player)


@torch.no_grad()
def _fakes(G: nn.Module, batch: CriticBatch) -> Tensor:
    return G(batch.z) if batch.fake is None else batch.fake.detach()


def _augmented(batches: list[Tensor], rng: torch.Generator | None, augment: Augment | None) -> list[Tensor]:
    """Return batches as the critic is to see them: in one batch, so that no augmentation can tell them apart."""
    if augment is None:
        return batches
    together = augment(torch.cat([batch.float() for batch in batches]), rng)
    return list(together.split([len(batch) for batch in batches]))


def _move(optimizer: Optimizer, terms: Terms) -> Terms:
    """Take the optimizer's step and return the terms detached."""
    terms = {name: term.detach() for name, term in terms.items()}
    skip = getattr(optimizer, "found_inf", None)
    if skip is None:
        raise_if_not_finite(terms)
    else:
        skip.logical_or_(~torch.stack(list(terms.values())).isfinite().all())
    optimizer.step()
    return terms
