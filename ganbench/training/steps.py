"""One update of each player, none from a number that is not finite. What they return is detached, on the device.

Before the optimiser moves, the host reads an update's terms, and waits for the device to do so. Unless the optimiser
has `found_inf`: what a fused one looks at on the device, where it holds this and all later updates back.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ganbench.errors import Diverged
from ganbench.models.layers import eval_mode
from ganbench.training.batches import Batch
from ganbench.training.preflight import is_relativistic


@torch.no_grad()
def update_average(average: nn.Module, G: nn.Module, decay: float) -> None:
    """Move the average's weights, and batch norm's statistics with them, towards G's by 1 - decay.

    Statistics copied from G would belong to other weights than the averaged ones.
    """
    means, values = ([t for t in net.state_dict().values() if t.is_floating_point()] for net in (average, G))
    torch._foreach_lerp_(means, values, 1 - decay)


SATURATION_THRESHOLD = 1e-3  # a sample with a smaller |dL_G/dD(x)| teaches the generator nothing


def iteration(
    of: Batch,
    players: Any,
    loss,
    penalty: Callable[..., Tensor],
    autocast: Callable,
    decay: float,
    reuse: bool = False,
) -> list[dict[str, Tensor]]:
    """An update of D for each real batch, one of G, and the average's move towards it by 1 - `decay`; what each update
    returned. `players` are those of `make_players`. Diverged tells when it was. With `reuse` G's update takes the fakes
    of D's last one.
    """
    G, D, average, opt_g, opt_d = players
    rows, fake = [], None
    for real, z, rng, when in zip(of.real, of.z_d, of.rng, of.moments, strict=True):
        if reuse and when is of.moments[-1]:
            with autocast():
                fake = G(z)
        with annotate_divergence(when):
            rows.append(critic_step(D, G, real, z, loss, penalty, opt_d, rng, autocast, fake))
    with annotate_divergence(when):
        rows.append(generator_step(D, G, real, of.z_g, loss, opt_g, autocast, fake))
    update_average(average, G, decay)
    return rows


@contextmanager
def annotate_divergence(when: dict[str, int]) -> Iterator[None]:
    """Has a Diverged that is raised in this context know when that was."""
    try:
        yield
    except Diverged as error:
        error.facts |= when
        raise


def critic_step(
    D: nn.Module,
    G: nn.Module,
    real: Tensor,
    z: Tensor,
    loss,
    penalty: Callable[..., Tensor],
    optimizer: torch.optim.Optimizer,
    rng: torch.Generator,
    autocast: Callable = nullcontext,
    fake: Tensor | None = None,
) -> dict[str, Tensor]:
    """Update D once on real [N, ...] and G(z), which is made if `fake` is not it; `autocast` opens the context of the
    players' own precision.

    Leaves D's weights and the optimiser as they were where a term or the gradient is not finite, and raises Diverged
    unless the optimiser has `found_inf`.
    """
    with autocast():
        with torch.no_grad():
            fake = G(z) if fake is None else fake.detach()
        logits = D(torch.cat([real, fake]))
    on_real, on_fake = logits.float().chunk(2)
    d_loss = loss.d(on_real, on_fake)
    with eval_mode(D):  # spectral norm's power iteration turns as often without a penalty as with one
        d_penalty = penalty(D, real, fake.float(), rng)
    optimizer.zero_grad()
    (d_loss + d_penalty).backward()
    terms = {"d_real": on_real.mean(), "d_fake": on_fake.mean(), "d_loss": d_loss, "d_penalty": d_penalty}
    row = _update(optimizer, terms | {"d_grad_norm": gradient_norm(D)})
    getattr(penalty, "project", _leave)(D)
    return row


def generator_step(
    D: nn.Module,
    G: nn.Module,
    real: Tensor,
    z: Tensor,
    loss,
    optimizer: torch.optim.Optimizer,
    autocast: Callable = nullcontext,
    fake: Tensor | None = None,
) -> dict[str, Tensor]:
    """Update G once through a frozen D, by G(z), or by `fake` with its graph if that is given.

    Only a loss whose `g` takes `real` has D judge the real batch, too. Leaves G's weights and the optimiser as they
    were where the loss or gradient is not finite, and raises Diverged unless the optimiser has `found_inf`.
    """
    D.requires_grad_(False)
    with autocast():
        fake = G(z) if fake is None else fake
        logits = D(torch.cat([fake, real]) if is_relativistic(loss) else fake)
    logits = logits.float()
    logits.retain_grad()
    g_loss = loss.g(*logits.split(len(z)))
    optimizer.zero_grad()
    g_loss.backward()
    D.requires_grad_(True)
    terms = {"g_loss": g_loss, "g_saturated": saturated_share(logits.grad[: len(z)]), "g_grad_norm": gradient_norm(G)}
    return _update(optimizer, terms)


def saturated_share(gradient: Tensor) -> Tensor:
    """The share of samples with |dL_G/dD(x)| < 0.001, from the gradient [N] of their mean loss by logits."""
    return (gradient.abs() * len(gradient) < SATURATION_THRESHOLD).float().mean()


def gradient_norm(net: nn.Module) -> Tensor:
    """The Euclidean norm of the gradient of all of a net's weights."""
    return torch.nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])


def _leave(D: nn.Module) -> None:
    """Most penalties leave the weights where the optimiser put them."""


def raise_if_not_finite(row: dict[str, Tensor]) -> None:
    """Raise Diverged for the first of an update's terms that is not finite, so causes come before what they cause."""
    for what, value in zip(row, torch.stack(list(row.values())).tolist(), strict=True):
        if not math.isfinite(value):
            player = "generator" if "g_loss" in row else "critic"
            raise Diverged(f"{what} was {value}", what, value, player)


def _update(optimizer: torch.optim.Optimizer, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move the optimiser, and return the terms detached."""
    row = {name: term.detach() for name, term in terms.items()}
    held = getattr(optimizer, "found_inf", None)
    if held is None:
        raise_if_not_finite(row)
    else:
        held.logical_or_(~torch.stack(list(row.values())).isfinite().all())
    optimizer.step()
    return row
