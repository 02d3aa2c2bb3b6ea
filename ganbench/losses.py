"""The losses. ADD A LOSS HERE: a class with two methods that take raw logits [N] and return a scalar.

`d(real, fake)` is the critic's loss and `g(fake)` the generator's, or `g(fake, real)` for a loss that compares both:
the trainer passes what the signature asks for. Each player minimizes its own. `real` and `fake` have the same length
and independent order. Then add conf/loss/<name>.yaml with `name`, `_target_` and the arguments of `__init__`, and run
`python -m ganbench.conformance loss=<name>`.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu, softplus


class GAN:
    """The non-saturating GAN (Goodfellow et al. 2014, arXiv:1406.2661, section 3)."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def g(self, fake: Tensor) -> Tensor:
        return softplus(-fake).mean()


class Minimax:
    """The minimax game of the same paper (arXiv:1406.2661, equation 1); its generator's gradient vanishes as D wins."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def g(self, fake: Tensor) -> Tensor:
        return -softplus(fake).mean()


@dataclass
class LSGAN:
    """Least squares (Mao et al. 2016, arXiv:1611.04076, equation 2); the paper's scale is 1/2.

    The critic's targets are a for fakes and b for reals, the generator's is c. With b - c = 1, b - a = 2 and scale 1,
    g(fake) + g(real) is Pearson's chi^2(p + q || 2q) at the best critic.
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
    """Wasserstein (Arjovsky et al. 2017, arXiv:1701.07875, equation 2); needs a Lipschitz critic."""

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
    """Relativistic pairs: D ranks each real against one fake (RSGAN, Jolicoeur-Martineau 2018, arXiv:1807.00734).

    With penalty=r1r2 it is the objective of R3GAN (Huang et al. 2024, arXiv:2501.05441).
    """

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real).mean()

    def g(self, fake: Tensor, real: Tensor) -> Tensor:
        return softplus(real - fake).mean()


class RaGAN:
    """Relativistic average: D ranks each sample against the mean of the other kind (RaSGAN of arXiv:1807.00734)."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake.mean() - real).mean() + softplus(fake - real.mean()).mean()

    def g(self, fake: Tensor, real: Tensor) -> Tensor:
        return softplus(real.mean() - fake).mean() + softplus(real - fake.mean()).mean()
