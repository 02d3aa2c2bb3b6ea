"""The metric of images: their features against those of held-out reals."""

import torch
from torch import Tensor, nn

from ganbench.data import Data
from ganbench.metrics import Scores, held_out
from ganbench.metrics.diversity import diversity, memorisation, memorisation_of_reals
from ganbench.metrics.frechet import distance, extrapolated, moments, root
from ganbench.metrics.kernel import kernel_distance


@torch.no_grad()
def embed(features: nn.Module, x: Tensor, size: int = 250) -> Tensor:
    """Features [n, d] in float64, computed a batch at a time."""
    return torch.cat([features(part).double() for part in x.split(size)])


class ImageMetric:
    """Frechet distance (the ranked score, called `name`), kernel distance, diversity and memorisation.

    All compare with held-out reals, n_real of them (None for all). `neighbours` is the k of precision, recall,
    density and coverage, which take equal numbers of real and fake. `n_train` training samples stand for what could
    be memorised; `sizes` subsets, if any, lead to `<name>_inf`, the distance for endlessly many samples.
    """

    def __init__(
        self,
        name: str,
        features: nn.Module,
        n_fake: int,
        n_real: int | None,
        n_train: int | None,
        neighbours: int,
        sizes: int,
        data: Data,
        device: torch.device,
    ):
        self.name, self.n_fake, self.k, self.sizes = name, n_fake, neighbours, sizes
        self.features = features.to(device)
        self.test = embed(self.features, held_out(data.test, n_real))
        self.train = embed(self.features, data.train[:n_train])
        self.real = moments(self.test)
        self.root = root(self.real.cov)
        self.floor = self._floor(len(data.train))

    def __call__(self, fake: Tensor) -> Scores:
        """The scores of uint8 images [n, C, H, W]; a score of None comes with the reason."""
        return self.scores(embed(self.features, fake))

    def scores(self, fake: Tensor) -> Scores:
        """The scores of features [n, d]."""
        if not fake.isfinite().all():
            return self._none("features are not finite")
        if bool((fake == fake[0]).all()):
            return self._none(f"all {len(fake)} samples are the same")
        return self._distances(fake) | diversity(self.test, fake, self.k) | self._memorised(fake)

    def _distances(self, fake: Tensor) -> Scores:
        fewest, d = min(len(fake), len(self.test)), fake.shape[1]
        kernel: Scores = {"kid": kernel_distance(self.test, fake)}
        if fewest <= d:
            return self._none(f"{fewest} samples cannot span {d} features") | kernel
        found: Scores = {self.name: distance(self.real, moments(fake), self.root)}
        if self.sizes:
            found[f"{self.name}_inf"] = extrapolated(self.real, fake, self.root, self.sizes)
        return found | kernel

    def _memorised(self, fake: Tensor) -> Scores:
        return {"memorisation": memorisation(fake, self.train, self.test)}

    def _none(self, why: str) -> Scores:
        return {self.name: None, f"{self.name}_why": why}

    def _floor(self, n: int) -> Scores:
        """What as many real training samples score as generated ones are drawn, where there are as many."""
        of_reals: Scores = {"memorisation": memorisation_of_reals(self.train, self.test)}
        if self.n_fake > min(n, len(self.train)):
            return self._none(f"{self.n_fake} samples are scored, and the dataset has {n} to train on") | of_reals
        return self.scores(self.train[: self.n_fake]) | of_reals
