"""What a loss, a penalty and a critic must be for a comparison to mean anything; asked before the first step.

Each function raises Refused with one sentence. `python -m ganbench.conformance` asks the same and much more.
"""

import copy
import inspect
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ganbench.errors import Refused


def check_critic(D: nn.Module, x: Tensor) -> None:
    """For samples x (two or more): D must return one logit each, with a gradient, and judge each by itself.

    Batch statistics in a critic make a per-sample gradient, and so every gradient penalty, meaningless. D is asked
    with its weights shaken, so that nothing hides behind a layer that starts at zero.
    """
    name, shaken = type(D).__name__, _perturbed(D)
    first, moved = x.detach().requires_grad_(), torch.cat([x[:1], x[1:] + 1]).detach()
    logits = _reproducible_logits(shaken, first)
    if logits.shape != (len(x),):
        raise Refused(f"critic {name} returns shape {list(logits.shape)} for {len(x)} samples: one logit each is due.")
    if not logits.requires_grad:
        raise Refused(f"critic {name} gives no gradient to its samples: is something detached in it?")
    (gradient,) = torch.autograd.grad(logits[0], first, allow_unused=True)
    swayed = not torch.allclose(_reproducible_logits(shaken, moved)[0], logits[0], rtol=1e-4, atol=1e-6)
    if swayed or (gradient is not None and gradient[1:].abs().max() > 0):
        raise Refused(
            f"critic {name} mixes the samples of a batch (is there a BatchNorm in it?): "
            "it must judge each sample alone; use layer, instance or spectral norm, or none."
        )


def _perturbed(D: nn.Module) -> nn.Module:
    """A copy whose weights have all been moved a little."""
    D, rng = copy.deepcopy(D), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for w in D.parameters():
            w += 0.05 * torch.randn(w.shape, generator=rng, dtype=w.dtype).to(w.device)
    return D


def _reproducible_logits(D: nn.Module, x: Tensor) -> Tensor:
    """D's logits by a copy, so that what turns or drops with every forward turns and drops the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return copy.deepcopy(D)(x)


def check_loss(loss, name: str) -> None:
    """`d` and `g` must be single numbers with a gradient."""
    if not (callable(getattr(loss, "d", None)) and callable(getattr(loss, "g", None))):
        raise Refused(f"loss {name}: {type(loss).__name__} needs d(real, fake) and g(fake) or g(fake, real).")
    required = [p for p in inspect.signature(loss.g).parameters.values() if p.default is p.empty]
    if len(required) > 1 + is_relativistic(loss):
        raise Refused(f"loss {name}: g takes {', '.join(p.name for p in required)}: due is g(fake) or g(fake, real).")
    real, fake = (torch.tensor(v, requires_grad=True) for v in ([0.5, -0.5, 2.0, 0.1], [0.3, -1.0, 0.2, -0.4]))
    for player, value in (("d", loss.d(real, fake)), ("g", generator_loss(loss, fake, real))):
        _check_scalar(value, f"loss {name}: {player}")
        if not value.requires_grad:
            raise Refused(f"loss {name}: {player} gives no gradient: is something detached, or not made of tensors?")


def check_penalty(penalty: Callable[..., Tensor], name: str, D: nn.Module, real: Tensor, fake: Tensor) -> None:
    """A penalty must be a single number that moves D's weights, unless it is zero. Asks copies of both."""
    D, penalty = copy.deepcopy(D), copy.deepcopy(penalty)
    value = penalty(D, real, fake, torch.Generator(real.device).manual_seed(0))
    _check_scalar(value, f"penalty {name}")
    if value != 0 and not (value.requires_grad and _has_weight_gradient(value, D)):
        raise Refused(
            f"penalty {name} gives no gradient to the critic's weights: is create_graph=True missing where the "
            "critic is differentiated?"
        )


def is_relativistic(loss) -> bool:
    """Whether a loss has g(fake, real) rather than g(fake)."""
    return "real" in inspect.signature(loss.g).parameters


def generator_loss(loss, fake: Tensor, real: Tensor) -> Tensor:
    """The generator's loss, for both kinds."""
    return loss.g(fake, real) if is_relativistic(loss) else loss.g(fake)


class LinearCritic(nn.Module):
    """D(x) = w·x with |w| = slope, in a random direction: its slope is the same everywhere."""

    def __init__(self, shape: tuple[int, ...], slope: float, seed: int = 0, dtype: torch.dtype = torch.float32):
        super().__init__()
        w = torch.randn(math.prod(shape), generator=torch.Generator().manual_seed(seed), dtype=dtype)
        self.w = nn.Parameter(slope * w / w.norm())

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w


def _check_scalar(value: Tensor, what: str) -> None:
    if not isinstance(value, Tensor):
        raise Refused(f"{what} returns a {type(value).__name__}: a tensor of one number is due.")
    if value.dim() > 0:
        raise Refused(f"{what} returns shape {list(value.shape)} rather than one number: take the mean over the batch.")


def _has_weight_gradient(value: Tensor, D: nn.Module) -> bool:
    found = torch.autograd.grad(value, list(D.parameters()), allow_unused=True)
    return any(g is not None and g.abs().max() > 0 for g in found)
