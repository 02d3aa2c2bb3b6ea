"""Metrics for data of known modes: 2-D mixtures, and digits stacked in three channels."""

from collections.abc import Callable

import torch
from torch import Tensor

from ganbench.datasets import Data, Modes
from ganbench.errors import Refused
from ganbench.metrics.feature_cache import cached_features
from ganbench.metrics.features import LeNet, embed
from ganbench.metrics.prdc import NAMES, diversity, radii
from ganbench.metrics.scores import (
    BLOCK_ROWS,
    Scores,
    all_usable,
    held_out_samples,
    missing,
    pairwise_distances,
    real_reference,
)


def energy_distance(x: Tensor, y: Tensor, within_y: Tensor | None = None) -> Tensor:
    """2 E|X-Y| - E|X-X'| - E|Y-Y'|, unbiased, so that it may fall below 0 for equal distributions; differentiable.

    Pass `within(y)` as `within_y` to compute it once for many x.
    """
    return 2 * _apart(x, y) / (len(x) * len(y)) - within(x) - (within(y) if within_y is None else within_y)


def within(x: Tensor) -> Tensor:
    """The mean distance between two samples."""
    total = 0.0
    for first in range(0, len(x), BLOCK_ROWS):
        part, others = x[first : first + BLOCK_ROWS], x[first + BLOCK_ROWS :]
        total += _apart(part, part) + 2 * _apart(part, others)  # as far from a to b as from b to a
    return total / (len(x) * (len(x) - 1))


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """The sum of all distances."""
    return sum(pairwise_distances(part, y).sum(dtype=torch.float64) for part in x.split(BLOCK_ROWS))


def nearest(x: Tensor, modes: Modes) -> tuple[Tensor, Tensor]:
    """For each sample the index of its nearest mode, and whether it lies within three standard deviations of it."""
    far, which = torch.cdist(x.double(), modes.centres.double()).min(1)
    return which, far < 3 * modes.std


def mode_scores(which: Tensor, n: int) -> Scores:
    """How many of n modes appear in `which`, and KL(share of each || 1/n); a perfect sampler of N has (n-1)/2N."""
    found: Scores = {"modes": float(which.unique().numel())}
    if not len(which):
        return found | missing(["modes_kl"], "no sample lies near a mode")
    share = torch.bincount(which, minlength=n).double() / len(which)
    kept = share[share > 0]
    return found | {"modes_kl": float((kept * (kept * n).log()).sum())}


def histogram(which: Tensor, n: int, total: int) -> list[float]:
    """The share of all samples that each of n modes or classes got."""
    return (torch.bincount(which, minlength=n).double() / total).tolist()


class ModesMetric:
    """For 2-D mixtures: energy distance to held-out points, modes, the share of good samples, and diversity.

    A sample is good within three standard deviations of a mode, and a mode covered by one good sample (Lin et al.
    2018, arXiv:1712.04086, section 4.1). `modes_kl` compares the good samples' modes with equal shares; `histogram`
    is each mode's share of all samples.
    """

    def __init__(self, name: str, n_fake: int, n_real: int | None, k_neighbors: int, data: Data, device: torch.device):
        if data.modes is None:
            raise Refused(
                "metric=energy_distance needs a dataset with known modes, such as dataset=ring or dataset=grid."
            )
        self.name, self.n_fake, self.k, self.modes = name, n_fake, k_neighbors, data.modes
        self.real = held_out_samples(data.test, n_real)
        if not all_usable(self.real):
            raise Refused(f"metric={name}: held-out points are not finite, or beyond 1e18; mend the dataset.")
        self.within, self.radii = within(self.real), radii(self.real[:n_fake], k_neighbors)
        self.names = (name, "modes", "modes_kl", "high_quality", *NAMES)
        self.real_reference = real_reference(self, self.names, data.train, n_fake)

    def __call__(self, fake: Tensor) -> Scores:
        if not all_usable(fake, self.real):
            return missing(self.names, "samples are not finite, or beyond 1e18")
        which, good = nearest(fake, self.modes)
        found: Scores = {
            self.name: float(energy_distance(fake, self.real, self.within)),
            "high_quality": float(good.double().mean()),
        }
        return (
            found
            | mode_scores(which[good], len(self.modes.centres))
            | {"histogram": histogram(which[good], len(self.modes.centres), len(fake))}
            | diversity(self.real, fake, self.k, self.radii)
        )


class StackedModesMetric:
    """For stacked digits: of the 1,000 triples of digits how many appear, how far they are from equal shares, and
    diversity against held-out reals.

    Digits are read by the classifier that ships with ganbench, channel by channel (Metz et al. 2017,
    arXiv:1611.02163, section 3.3.1). PacGAN takes 26,000 samples (Lin et al. 2018, arXiv:1712.04086, section 4.2).
    """

    def __init__(self, name: str, n_fake: int, n_real: int | None, k_neighbors: int, data: Data, device: torch.device):
        self.name, self.n_fake, self.k, self.classifier = name, n_fake, k_neighbors, LeNet().to(device)
        self.real = self.read(held_out_samples(data.test, n_real), cached_features)
        self.radii = radii(self.real[:n_fake], k_neighbors)
        self.names = (name, "modes", *NAMES)
        self.real_reference = real_reference(
            lambda x: self.scores(self.read(x, cached_features)), self.names, data.train, n_fake
        )

    def __call__(self, fake: Tensor) -> Scores:
        return self.scores(self.read(fake, embed))

    def scores(self, features: Tensor) -> Scores:
        """The scores of features [n, 192]."""
        if not all_usable(features, self.real):
            return missing(self.names, "features are not finite")
        return mode_scores(self.triples(features), 1000) | diversity(self.real, features, self.k, self.radii)

    def read(self, images: Tensor, embed: Callable[..., Tensor]) -> Tensor:
        """Features [N, 192] of images [N, 3, 32, 32]."""
        return embed(self.classifier, images.flatten(0, 1)[:, None]).float().view(len(images), -1)

    @torch.no_grad()
    def triples(self, features: Tensor) -> Tensor:
        """The three digits of each as one number from 0 to 999."""
        digits = self.classifier.head(features.view(-1, 64))[:, :10].argmax(1).view(-1, 3)
        return (digits * torch.tensor([100, 10, 1], device=digits.device)).sum(1)
