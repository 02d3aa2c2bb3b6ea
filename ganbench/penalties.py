"""The penalties: points x norm x target. Each is called (D, real, fake, rng) and returns a weighted scalar.

`D` maps samples to logits [N] and must treat every sample alone; `real` and `fake` are float batches of one
shape; `rng` is the only source of noise. A penalty may also have `project(D)`, called after each critic update.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ganbench.models.linear_regions import skip_zero_second_derivatives

Critic = Callable[[Tensor], Tensor]


def input_gradient_norm(D: Critic, x: Tensor) -> Tensor:
    """The norm of D's gradient at each sample of x, over all but the batch dimension: [N].

    Differentiable in D's weights, and without a NaN where the gradient is zero.
    """
    return _slope(D, x, lambda logits, x: None)


def input_gradient_norm_for_penalty(D: Critic, x: Tensor) -> Tensor:
    """`slope`, for a penalty that makes nothing else of what D computes at x: it need not be kept for that."""
    return _slope(D, x, skip_zero_second_derivatives)


def _slope(D: Critic, x: Tensor, then: Callable[[Tensor, Tensor], None]) -> Tensor:
    x = x.detach().requires_grad_()
    logits = D(x)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    then(logits, x)
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1)


def uniform_per_sample(x: Tensor, rng: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """One uniform number for each sample of x, shaped to broadcast over it."""
    u = torch.rand(len(x), generator=rng, device=rng.device, dtype=x.dtype).to(x.device)
    return (low + (high - low) * u).view(-1, *[1] * (x.dim() - 1))


def interpolate(real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """A point of each segment between a real and a fake sample."""
    return torch.lerp(real, fake, uniform_per_sample(real, rng))


def perturb(
    real: Tensor, rng: torch.Generator, alpha: tuple[float, float], noise: str, scale: float, clip: bool
) -> Tensor:
    """real + alpha * scale * std * noise: alpha per sample, noise per element, std one number for the batch."""
    draw = torch.rand if noise == "uniform" else torch.randn
    size = scale * real.std(correction=0)
    shift = draw(real.shape, generator=rng, device=rng.device, dtype=real.dtype).to(real.device)
    x = real + uniform_per_sample(real, rng, *alpha) * size * shift
    return x.clamp(real.amin(), real.amax()) if clip else x


def none(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """No penalty."""
    return real.new_zeros(())


def gp(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """Two-sided, between real and fake: slope 1 (Gulrajani et al. 2017, arXiv:1704.00028, equation 3)."""
    return weight * (input_gradient_norm_for_penalty(D, interpolate(real, fake, rng)) - 1).square().mean()


def lp(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """One-sided, between real and fake: slope at most 1 (Petzka et al. 2018, arXiv:1709.08894, equation 8)."""
    return weight * (input_gradient_norm_for_penalty(D, interpolate(real, fake, rng)) - 1).relu().square().mean()


def dragan(
    D: Critic,
    real: Tensor,
    fake: Tensor,
    rng: torch.Generator,
    weight: float,
    alpha: tuple[float, float] = (-1.0, 1.0),
    noise: Literal["uniform", "normal"] = "uniform",
    scale: float = 0.5,
    clip: bool = True,
) -> Tensor:
    """Two-sided, around real samples only: slope 1 (Kodali et al. 2017, arXiv:1705.07215, equation 1).

    The point is real + alpha * scale * std * noise, clipped to the range of the batch. alpha (0, 1) unclipped is
    the authors' notebook, alpha (1, 1) their later advice, normal noise their last version.
    """
    return (
        weight * (input_gradient_norm_for_penalty(D, perturb(real, rng, alpha, noise, scale, clip)) - 1).square().mean()
    )


def r1(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """Half the squared slope at real samples (Mescheder et al. 2018, arXiv:1801.04406, equation 9)."""
    return weight / 2 * input_gradient_norm_for_penalty(D, real).square().mean()


def r2(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """Half the squared slope at fake samples (arXiv:1801.04406, equation 10)."""
    return weight / 2 * input_gradient_norm_for_penalty(D, fake).square().mean()


def r1r2(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """R1 + R2, the penalty of R3GAN (Huang et al. 2024, arXiv:2501.05441)."""
    return weight * input_gradient_norm_for_penalty(D, torch.cat([real, fake])).square().mean()


def zero_centered(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """The squared slope between real and fake: slope 0 (0-GP of Thanh-Tung et al. 2019, arXiv:1902.03984)."""
    return weight * input_gradient_norm_for_penalty(D, interpolate(real, fake, rng)).square().mean()


def maxgp(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """The squared Lipschitz constant, taken as the largest slope between the batch's real and fake samples
    (Lipschitz GANs, Zhou et al. 2019, arXiv:1902.05687).
    """
    return weight * input_gradient_norm_for_penalty(D, interpolate(real, fake, rng)).max().square()


class Clip:
    """Weight clipping (Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1): no term, but a projection."""

    def __init__(self, c: float = 0.01):
        self.c = c

    def __call__(self, D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        return real.new_zeros(())

    @torch.no_grad()
    def project(self, D: nn.Module) -> None:
        for weight in D.parameters():
            weight.clamp_(-self.c, self.c)
