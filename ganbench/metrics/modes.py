"""Metrics for data whose modes are known: 2-D mixtures, and digits stacked in three channels."""

from collections.abc import Callable

import torch
from torch import Tensor

from ganbench.datasets import Data, Modes
from ganbench.errors import Refused
from ganbench.interfaces import Scores
from ganbench.metrics.feature_cache import cached_features
from ganbench.metrics.features import LeNet, embed
from ganbench.metrics.prdc import PRDC_NAMES, diversity, radii
from ganbench.metrics.scores import (
    BLOCK_ROWS,
    all_usable,
    held_out_samples,
    missing,
    pairwise_distances,
    real_reference,
)


class ModesMetric:
    """Score 2-D points: energy distance to held-out points (ranks), modes, share of good samples, and diversity.

    A sample is good if it lies within three standard deviations of a mode, and a mode is covered by one good sample
    (Lin et al. 2018, arXiv:1712.04086, section 4.1). `modes_kl` compares the modes of the good samples with equal
    shares; `histogram` is each mode's share of all samples. `k_neighbors` is the k of precision, recall, density and
    coverage; n_real None compares with all held-out points.
    """

    def __init__(self, name: str, n_fake: int, n_real: int | None, k_neighbors: int, data: Data, device: torch.device):
        if data.modes is None:
            raise Refused(
                "metric=energy_distance needs a dataset with known modes, such as dataset=ring or dataset=grid."
            )
        self.name = name
        self.n_fake = n_fake
        self.k = k_neighbors
        self.modes = data.modes
        self.real = held_out_samples(data.test, n_real)
        if not all_usable(self.real):
            raise Refused(f"metric={name}: held-out points are not finite or exceed 1e18; check the dataset.")
        self.mean_distance = mean_distance(self.real)
        self.radii = radii(self.real[:n_fake], k_neighbors)
        self.names = (name, "modes", "modes_kl", "high_quality", *PRDC_NAMES)
        self.real_reference = real_reference(self, self.names, data.train, n_fake)

    def __call__(self, fake: Tensor) -> Scores:
        """Return the scores of points [n, 2]."""
        if not all_usable(fake, self.real):
            return missing(self.names, "samples are not finite or exceed 1e18")
        which, good = nearest_modes(fake, self.modes)
        n_modes = len(self.modes.centers)
        scores: Scores = {
            self.name: float(energy_distance(fake, self.real, self.mean_distance)),
            "high_quality": float(good.double().mean()),
        }
        scores |= mode_scores(which[good], n_modes)
        scores |= {"histogram": histogram(which[good], n_modes, len(fake))}
        return scores | diversity(self.real, fake, self.k, self.radii)


class StackedModesMetric:
    """Score stacked digits: KL of the 1,000 triples from equal shares (ranks), triples that appear, and diversity.

    The digits are read by the classifier that ships with ganbench, channel by channel (Metz et al. 2017,
    arXiv:1611.02163, section 3.3.1). PacGAN scores 26,000 samples (Lin et al. 2018, arXiv:1712.04086, section 4.2).
    """

    def __init__(self, name: str, n_fake: int, n_real: int | None, k_neighbors: int, data: Data, device: torch.device):
        self.name = name
        self.n_fake = n_fake
        self.k = k_neighbors
        self.classifier = LeNet().to(device)
        self.real = self.read(held_out_samples(data.test, n_real), cached_features)
        self.radii = radii(self.real[:n_fake], k_neighbors)
        self.names = (name, "modes", *PRDC_NAMES)
        self.real_reference = real_reference(self._score_real_images, self.names, data.train, n_fake)

    def __call__(self, fake: Tensor) -> Scores:
        """Return the scores of uint8 images [n, 3, 32, 32]."""
        return self.scores(self.read(fake, embed))

    def _score_real_images(self, images: Tensor) -> Scores:
        return self.scores(self.read(images, cached_features))

    def scores(self, features: Tensor) -> Scores:
        """Return the scores of features [n, 192]."""
        if not all_usable(features, self.real):
            return missing(self.names, "features are not finite")
        return mode_scores(self.triples(features), 1000) | diversity(self.real, features, self.k, self.radii)

    def read(self, images: Tensor, embed: Callable[..., Tensor]) -> Tensor:
        """Embed images [n, 3, 32, 32] channel by channel: features [n, 192]."""
        return embed(self.classifier, images.flatten(0, 1)[:, None]).float().view(len(images), -1)

    @torch.no_grad()
    def triples(self, features: Tensor) -> Tensor:
        """Return the three digits of each sample as one number [n] from 0 to 999."""
        digits = self.classifier.head(features.view(-1, 64))[:, :10].argmax(1).view(-1, 3)
        return (digits * torch.tensor([100, 10, 1], device=digits.device)).sum(1)


def energy_distance(x: Tensor, y: Tensor, mean_distance_y: Tensor | None = None) -> Tensor:
    """Return 2 E|X-Y| - E|X-X'| - E|Y-Y'| of x [n, d] and y [m, d]; differentiable by x.

    Unbiased, so it may be negative for equal distributions. Pass `mean_distance(y)` to compute it once for many x.
    """
    within_y = mean_distance(y) if mean_distance_y is None else mean_distance_y
    return 2 * _distance_sum(x, y) / (len(x) * len(y)) - mean_distance(x) - within_y


def mean_distance(x: Tensor) -> Tensor:
    """Return the mean distance of two different samples of x [n, d], in float64."""
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for first in range(0, len(x), BLOCK_ROWS):
        block = x[first : first + BLOCK_ROWS]
        later = x[first + BLOCK_ROWS :]
        total = total + (_distance_sum(block, block) + 2 * _distance_sum(block, later))  # a to b is as far as b to a
    return total / (len(x) * (len(x) - 1))


def _distance_sum(x: Tensor, y: Tensor) -> Tensor:
    """Return the sum of the distances of all pairs, a block of rows at a time."""
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for block in x.split(BLOCK_ROWS):
        total = total + pairwise_distances(block, y).sum(dtype=torch.float64)
    return total


def nearest_modes(x: Tensor, modes: Modes) -> tuple[Tensor, Tensor]:
    """Return for each sample the index of its nearest mode, and whether it lies within three standard deviations."""
    distances, which = torch.cdist(x.double(), modes.centers.double()).min(1)
    return which, distances < 3 * modes.std


def mode_scores(which: Tensor, n: int) -> Scores:
    """Count the modes that appear in the indices `which`, and return KL(share of each mode || 1/n) as `modes_kl`.

    N samples of a perfect generator have a KL of (n-1)/2N in expectation.
    """
    scores: Scores = {"modes": float(which.unique().numel())}
    if not len(which):
        return scores | missing(["modes_kl"], "no sample lies near a mode")
    shares = torch.bincount(which, minlength=n).double() / len(which)
    positive = shares[shares > 0]
    return scores | {"modes_kl": float((positive * (positive * n).log()).sum())}


def histogram(which: Tensor, n: int, total: int) -> list[float]:
    """Return the share of all `total` samples that each of n modes or classes has, from their indices `which`."""
    return (torch.bincount(which, minlength=n).double() / total).tolist()
