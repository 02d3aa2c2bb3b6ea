"""The metric of images: their features against those of held-out reals."""

import torch
from torch import Tensor, nn

from ganbench.datasets import Data
from ganbench.errors import Refused
from ganbench.metrics.feature_cache import cached_features
from ganbench.metrics.features import embed
from ganbench.metrics.frechet import distance, extrapolated, moments, root
from ganbench.metrics.kid import kernel_distance, within
from ganbench.metrics.modes import histogram
from ganbench.metrics.prdc import NAMES, diversity, memorisation, memorisation_of_reals, radii
from ganbench.metrics.scores import Scores, all_usable, held_out_samples, missing, real_reference


class Classes:
    """Which classes come out, by a network that tells them; those with less than 1 % of the reals are its mistakes."""

    def __init__(self, features: nn.Module, real: Tensor):
        self.tell = features.classes
        count = torch.bincount(self.tell(real))
        self.kept = (count >= 0.01 * len(real)).nonzero().squeeze(1)
        self.due = count[self.kept].double() / count[self.kept].sum()

    def scores(self, fake: Tensor) -> Scores:
        """Of features [n, d]."""
        told = self.tell(fake)
        which = (told[:, None] == self.kept).nonzero()[:, 1]
        shares = histogram(which, len(self.kept), len(fake))
        share = torch.tensor(shares, dtype=torch.float64, device=self.due.device)
        found: Scores = {"classes": float((share >= self.due / 5).sum()), "histogram": shares}
        if not len(which):
            return found | missing(["classes_kl"], "no sample is of a class that reals have")
        among = share / share.sum()
        return found | {"classes_kl": float(torch.special.xlogy(among, among / self.due).sum())}


class ImageMetric:
    """Frechet distance (the ranked score, called `name`), kernel distance, diversity and memorisation.

    All compare with held-out reals, n_real of them (None for all). `k_neighbors` is the k of precision, recall,
    density and coverage, which take equal numbers of real and fake. `n_train` training samples stand for what could
    be memorised; `n_subsets` subsets, if any, lead to `<name>_inf`, the distance for endlessly many samples.
    """

    def __init__(
        self,
        name: str,
        features: nn.Module,
        n_fake: int,
        n_real: int | None,
        n_train: int | None,
        k_neighbors: int,
        n_subsets: int,
        data: Data,
        device: torch.device,
    ):
        self.name, self.n_fake, self.k, self.n_subsets = name, n_fake, k_neighbors, n_subsets
        self.distances = [name, f"{name}_inf"] if n_subsets else [name]
        told = ["classes", "classes_kl"] if hasattr(features, "classes") else []
        self.names = [*self.distances, "kid", *told, *NAMES, "memorisation"]
        self.features = features.to(device)
        self.test = cached_features(self.features, held_out_samples(data.test, n_real))
        self.train = cached_features(self.features, data.train[:n_train])
        if not all_usable(self.test):
            who = type(features).__name__
            raise Refused(f"metric={name}: features of held-out data by {who} are not finite; choose another network.")
        self.real = moments(self.test)
        self.root, self.within = root(self.real.cov), within(self.test)
        self.radii = radii(self.test[:n_fake], k_neighbors)
        self.classes = Classes(features, self.test) if told else None
        of_reals = memorisation_of_reals(self.train, self.test)
        self.real_reference = real_reference(self.scores, self.names[:-1], self.train, n_fake) | of_reals

    def __call__(self, fake: Tensor) -> Scores:
        """The scores of uint8 images [n, C, H, W]; a score of None comes with the reason."""
        return self.scores(embed(self.features, fake))

    def scores(self, fake: Tensor) -> Scores:
        """The scores of features [n, d]."""
        if not all_usable(fake):
            return missing(self.names, "features are not finite")
        if (fake - fake[0]).abs().max() <= 1e-5 * fake.abs().max():  # no more than batches round differently
            return missing(self.names, f"all {len(fake)} samples are the same")
        found = self._distances(fake) | {"kid": kernel_distance(self.test, fake, self.within)}
        found |= self.classes.scores(fake) if self.classes else {}
        return found | diversity(self.test, fake, self.k, self.radii) | memorisation(fake, self.train, self.test)

    def _distances(self, fake: Tensor) -> Scores:
        fewest, d = min(len(fake), len(self.test)), fake.shape[1]
        if fewest <= d:
            return missing(self.distances, f"{fewest} samples cannot span {d} features")
        found: Scores = {self.name: distance(self.real, moments(fake), self.root)}
        return found | self._endless(fake) if self.n_subsets else found

    def _endless(self, fake: Tensor) -> Scores:
        name, (n, d) = f"{self.name}_inf", fake.shape
        value = extrapolated(self.real, fake, self.root, self.n_subsets)
        return (
            {name: value} if value is not None else missing([name], f"a fifth of {n} samples cannot span {d} features")
        )
