"""The Frechet distance between normals fitted to two sets of features."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ganbench import randomness
from ganbench.metrics.scores import all_usable


class Moments(NamedTuple):
    """Sample size, mean [d] and covariance [d, d] in float64."""

    n: int
    mean: Tensor
    cov: Tensor


def moments(x: Tensor) -> Moments:
    """Of features [n, d], n at least 2."""
    x = x.double()
    return Moments(len(x), x.mean(0), torch.cov(x.T).view(x.shape[1], x.shape[1]))


def root(cov: Tensor) -> Tensor:
    """The symmetric square root of a covariance."""
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def distance(a: Moments, b: Moments, root_a: Tensor | None = None) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) (Heusel et al. 2017, arXiv:1706.08500, equation 6).

    The last trace is taken from the eigenvalues of R B R with R = A^(1/2), which are real by construction.
    Pass R as `root_a` to compute it once for many b. NaN where one of the covariances is not finite.
    """
    if not (a.cov.isfinite().all() and b.cov.isfinite().all()):
        return math.nan
    r = root(a.cov) if root_a is None else root_a
    cross = torch.linalg.eigvalsh(r @ b.cov @ r).clamp(min=0).sqrt().sum()
    apart = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross
    return float(apart.clamp(min=0))  # what is below is rounding


def extrapolated(a: Moments, x: Tensor, root_a: Tensor, n_subsets: int = 8) -> float | None:
    """The distance of features x as their number goes to infinity, by a straight line through 1/n.

    The distance is biased by a term in 1/n that differs between generators (Chong and Forsyth 2020,
    arXiv:1911.07023). It is taken at `n_subsets` subsets of a fifth to all of x; None where the smallest
    could not span the features, NaN where these are not finite.
    """
    n, d = x.shape
    if n < 5 * (d + 1):
        return None
    if not all_usable(x):
        return math.nan
    order = torch.randperm(n, generator=randomness.generator(0, "metric/subsets")).to(x.device)
    counts = torch.linspace(n / 5, n, n_subsets).round().int().tolist()
    found = [distance(a, moments(x[order[:m]]), root_a) for m in counts]
    line = torch.stack([torch.ones(n_subsets), 1 / torch.tensor(counts)], 1).double()
    return float(torch.linalg.lstsq(line, torch.tensor(found).double()[:, None]).solution[0])
