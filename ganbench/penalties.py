"""The penalties. ADD A PENALTY HERE: a function `(D, real, fake, rng, weight, ...)` that returns a scalar.

`D` maps samples to logits [N], each by itself; `real` and `fake` are float batches [N, ...] of one shape; `rng` is the
only source of noise; the scalar includes the weight. `input_gradient_norm(D, x)` is there to build on. A class may also
have `project(D)`, which is called after each critic update. Then add conf/penalty/<name>.yaml with `name`, `_target_`
and the arguments after `rng`, and run `python -m ganbench.conformance penalty=<name>`.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ganbench.interfaces import Critic
from ganbench.models.linear_regions import skip_zero_second_derivatives


def input_gradient_norm(D: Critic, x: Tensor) -> Tensor:
    """Return the norm [N] of D's gradient at each sample of x [N, ...], over all but the batch dimension.

    Differentiable by D's weights, without a NaN where the gradient is zero.
    """
    _, _, norm = _differentiate(D, x)
    return norm


def input_gradient_norm_for_penalty(D: Critic, x: Tensor) -> Tensor:
    """Return the same for a penalty that uses nothing else D computes at x; cheaper for piecewise linear critics."""
    x, logits, norm = _differentiate(D, x)
    skip_zero_second_derivatives(logits, x)
    return norm


def _differentiate(D: Critic, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return x as a leaf, D's logits for it, and the norm of D's gradient at it."""
    x = x.detach().requires_grad_()
    logits = D(x)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return x, logits, torch.linalg.vector_norm(gradient.flatten(1), dim=1)


def uniform_per_sample(x: Tensor, rng: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Draw one uniform number for each sample of x [N, ...], shaped [N, 1, ...] to broadcast over it."""
    u = torch.rand(len(x), generator=rng, device=rng.device, dtype=x.dtype).to(x.device)
    return (low + (high - low) * u).view(-1, *[1] * (x.dim() - 1))


def interpolate(real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """Draw a point on each segment between a real and a fake sample."""
    return torch.lerp(real, fake, uniform_per_sample(real, rng))


def perturb(
    real: Tensor, rng: torch.Generator, alpha: tuple[float, float], noise: str, scale: float, clip: bool
) -> Tensor:
    """Return real + alpha * scale * std * noise: alpha per sample, noise per element, std one number for the batch."""
    draw = torch.rand if noise == "uniform" else torch.randn
    size = scale * real.std(correction=0)
    shift = draw(real.shape, generator=rng, device=rng.device, dtype=real.dtype).to(real.device)
    x = real + uniform_per_sample(real, rng, *alpha) * size * shift
    return x.clamp(real.amin(), real.amax()) if clip else x


def none(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """Return 0: no penalty."""
    return real.new_zeros(())


def gp(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """Pull the gradient norm between real and fake to 1 (Gulrajani et al. 2017, arXiv:1704.00028, equation 3)."""
    return weight * (input_gradient_norm_for_penalty(D, interpolate(real, fake, rng)) - 1).square().mean()


def lp(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """Pull it to at most 1: gradient norms below are free (Petzka et al. 2018, arXiv:1709.08894, equation 8)."""
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
    """Pull the gradient norm around real samples to 1 (Kodali et al. 2017, arXiv:1705.07215, equation 1).

    The point is real + alpha * scale * std * noise, clipped to the range of the batch. alpha (0, 1) unclipped is
    the authors' notebook, alpha (1, 1) their later advice, normal noise their last version.
    """
    x = perturb(real, rng, alpha, noise, scale, clip)
    return weight * (input_gradient_norm_for_penalty(D, x) - 1).square().mean()


def r1(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """Return half the squared gradient norm at real samples (Mescheder et al. 2018, arXiv:1801.04406, equation 9)."""
    return weight / 2 * input_gradient_norm_for_penalty(D, real).square().mean()


def r2(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """Return half the squared gradient norm at fake samples (arXiv:1801.04406, equation 10)."""
    return weight / 2 * input_gradient_norm_for_penalty(D, fake).square().mean()


def r1r2(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """Return R1 + R2, the penalty of R3GAN (Huang et al. 2024, arXiv:2501.05441)."""
    return weight * input_gradient_norm_for_penalty(D, torch.cat([real, fake])).square().mean()


def zero_centered(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """Pull the gradient norm between real and fake to 0 (0-GP of Thanh-Tung et al. 2019, arXiv:1902.03984)."""
    return weight * input_gradient_norm_for_penalty(D, interpolate(real, fake, rng)).square().mean()


def maxgp(D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator, weight: float) -> Tensor:
    """Return the squared largest gradient norm between the batch's real and fake samples, an estimate of D's Lipschitz
    constant (Lipschitz GANs, Zhou et al. 2019, arXiv:1902.05687).
    """
    return weight * input_gradient_norm_for_penalty(D, interpolate(real, fake, rng)).max().square()


class Clip:
    """Weight clipping (Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1): no loss term, but a projection."""

    def __init__(self, c: float = 0.01):
        self.c = c

    def __call__(self, D: Critic, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        return real.new_zeros(())

    @torch.no_grad()
    def project(self, D: nn.Module) -> None:
        """Clip every weight of D to [-c, c]."""
        for weight in D.parameters():
            weight.clamp_(-self.c, self.c)
