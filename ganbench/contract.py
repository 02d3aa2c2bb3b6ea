"""What a loss, a penalty and a critic must be for a comparison to mean anything; asked before the first step.

Each function raises Refused with one sentence. `python -m ganbench.conformance` asks the same and much more.
"""

import inspect
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from ganbench.config import Refused


def refuse_critic(D: nn.Module, x: Tensor) -> None:
    """For samples x (two or more): D must return one logit each, and judge each by itself.

    Batch statistics in a critic make a per-sample gradient, and so every gradient penalty, meaningless.
    """
    x, name = x.detach().requires_grad_(), type(D).__name__
    logits = D(x)
    if logits.shape != (len(x),):
        raise Refused(f"critic {name} returns shape {list(logits.shape)} for {len(x)} samples: one logit each is due.")
    (gradient,) = torch.autograd.grad(logits[0], x, allow_unused=True)
    if gradient is not None and gradient[1:].abs().max() > 0:
        raise Refused(
            f"critic {name} mixes the samples of a batch (is there a BatchNorm in it?): "
            "it must judge each sample alone; use layer, instance or spectral norm, or none."
        )


def refuse_loss(loss, name: str) -> None:
    """`d` and `g` must be single numbers with a gradient."""
    required = [p for p in inspect.signature(loss.g).parameters.values() if p.default is p.empty]
    if len(required) > 1 + compares(type(loss)):
        raise Refused(f"loss {name}: g takes {', '.join(p.name for p in required)}: due is g(fake) or g(fake, real).")
    real, fake = (torch.tensor(v, requires_grad=True) for v in ([0.5, -0.5, 2.0, 0.1], [0.3, -1.0, 0.2, -0.4]))
    both = {"d": loss.d(real, fake), "g": loss.g(fake, real) if compares(type(loss)) else loss.g(fake)}
    for player, value in both.items():
        _refuse_unreduced(value, f"loss {name}: {player}")
        if not value.requires_grad:
            raise Refused(f"loss {name}: {player} gives no gradient: is something detached, or not made of tensors?")


def refuse_penalty(penalty: Callable[..., Tensor], name: str, shape: tuple[int, ...]) -> None:
    """A penalty must be a single number that moves D's weights, unless it is zero. Asked of a critic of slope 3."""
    D = LinearCritic(shape, slope=3.0)
    real, fake = torch.zeros(4, *shape), torch.ones(4, *shape)
    value = penalty(D, real, fake, torch.Generator().manual_seed(0))
    _refuse_unreduced(value, f"penalty {name}")
    if value != 0 and not (value.requires_grad and _reaches(value, D)):
        raise Refused(
            f"penalty {name} gives no gradient to the critic's weights: is create_graph=True missing where the "
            "critic is differentiated?"
        )


class LinearCritic(nn.Module):
    """D(x) = w·x with |w| = slope, in a random direction: its slope is the same everywhere."""

    def __init__(self, shape: tuple[int, ...], slope: float, seed: int = 0, dtype: torch.dtype = torch.float32):
        super().__init__()
        w = torch.randn(math.prod(shape), generator=torch.Generator().manual_seed(seed), dtype=dtype)
        self.w = nn.Parameter(slope * w / w.norm())

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w


@cache
def compares(kind: type) -> bool:
    """Whether a class of losses has g(fake, real) rather than g(fake)."""
    return "real" in inspect.signature(kind.g).parameters


def _refuse_unreduced(value: Tensor, what: str) -> None:
    if not isinstance(value, Tensor):
        raise Refused(f"{what} returns a {type(value).__name__}: a tensor of one number is due.")
    if value.dim() > 0:
        raise Refused(f"{what} returns shape {list(value.shape)} rather than one number: take the mean over the batch.")


def _reaches(value: Tensor, D: nn.Module) -> bool:
    found = torch.autograd.grad(value, list(D.parameters()), allow_unused=True)
    return any(g is not None and g.abs().max() > 0 for g in found)
