"""The metric of images: features of generated samples against features of held-out real images."""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from ganbench.datasets import Data
from ganbench.errors import Refused
from ganbench.interfaces import Scores
from ganbench.metrics.feature_cache import cached_features
from ganbench.metrics.features import embed
from ganbench.metrics.frechet import MIN_SAMPLES_A_FEATURE, Moments, distance, extrapolated_distance, moments, root
from ganbench.metrics.kid import kernel_distance, mean_kernel
from ganbench.metrics.modes import histogram
from ganbench.metrics.prdc import PRDC_NAMES, diversity, memorization, memorization_of_reals, radii
from ganbench.metrics.scores import all_usable, held_out_samples, missing, real_reference

CLASS_NAMES = ("classes", "classes_kl")


class ImageMetric:
    """Score images: Fréchet distance, kernel distance, diversity, memorization and classes.

    The score called `name` ranks: the Fréchet distance, or with name="kid" the kernel distance; `frechet` is then the
    name of the former. `cannot_rank` says why no generator can have that score here; None if one can.
    `features` maps uint8 images [n, C, H, W] to features [n, d]; if it has `classify(features)`, classes are counted.
    """

    def __init__(  # every key of conf/metric/fid.yaml, and the data and device of the run
        self,
        name: str,
        features: nn.Module,
        n_fake: int,
        n_real: int | None,  # held-out images to compare with; None for all
        n_train: int | None,  # training images that could be memorized; None for all
        k_neighbors: int,  # of precision, recall, density and coverage
        n_subsets: int,  # of samples, which lead to `<name>_inf`, the distance of infinitely many; 0 leaves it out
        data: Data,
        device: torch.device,
        frechet: str | None = None,
    ):
        self.name = name
        frechet = frechet or name
        self.n_fake = n_fake
        self.k = k_neighbors
        self.n_subsets = n_subsets
        self.features = features.to(device)
        self.test_images = held_out_samples(data.test, n_real)
        self.train_images = data.train[:n_train]
        self.classify = getattr(features, "classify", None)
        self.distance_names = [frechet, f"{frechet}_inf"] if n_subsets else [frechet]
        classes = CLASS_NAMES if self.classify else []
        self.names = [*self.distance_names, "kid", *classes, *PRDC_NAMES, "memorization"]
        self.n_features = embed(self.features, self.test_images[:1]).shape[1]
        self.cannot_rank = self._too_few(n_fake) if name == frechet else None

    # What depends on real data only is computed once, and not before it is asked for: on a CPU it takes minutes, and a
    # run that cannot be ranked is refused without.

    @cached_property
    def test(self) -> Tensor:
        """Return the features of the held-out images."""
        features = cached_features(self.features, self.test_images)
        if not all_usable(features):
            raise Refused(
                f"metric={self.name}: features of held-out data by {type(self.features).__name__} are not finite; "
                "choose another network."
            )
        return features

    @cached_property
    def train(self) -> Tensor:
        """Return the features of the training images."""
        return cached_features(self.features, self.train_images)

    @cached_property
    def moments(self) -> Moments:
        """Return the normal distribution fitted to the held-out features."""
        return moments(self.test)

    @cached_property
    def root(self) -> Tensor:
        """Return the root of their covariance."""
        return root(self.moments.cov)

    @cached_property
    def mean_kernel(self) -> Tensor:
        """Return the mean kernel of two different held-out images."""
        return mean_kernel(self.test)

    @cached_property
    def radii(self) -> Tensor:
        """Return the distance of each held-out image to its k-th nearest neighbor."""
        return radii(self.test[: self.n_fake], self.k)

    @cached_property
    def class_counter(self) -> "ClassCounter | None":
        """Return what counts the classes of samples; None where the features have none."""
        return ClassCounter(self.classify, self.test) if self.classify else None

    @cached_property
    def real_reference(self) -> Scores:
        """Score training images like generated ones; their memorization is that of the held-out images, though."""
        memorized = memorization_of_reals(self.train, self.test)
        return real_reference(self.scores, self.names[:-1], self.train, self.n_fake) | memorized

    def __call__(self, fake: Tensor) -> Scores:
        """Return the scores of uint8 images [n, C, H, W]."""
        return self.scores(embed(self.features, fake))

    def scores(self, fake: Tensor) -> Scores:
        """Return the scores of features [n, d]."""
        if not all_usable(fake):
            return missing(self.names, "features are not finite")
        if (fake - fake[0]).abs().max() <= 1e-5 * fake.abs().max():  # no more than batches round differently
            return missing(self.names, f"all {len(fake)} samples are the same")
        scores = self._distances(fake) | {"kid": kernel_distance(self.test, fake, self.mean_kernel)}
        if self.class_counter:
            scores |= self.class_counter.scores(fake)
        scores |= diversity(self.test, fake, self.k, self.radii)
        return scores | memorization(fake, self.train, self.test)

    def _distances(self, fake: Tensor) -> Scores:
        too_few = self._too_few(len(fake))
        if too_few:
            return missing(self.distance_names, too_few)
        scores: Scores = {self.distance_names[0]: distance(self.moments, moments(fake), self.root)}
        return scores | self._extrapolated(fake) if self.n_subsets else scores

    def _too_few(self, n_fake: int) -> str | None:
        """Say so if covariances of so many fakes, or of the held-out images, cannot have full rank."""
        fewest = min(n_fake, len(self.test_images))
        d = self.n_features
        return f"{fewest} samples cannot span {d} features" if fewest <= d else None

    def _extrapolated(self, fake: Tensor) -> Scores:
        name = self.distance_names[1]
        n, d = fake.shape
        value = extrapolated_distance(self.moments, fake, self.root, self.n_subsets)
        if value is None:
            return missing([name], f"{n} samples are fewer than {MIN_SAMPLES_A_FEATURE} for each of {d} features")
        return {name: value}


class ClassCounter:
    """Count which classes the samples belong to, by a classifier `classify(features [n, d]) -> classes [n]`.

    Classes that fewer than 1 % of the real samples are given are taken for the classifier's mistakes and left out.
    """

    def __init__(self, classify: Callable[[Tensor], Tensor], real: Tensor):
        self.classify = classify
        counts = torch.bincount(classify(real))
        self.classes = (counts >= 0.01 * len(real)).nonzero().squeeze(1)
        self.real_shares = counts[self.classes].double() / counts[self.classes].sum()

    def scores(self, fake: Tensor) -> Scores:
        """Return for features [n, d] the classes with a fifth of their real share or more, and KL(samples || reals)."""
        which = (self.classify(fake)[:, None] == self.classes).nonzero()[:, 1]
        shares = histogram(which, len(self.classes), len(fake))
        share = torch.tensor(shares, dtype=torch.float64, device=self.real_shares.device)
        scores: Scores = {"classes": float((share >= self.real_shares / 5).sum()), "histogram": shares}
        if not len(which):
            return scores | missing(["classes_kl"], "no sample is of a class that reals have")
        known = share / share.sum()  # among the samples of real classes
        return scores | {"classes_kl": float(torch.special.xlogy(known, known / self.real_shares).sum())}
