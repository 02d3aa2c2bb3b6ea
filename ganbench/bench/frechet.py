"""The Fréchet distance's own arithmetic against scipy's matrix square root."""

import statistics

import numpy as np
import torch

from ganbench.bench.steps import seconds
from ganbench.conformance.metrics import by_sqrtm
from ganbench.metrics.frechet import distance, moments, root


def frechet(d: int = 2048, n: int = 2500, repeats: int = 3) -> dict[str, float]:
    """The distance's own arithmetic for d features, against scipy's square root of the product of covariances."""
    a, b = (moments(torch.from_numpy(np.random.default_rng(k).normal(size=(n, d)))) for k in range(2))
    cpu = torch.device("cpu")
    r = root(a.cov)  # the real data's, taken once a run
    both = [seconds(lambda: distance(a, b), cpu)[0] for _ in range(repeats)]
    cached = [seconds(lambda: distance(a, b, r), cpu)[0] for _ in range(repeats)]
    usual = [seconds(lambda: by_sqrtm(a, b), cpu)[0] for _ in range(repeats)]
    medians = [statistics.median(times) for times in (both, cached, usual)]
    return {
        "features": d,
        "seconds": round(medians[0], 3),
        "seconds_with_the_real_root_cached": round(medians[1], 3),
        "seconds_by_sqrtm": round(medians[2], 3),
        "ratio": round(medians[0] / medians[2], 3),
        "ratio_with_the_real_root_cached": round(medians[1] / medians[2], 3),
    }
