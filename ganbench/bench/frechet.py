"""The Fréchet distance's own arithmetic against scipy's matrix square root."""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from ganbench.conformance.metrics import by_sqrtm
from ganbench.metrics.frechet import distance, moments, root


def frechet(d: int = 2048, n: int = 2500, repeats: int = 3) -> dict[str, float]:
    """The distance's own arithmetic for d features, against scipy's square root of the product of covariances."""
    a, b = (moments(torch.from_numpy(np.random.default_rng(k).normal(size=(n, d)))) for k in range(2))
    r = root(a.cov)  # the real data's, taken once a run
    both = [_seconds(lambda: distance(a, b)) for _ in range(repeats)]
    cached = [_seconds(lambda: distance(a, b, r)) for _ in range(repeats)]
    usual = [_seconds(lambda: by_sqrtm(a, b)) for _ in range(repeats)]
    medians = [statistics.median(times) for times in (both, cached, usual)]
    return {
        "features": d,
        "seconds": round(medians[0], 3),
        "seconds_with_the_real_root_cached": round(medians[1], 3),
        "seconds_by_sqrtm": round(medians[2], 3),
        "ratio": round(medians[0] / medians[2], 3),
        "ratio_with_the_real_root_cached": round(medians[1] / medians[2], 3),
    }


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
