"""The losses. Raw logits [N] in, a scalar out; lower is better for the player whose loss it is.

`d` is the critic's loss, `g` the generator's: g(fake), or g(fake, real) for a loss that looks at both. The trainer
hands over what the signature asks for; `real` and `fake` come in the same number and in independent order.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu, softplus


class GAN:
    """Non-saturating GAN (Goodfellow et al. 2014, arXiv:1406.2661, section 3)."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def g(self, fake: Tensor) -> Tensor:
        return softplus(-fake).mean()


class Minimax:
    """The minimax game itself (arXiv:1406.2661, equation 1): its generator's gradient vanishes as D wins."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def g(self, fake: Tensor) -> Tensor:
        return -softplus(fake).mean()


@dataclass
class LSGAN:
    """Least squares (Mao et al. 2016, arXiv:1611.04076, equation 2) with targets a, b, c; the paper's scale is 1/2.

    With b - c = 1 and b - a = 2, g(fake) + g(real) is Pearson's chi^2(p + q || 2q) at the best critic, for scale 1.
    """

    a: float = 0.0
    b: float = 1.0
    c: float = 1.0
    scale: float = 1.0

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.scale * ((real - self.b).square().mean() + (fake - self.a).square().mean())

    def g(self, fake: Tensor) -> Tensor:
        return self.scale * (fake - self.c).square().mean()


class WGAN:
    """Wasserstein (Arjovsky et al. 2017, arXiv:1701.07875, equation 2); means nothing without a Lipschitz control."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def g(self, fake: Tensor) -> Tensor:
        return -fake.mean()


class Hinge:
    """Hinge (Lim and Ye 2017, arXiv:1705.02894, equations 3 and 4)."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return relu(1 - real).mean() + relu(1 + fake).mean()

    def g(self, fake: Tensor) -> Tensor:
        return -fake.mean()


class RpGAN:
    """Relativistic pairing: D ranks each real sample against one fake (Jolicoeur-Martineau 2018, arXiv:1807.00734,
    there RSGAN; with penalty=r1r2 the objective of R3GAN, Huang et al. 2024, arXiv:2501.05441).
    """

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real).mean()

    def g(self, fake: Tensor, real: Tensor) -> Tensor:
        return softplus(real - fake).mean()


class RaGAN:
    """Relativistic average: each sample against the other kind's mean (arXiv:1807.00734, there RaSGAN)."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake.mean() - real).mean() + softplus(fake - real.mean()).mean()

    def g(self, fake: Tensor, real: Tensor) -> Tensor:
        return softplus(real.mean() - fake).mean() + softplus(real - fake.mean()).mean()
