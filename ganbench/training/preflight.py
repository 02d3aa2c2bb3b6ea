"""Refuse a loss, a penalty or a critic that is not what a comparison needs, before the first update.

Each function raises Refused with one sentence. `python -m ganbench.conformance` asks the same and much more.
"""

import copy
import inspect

import torch
from torch import Tensor, nn

from ganbench.errors import Refused
from ganbench.interfaces import Loss, Metric, Penalty

REAL_LOGITS = [0.5, -0.5, 2.0, 0.1]
FAKE_LOGITS = [0.3, -1.0, 0.2, -0.4]


def check_critic(D: nn.Module, x: Tensor) -> None:
    """Refuse a critic without one logit per sample of x [N >= 2, ...], without a gradient, or that mixes samples.

    Batch statistics in a critic make a per-sample gradient, and so every gradient penalty, meaningless. The critic is
    asked with perturbed weights, so that nothing hides behind a layer that starts at zero.
    """
    name = type(D).__name__
    perturbed = _perturbed(D)
    x = x.detach().requires_grad_()
    logits = _reproducible_logits(perturbed, x)
    if logits.shape != (len(x),):
        raise Refused(f"critic {name} must return one logit per sample, shape [{len(x)}]; got {list(logits.shape)}.")
    if not logits.requires_grad:
        raise Refused(f"critic {name} gives no gradient to its samples; is something detached in it?")
    if _depends_on_others(perturbed, x, logits):
        raise Refused(
            f"critic {name} mixes the samples of a batch (does it contain a BatchNorm?); it must judge each sample "
            "alone, so use layer, instance or spectral norm, or none."
        )


def check_loss(loss: Loss, name: str) -> None:
    """Refuse a loss whose d or g is not a scalar tensor with a gradient."""
    if not (callable(getattr(loss, "d", None)) and callable(getattr(loss, "g", None))):
        raise Refused(f"loss {name}: {type(loss).__name__} needs d(real, fake) and g(fake) or g(fake, real).")
    parameters = inspect.signature(loss.g).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty]
    by_position = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    if len(required) > 1 + is_relativistic(loss) or (is_relativistic(loss) and by_position[1:2] != ["real"]):
        raise Refused(f"loss {name}: g must take (fake) or (fake, real); it takes ({', '.join(required)}).")
    real = torch.tensor(REAL_LOGITS, requires_grad=True)
    fake = torch.tensor(FAKE_LOGITS, requires_grad=True)
    for player, value in (("d", loss.d(real, fake)), ("g", generator_loss(loss, fake, real))):
        _check_scalar(value, f"loss {name}: {player}")
        if not value.requires_grad:
            raise Refused(f"loss {name}: {player} gives no gradient; is something detached, or not made of tensors?")


def check_penalty(penalty: Penalty, name: str, D: nn.Module, real: Tensor, fake: Tensor) -> None:
    """Refuse a penalty that is not a scalar, or not zero and without a gradient for D's weights. Asks copies."""
    if not callable(penalty):
        raise Refused(f"penalty {name}: {type(penalty).__name__} must be callable as penalty(D, real, fake, rng).")
    D = copy.deepcopy(D)
    value = copy.deepcopy(penalty)(D, real, fake, torch.Generator(real.device).manual_seed(0))
    _check_scalar(value, f"penalty {name}")
    if value != 0 and not (value.requires_grad and _has_weight_gradient(value, D)):
        raise Refused(
            f"penalty {name} gives no gradient to the critic's weights; is create_graph=True missing where the "
            "critic is differentiated?"
        )


def check_rankable(metric: Metric, name: str) -> None:
    """Refuse a metric whose score no generator can have with these numbers of samples."""
    reason = getattr(metric, "cannot_rank", None)
    if reason:
        raise Refused(
            f"metric={name}: no run can have a score, since {reason}; use metric=kid, which needs no such number, or "
            "more held-out images and a higher metric.n_fake."
        )


def check_metric(metric: Metric, name: str) -> None:
    """Refuse a metric that does not say how many samples it takes, or what real data score under its own name."""
    if not isinstance(getattr(metric, "n_fake", None), int):
        raise Refused(f"metric {name}: {type(metric).__name__} needs n_fake, the number of samples that it takes.")
    reference = getattr(metric, "real_reference", None)
    if getattr(metric, "name", None) != name or not isinstance(reference, dict) or name not in reference:
        raise Refused(
            f"metric {name}: {type(metric).__name__} needs name={name} and real_reference, a dict with the score of "
            f"real data under {name}."
        )


def is_relativistic(loss: Loss) -> bool:
    """Tell whether the generator's loss is g(fake, real) rather than g(fake)."""
    return "real" in inspect.signature(loss.g).parameters


def generator_loss(loss: Loss, fake: Tensor, real: Tensor) -> Tensor:
    """Return the generator's loss of logits [N], for both kinds of loss."""
    return loss.g(fake, real) if is_relativistic(loss) else loss.g(fake)


def _perturbed(D: nn.Module) -> nn.Module:
    """Copy a critic and move all its weights a little."""
    D = copy.deepcopy(D)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for w in D.parameters():
            w.add_(0.05 * torch.randn(w.shape, generator=rng, dtype=w.dtype).to(w.device))
    return D


def _reproducible_logits(D: nn.Module, x: Tensor) -> Tensor:
    """Ask a copy of D under a fixed seed, so that power iterations and dropout are the same each time."""
    # Only what is used: without a list torch looks for all GPUs, which fails where a driver is broken.
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(0)
        return copy.deepcopy(D)(x)


def _depends_on_others(D: nn.Module, x: Tensor, logits: Tensor) -> bool:
    """Tell whether the first logit changes with the other samples, in value or in gradient."""
    others_moved = torch.cat([x[:1], x[1:] + 1]).detach()
    if not torch.allclose(_reproducible_logits(D, others_moved)[0], logits[0], rtol=1e-4, atol=1e-6):
        return True
    (gradient,) = torch.autograd.grad(logits[0], x, allow_unused=True)
    return gradient is not None and bool(gradient[1:].abs().max() > 0)


def _check_scalar(value: Tensor, what: str) -> None:
    if not isinstance(value, Tensor):
        raise Refused(f"{what} must return a scalar tensor; got a {type(value).__name__}.")
    if value.dim() > 0:
        raise Refused(f"{what} must return a scalar; got shape {list(value.shape)}, so take the mean over the batch.")


def _has_weight_gradient(value: Tensor, D: nn.Module) -> bool:
    gradients = torch.autograd.grad(value, list(D.parameters()), allow_unused=True)
    return any(g is not None and bool(g.abs().max() > 0) for g in gradients)
