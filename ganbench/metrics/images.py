"""The metric of images: features of generated samples against features of real images."""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from ganbench.config.schema import REAL_IMAGES
from ganbench.datasets import Data
from ganbench.errors import Refused
from ganbench.interfaces import Scores
from ganbench.metrics.feature_cache import cached_features
from ganbench.metrics.features import embed
from ganbench.metrics.frechet import (
    AT_ONCE,
    MIN_SAMPLES_A_FEATURE,
    Moments,
    distance,
    extrapolated_distance,
    moments,
    root,
)
from ganbench.metrics.inception_score import inception_score
from ganbench.metrics.kid import kernel_distance, mean_kernel
from ganbench.metrics.modes import histogram
from ganbench.metrics.prdc import PRDC_NAMES, diversity, memorization, memorization_of_reals, radii
from ganbench.metrics.protocol import Protocol, Provenance
from ganbench.metrics.scores import all_usable, first_samples, largest, missing, real_reference

CLASS_NAMES = ("classes", "classes_kl")


class ImageMetric:
    """Score images: Fréchet distance, kernel distance, Inception Score, diversity, memorization and classes.

    All of them are taken from one pass through the network. The score called `name` ranks: the Fréchet distance, or
    with name="kid" the kernel distance; `frechet` is then the name of the former. `cannot_rank` says why no generator
    can have that score here; None if one can.

    `features` maps uint8 images [n, C, H, W] to features [n, d]; if it has `classify(features)`, classes are counted,
    if `class_logits(features)`, there is an Inception Score, and if a `provenance`, the scores have a `protocol`.
    """

    def __init__(  # every key of conf/metric/fid.yaml, and the data and device of the run
        self,
        name: str,
        features: nn.Module,
        n_fake: int,
        n_real: int | None,  # real images to compare with; None for all
        n_train: int | None,  # training images that could be memorized; None for all
        k_neighbors: int,  # of precision, recall, density and coverage
        n_subsets: int,  # of samples, which lead to `<name>_inf`, the distance of infinitely many; 0 leaves it out
        data: Data,
        device: torch.device,
        frechet: str | None = None,
        reference: str = "held_out",  # the real images to compare with: a name of RealImages
        n_pairs: int | None = None,  # images of either kind that are compared pair by pair; None for all
    ):
        self.name = name
        frechet = frechet or name
        self.n_fake = n_fake
        self.k = k_neighbors
        self.n_subsets = n_subsets
        self.features = features.to(device)
        self.reference = reference
        self.n_pairs = n_pairs
        images = _real_images(data, reference)
        self.real_images = first_samples(images, n_real, REAL_IMAGES[reference])
        wanted = max(n_fake, n_pairs) if n_pairs else None  # more would be embedded for nothing
        self.held_out_images = self.real_images if reference == "held_out" else data.test[:wanted]
        self.train_images = data.train[:n_train]
        self.classify = getattr(features, "classify", None)
        self.class_logits = getattr(features, "class_logits", None)
        self.distance_names = [frechet, f"{frechet}_inf"] if n_subsets else [frechet]
        classes = [*["inception_score"] * bool(self.class_logits), *(CLASS_NAMES if self.classify else ())]
        self.names = [*self.distance_names, "kid", *classes, *PRDC_NAMES, "memorization"]
        self.n_features = embed(self.features, self.real_images[:1]).shape[1]
        self.cannot_rank = self._too_few(n_fake) if name == frechet else None
        self.protocol = self._protocol(len(images))

    def _protocol(self, n_available: int) -> Protocol | None:
        provenance: Provenance | None = getattr(self.features, "provenance", None)
        if provenance is None:
            return None
        n_real = len(self.real_images)
        return Protocol(self.name, self.n_fake, n_real, self.reference, n_available, self.n_pairs, provenance)

    # What depends on real data only is computed once, and not before it is asked for: on a CPU it takes minutes, and a
    # run that cannot be ranked is refused without.

    @cached_property
    def real(self) -> Tensor:
        """Return the features of the real images that samples are compared with."""
        features = cached_features(self.features, self.real_images)
        if not all_usable(features):
            kind = "held-out data" if self.reference == "held_out" else REAL_IMAGES[self.reference]
            raise Refused(
                f"metric={self.name}: features of {kind} by {type(self.features).__name__} are not finite; "
                "choose another network."
            )
        return features

    @cached_property
    def held_out(self) -> Tensor:
        """Return the features of the held-out images."""
        return self.real if self.reference == "held_out" else cached_features(self.features, self.held_out_images)

    @cached_property
    def train(self) -> Tensor:
        """Return the features of the training images that could be memorized."""
        n = len(self.train_images)
        if self.reference == "train" and n <= len(self.real_images):
            return self.real[:n]
        return cached_features(self.features, self.train_images)

    @cached_property
    def moments(self) -> Moments:
        """Return the normal distribution fitted to the real features."""
        return moments(self.real)

    @cached_property
    def root(self) -> Tensor:
        """Return the root of their covariance."""
        return root(self.moments.cov)

    @cached_property
    def mean_kernel(self) -> Tensor:
        """Return the mean kernel of two different real images."""
        return mean_kernel(self._paired(self.real))

    @cached_property
    def radii(self) -> Tensor:
        """Return the distance of each real image to its k-th nearest neighbor."""
        return radii(self._paired(self.real)[: self.n_fake], self.k)

    @cached_property
    def class_counter(self) -> "ClassCounter | None":
        """Return what counts the classes of samples; None where the features have none."""
        return ClassCounter(self.classify, self.real) if self.classify else None

    @cached_property
    def real_reference(self) -> Scores:
        """Score real images that samples are not compared with: training images, or held-out ones if samples are
        compared with training images. Their memorization is that of the held-out images, though.
        """
        names = self.names[:-1]
        memorized = memorization_of_reals(self.train, self._paired(self.held_out))
        if self.reference == "all":
            return missing(names, "samples are compared with all real images, so none is left") | memorized
        if self.reference == "train":  # there may be fewer than samples, and more would not do, so all there are
            return self._score_reals(self.held_out[: self.n_fake]) | memorized
        return real_reference(self._score_reals, names, self.train, self.n_fake) | memorized

    def __call__(self, fake: Tensor) -> Scores:
        """Return the scores of uint8 images [n, C, H, W]."""
        return self.scores(embed(self.features, fake))

    def scores(self, fake: Tensor) -> Scores:
        """Return the scores of features [n, d]."""
        reason = _unusable(fake)
        if reason:
            return missing(self.names, reason)
        return self._compare(fake) | memorization(self._paired(fake), self.train, self._paired(self.held_out))

    def _score_reals(self, features: Tensor) -> Scores:
        """Return the scores of real images' features [n, d], without memorization."""
        reason = _unusable(features)
        return missing(self.names[:-1], reason) if reason else self._compare(features)

    def _compare(self, fake: Tensor) -> Scores:
        """Compare features [n, d] with those of the real images."""
        real, paired = self._paired(self.real), self._paired(fake)
        scores = self._distances(fake) | {"kid": kernel_distance(real, paired, self.mean_kernel)}
        if self.class_logits:
            scores |= inception_score(self.class_logits(fake))
        if self.class_counter:
            scores |= self.class_counter.scores(fake)
        return scores | diversity(real, paired, self.k, self.radii)

    def _paired(self, features: Tensor) -> Tensor:
        """Return the features that are compared pair by pair, whose cost grows with the square of their number."""
        return features[: self.n_pairs]

    def _distances(self, fake: Tensor) -> Scores:
        too_few = self._too_few(len(fake))
        if too_few:
            return missing(self.distance_names, too_few)
        scores: Scores = {self.distance_names[0]: distance(self.moments, moments(fake), self.root)}
        return scores | self._extrapolated(fake) if self.n_subsets else scores

    def _too_few(self, n_fake: int) -> str | None:
        """Say so if covariances of so many fakes, or of the real images, cannot have full rank."""
        fewest = min(n_fake, len(self.real_images))
        d = self.n_features
        return f"{fewest} samples cannot span {d} features" if fewest <= d else None

    def _extrapolated(self, fake: Tensor) -> Scores:
        name = self.distance_names[1]
        n, d = fake.shape
        value = extrapolated_distance(self.moments, fake, self.root, self.n_subsets)
        if value is None:
            return missing([name], f"{n} samples are fewer than {MIN_SAMPLES_A_FEATURE} for each of {d} features")
        return {name: value}


def _real_images(data: Data, reference: str) -> Tensor:
    """Return the real images that samples are compared with."""
    match reference:
        case "held_out":
            return data.test
        case "train":
            return data.train
        case "all":
            return torch.cat([data.train[:], data.test])  # a slice is on the device, where the whole may not be
    raise Refused(f"metric.reference={reference} must be one of: {', '.join(REAL_IMAGES)}.")


def _unusable(fake: Tensor) -> str | None:
    """Say why features [n, d] cannot be scored at all; None if they can."""
    if not all_usable(fake):
        return "features are not finite"
    apart = max(largest(part - fake[0]) for part in fake.split(AT_ONCE))
    if apart <= 1e-5 * largest(fake):  # no more than batches round differently
        return f"all {len(fake)} samples are the same"
    return None


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
