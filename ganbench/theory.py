"""Closed forms for losses at the optimal critic. Needs no torch."""

import math
from collections.abc import Callable

import numpy as np
from scipy import integrate, stats


class NormalPair:
    """The real distribution N(0, 1) and the fake distribution N(mean, std^2)."""

    def __init__(self, mean: float, std: float):
        self.name = f"N({mean:g},{std**2:g})"  # of the fake distribution
        self.real = stats.norm()
        self.fake = stats.norm(mean, std)

    def integral(self, f: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        """Integrate f(p(x), q(x)) over x, where p is the density of real and q that of fake samples."""
        x = np.linspace(-14, 18, 16_001)
        return float(integrate.simpson(f(self.real.pdf(x) + 1e-300, self.fake.pdf(x) + 1e-300), x=x))

    def quantiles(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return n equally probable real values and as many fake ones, in ascending order."""
        u = (np.arange(n) + 0.5) / n
        return self.real.ppf(u), self.fake.ppf(u)


# |dL_G/dtheta| at the optimal critic, for real N(0, 1) and the generator x = z + theta: the integral over x of
# q(x) dL_G/dx, where p and q are the densities of real and fake samples.
GENERATOR_GRADIENT: dict[str, Callable[[float], float]] = {
    "gan": lambda theta: theta * NormalPair(theta, 1).integral(lambda p, q: q * q / (p + q)),
    "minimax": lambda theta: theta * NormalPair(theta, 1).integral(lambda p, q: p * q / (p + q)),
    "lsgan": lambda theta: (
        2 * theta * NormalPair(theta, 1).integral(lambda p, q: q * (p / (p + q)) * (q / (p + q)) ** 2)
    ),
    "rpgan": lambda theta: theta * _mean_sigmoid(theta**2, 2 * theta**2),
    "wgan": lambda theta: 1.0,
}


def _mean_sigmoid(mean: float, var: float) -> float:
    """Return E sigmoid(X) for normal X."""
    x = np.linspace(-12, 12, 4801)
    return float(integrate.simpson(stats.norm.pdf(x) / (1 + np.exp(-(mean + math.sqrt(var) * x))), x=x))
