"""The step as tutorials write it, to measure ours against: right, and plain.

Noise from the global generator, real and fake judged one after the other, the generator's graph kept where nothing
needs it, the critic's weights given gradients in the generator's step, optimisers as they come.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "gan": (lambda real, fake: softplus(-real).mean() + softplus(fake).mean(), lambda fake: softplus(-fake).mean()),
    "hinge": (lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(), lambda fake: -fake.mean()),
    "wgan-gp": (lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean()),
}
LOSSES["dragan"] = LOSSES["gan"]


def gradient_penalty(D: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
    return 10 * ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()


def where(method: str, real: Tensor, fake: Tensor) -> Tensor | None:
    """At which points the penalty looks."""
    share = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    if method == "wgan-gp":
        return real + share * (fake.detach() - real)
    if method == "dragan":
        return (real + (2 * share - 1) * 0.5 * real.std() * torch.rand_like(real)).clamp(-1, 1)
    return None


def step(
    method: str,
    G: nn.Module,
    D: nn.Module,
    opt_g: torch.optim.Optimizer,
    opt_d: torch.optim.Optimizer,
    real: Tensor,
    z_dim: int,
) -> None:
    """One update of the critic, and one of the generator."""
    d_loss, g_loss = LOSSES[method]
    fake = G(torch.randn(len(real), z_dim, device=real.device))
    loss = d_loss(D(real), D(fake.detach()))
    points = where(method, real, fake)
    if points is not None:
        loss = loss + gradient_penalty(D, points)
    opt_d.zero_grad()
    loss.backward()
    opt_d.step()
    fake = G(torch.randn(len(real), z_dim, device=real.device))
    loss = g_loss(D(fake))
    opt_g.zero_grad()
    loss.backward()
    opt_g.step()
