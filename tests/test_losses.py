"""Loss values and gradients against closed forms."""

import math

import pytest
import torch

from ganbench.losses import GAN, LSGAN, WGAN, Hinge, Minimax

LOSSES = [GAN(), Minimax(), LSGAN(), WGAN(), Hinge()]


def logits(value: float, n: int = 3) -> torch.Tensor:
    return torch.full((n,), value, dtype=torch.float64)


@pytest.mark.parametrize(
    ("loss", "real", "fake", "d", "g"),
    [
        (GAN(), 0, 0, 2 * math.log(2), math.log(2)),
        (GAN(), 2, -2, 2 * math.log1p(math.exp(-2)), math.log1p(math.exp(2))),
        (Minimax(), 2, -2, 2 * math.log1p(math.exp(-2)), -math.log1p(math.exp(-2))),
        (LSGAN(), 0, 0, 1, 1),
        (LSGAN(), 2, -2, 1 + 4, 9),
        (LSGAN(a=-1, b=1, c=0, scale=0.5), 2, -2, 0.5 * (1 + 1), 0.5 * 4),
        (WGAN(), 2, -2, -4, 2),
        (Hinge(), 0, 0, 2, 0),
        (Hinge(), 2, -2, 0, 2),
        (Hinge(), -1, 0.5, 2 + 1.5, -0.5),
    ],
)
def test_values(loss, real: float, fake: float, d: float, g: float) -> None:
    assert loss.d(logits(real), logits(fake)).item() == pytest.approx(d, abs=1e-12)
    assert loss.g(logits(fake)).item() == pytest.approx(g, abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_extreme_logits_stay_finite(loss, extreme: float) -> None:
    real, fake = (torch.tensor([x, 0.0], requires_grad=True) for x in (extreme, -extreme))
    for value in (loss.d(real, fake), loss.g(fake)):
        assert value.isfinite() and value.dim() == 0
        assert all(
            g.isfinite().all() for g in torch.autograd.grad(value, [real, fake], allow_unused=True) if g is not None
        )


@pytest.mark.parametrize("logit", [-3.0, 0.0, 3.0])
def test_what_reaches_the_generator(logit: float) -> None:
    """dL/dlogit: sigmoid(f) - 1, -sigmoid(f), 2 (f - 1), -1, -1."""
    s = 1 / (1 + math.exp(-logit))
    for loss, expected in zip(LOSSES, (s - 1, -s, 2 * (logit - 1), -1, -1), strict=True):
        fake = logits(logit, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(loss.g(fake), fake)
        assert gradient.item() == pytest.approx(expected, abs=1e-12)


def test_losses_are_means_over_the_batch() -> None:
    real, fake = torch.randn(2, 7, dtype=torch.float64)
    for loss in LOSSES:
        assert loss.d(real.repeat(3), fake.repeat(3)).item() == pytest.approx(loss.d(real, fake).item(), rel=1e-12)
        assert loss.g(fake.repeat(3)).item() == pytest.approx(loss.g(fake).item(), rel=1e-12)
