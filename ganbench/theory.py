"""What theory says of the losses before the best critic, in closed form. Needs no torch."""

import math
from collections.abc import Callable

import numpy as np
from scipy import integrate, stats


class Pair:
    """Reals from N(0, 1), fakes from N(mean, std^2): densities, and points at equally probable quantiles."""

    def __init__(self, mean: float, std: float):
        self.name = f"N({mean:g},{std**2:g})"
        self.real, self.fake = stats.norm(), stats.norm(mean, std)

    def integral(self, f: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        """Of f(p(x), q(x)) dx."""
        x = np.linspace(-14, 18, 400_001)
        return float(integrate.simpson(f(self.real.pdf(x) + 1e-300, self.fake.pdf(x) + 1e-300), x=x))

    def quantiles(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        u = (np.arange(n) + 0.5) / n
        return self.real.ppf(u), self.fake.ppf(u)


# |dL_G/dtheta| before the best critic, for reals from N(0, 1) and the generator x = z + theta: the integral over x of
# dL_G/dx, with p and q the two densities.
LEFT: dict[str, Callable[[float], float]] = {
    "gan": lambda theta: theta * Pair(theta, 1).integral(lambda p, q: q * q / (p + q)),
    "minimax": lambda theta: theta * Pair(theta, 1).integral(lambda p, q: p * q / (p + q)),
    "lsgan": lambda theta: 2 * theta * Pair(theta, 1).integral(lambda p, q: q * (p / (p + q)) * (q / (p + q)) ** 2),
    "rpgan": lambda theta: theta * _mean_sigmoid(theta**2, 2 * theta**2),
    "wgan": lambda theta: 1.0,
}


def _mean_sigmoid(mean: float, var: float) -> float:
    """The mean of the sigmoid of a normal number."""
    x = np.linspace(-12, 12, 4801)
    return float(integrate.simpson(stats.norm.pdf(x) / (1 + np.exp(-(mean + math.sqrt(var) * x))), x=x))
