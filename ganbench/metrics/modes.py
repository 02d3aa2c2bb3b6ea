"""Metrics for data of known modes: 2-D mixtures, and digits stacked in three channels."""

import torch
from torch import Tensor

from ganbench.config import Refused
from ganbench.data import Data, Modes
from ganbench.metrics import Scores, floor, held_out, measurable, none
from ganbench.metrics.diversity import NAMES, diversity
from ganbench.metrics.features import LeNet


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    """2 E|X-Y| - E|X-X'| - E|Y-Y'|, unbiased, so that it may fall below 0 for equal distributions; differentiable."""
    within = sum(torch.cdist(s, s).sum() / (len(s) * (len(s) - 1)) for s in (x, y))
    return 2 * torch.cdist(x, y).mean() - within


def nearest(x: Tensor, modes: Modes) -> tuple[Tensor, Tensor]:
    """For each sample the index of its nearest mode, and whether it lies within three standard deviations of it."""
    far, which = torch.cdist(x.double(), modes.centres.double()).min(1)
    return which, far < 3 * modes.std


def mode_scores(which: Tensor, n: int) -> Scores:
    """How many of n modes appear in `which`, and KL(share of each || 1/n); a perfect sampler of N has (n-1)/2N."""
    found: Scores = {"modes": float(which.unique().numel())}
    if not len(which):
        return found | none(["modes_kl"], "no sample lies near a mode")
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

    def __init__(self, name: str, n_fake: int, n_real: int | None, neighbours: int, data: Data, device: torch.device):
        if data.modes is None:
            raise Refused("metric=modes needs a dataset with known modes, such as dataset=ring or dataset=grid.")
        self.name, self.n_fake, self.k, self.modes = name, n_fake, neighbours, data.modes
        self.real = held_out(data.test, n_real)
        self.names = (name, "modes", "modes_kl", "high_quality", *NAMES)
        self.floor = floor(self, self.names, data.train, n_fake)

    def __call__(self, fake: Tensor) -> Scores:
        if not measurable(fake, self.real):
            return none(self.names, "samples are not finite")
        which, good = nearest(fake, self.modes)
        found: Scores = {
            self.name: float(energy_distance(fake.double(), self.real.double())),
            "high_quality": float(good.double().mean()),
        }
        return (
            found
            | mode_scores(which[good], len(self.modes.centres))
            | {"histogram": histogram(which[good], len(self.modes.centres), len(fake))}
            | diversity(self.real.double(), fake.double(), self.k)
        )


class StackedModesMetric:
    """For stacked digits: of the 1,000 triples of digits how many appear, how far they are from equal shares, and
    diversity against held-out reals.

    Digits are read by the classifier that ships with ganbench, channel by channel (Metz et al. 2017,
    arXiv:1611.02163, section 3.3.1); 26,000 samples as in PacGAN (Lin et al. 2018, arXiv:1712.04086, section 4.2).
    """

    def __init__(self, name: str, n_fake: int, n_real: int | None, neighbours: int, data: Data, device: torch.device):
        self.name, self.n_fake, self.k, self.classifier = name, n_fake, neighbours, LeNet().to(device)
        self.real, _ = self.read(held_out(data.test, n_real))
        self.names = (name, "modes", *NAMES)
        self.floor = floor(self, self.names, data.train, n_fake)

    def __call__(self, fake: Tensor) -> Scores:
        features, triples = self.read(fake)
        if not measurable(features, self.real):
            return none(self.names, "features are not finite")
        return mode_scores(triples, 1000) | diversity(self.real, features, self.k)

    @torch.no_grad()
    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of images [N, 3, 32, 32]: features [N, 192], and the three digits as one number from 0 to 999."""
        channels = images.flatten(0, 1)[:, None]
        features = torch.cat([self.classifier(part) for part in channels.split(1000)])
        digits = self.classifier.head(features)[:, :10].argmax(1).view(-1, 3)
        return features.view(len(images), -1), (digits * torch.tensor([100, 10, 1], device=digits.device)).sum(1)
