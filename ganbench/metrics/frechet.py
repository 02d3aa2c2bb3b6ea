"""The Frechet distance between normals fitted to two sets of features."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganbench.data import Data
from ganbench.metrics import Scores, floor, held_out


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
    Pass R as `root_a` to compute it once for many b.
    """
    r = root(a.cov) if root_a is None else root_a
    cross = torch.linalg.eigvalsh(r @ b.cov @ r).clamp(min=0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross)


@torch.no_grad()
def embed(features: nn.Module, x: Tensor, size: int = 250) -> Tensor:
    """Features [n, d] in float64, computed a batch at a time."""
    return torch.cat([features(part).double() for part in x.split(size)])


class FrechetMetric:
    """The distance of generated images to held-out real ones."""

    def __init__(
        self, name: str, features: nn.Module, n_fake: int, n_real: int | None, data: Data, device: torch.device
    ):
        self.name, self.n_fake = name, n_fake
        self.features = features.to(device)
        self.real = moments(embed(self.features, held_out(data.test, n_real)))
        self.root = root(self.real.cov)
        self.floor = floor(self, name, data.train, n_fake)

    def __call__(self, fake: Tensor) -> Scores:
        """The distance of uint8 images [n, C, H, W]; None, and why, where it has no meaning."""
        found = embed(self.features, fake)
        why = self._reason(found)
        if why:
            return {self.name: None, f"{self.name}_why": why}
        return {self.name: distance(self.real, moments(found), self.root)}

    def _reason(self, found: Tensor) -> str | None:
        fewest = min(len(found), self.real.n)
        if fewest <= found.shape[1]:
            return f"{fewest} samples cannot span {found.shape[1]} features"
        return None if found.isfinite().all() else "features are not finite"
