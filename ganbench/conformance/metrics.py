"""Checks of metrics on distributions whose distance, spread and modes are known."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg
import torch
from scipy import stats
from torch import Tensor, nn

from ganbench import datasets
from ganbench.conformance.checks import Checks, check_close, check_true, run_checks, seeded_rng
from ganbench.metrics.frechet import Moments, distance, extrapolated_distance, moments, root
from ganbench.metrics.images import ImageMetric
from ganbench.metrics.inception_score import inception_score
from ganbench.metrics.kid import kernel_distance
from ganbench.metrics.modes import ModesMetric, energy_distance, mode_scores
from ganbench.metrics.prdc import diversity, memorization

CPU = torch.device("cpu")


def check() -> Checks:
    checks = (
        *(frechet, frechet_bias, kid, inception, energy, prdc, memorization_ratio),
        *(references, ring_and_grid, stacked_modes, no_value),
    )
    for one in checks:
        yield from run_checks("metrics", one.__name__, [one])


def frechet(distance: Callable[..., float] = distance, d: int = 64) -> Checks:
    """Compare with |m|^2 + sum (sqrt a - sqrt b)^2 for commuting covariances, and with scipy's root for others."""
    zeros = torch.zeros(d).double()
    ones = torch.ones(d).double()
    eye = torch.eye(d).double()
    a, b = torch.rand(2, d, generator=seeded_rng(), dtype=torch.float64) * 3
    rotation, _ = torch.linalg.qr(torch.randn(d, d, generator=seeded_rng(), dtype=torch.float64))
    first = Moments(9, zeros, a.diag())
    second = Moments(9, ones, b.diag())
    standard = Moments(9, zeros, eye)
    shifted = Moments(9, ones, eye)
    wide = Moments(9, zeros, 4 * eye)
    rotated = [Moments(9, rotation @ m.mean, rotation @ m.cov @ rotation.T) for m in (first, second)]
    expected = float(d + (a.sqrt() - b.sqrt()).square().sum())
    both_orders = [distance(first, second), distance(second, first)]
    close = partial(check_close, "metrics", "frechet")
    yield close("N(0, I) to N(1, I) in 64 dimensions", distance(standard, shifted), d, rel=1e-9)
    yield close("N(0, I) to N(0, 4I)", distance(standard, wide), d, rel=1e-9)
    yield close("diagonal covariances, in both orders", both_orders, expected, rel=1e-9)
    yield close("unchanged by a rotation", distance(*rotated), expected, rel=1e-9)
    yield close("0 from a distribution to itself", distance(rotated[0], rotated[0]), 0, abs=1e-9)
    x, y = (_rotated_sample(rotation, a + seed, seed) for seed in (1, 2))
    yield close("agrees with scipy's matrix square root", distance(x, y), distance_by_sqrtm(x, y), rel=1e-6)


def _rotated_sample(rotation: Tensor, scale: Tensor, seed: int, n: int = 400) -> Moments:
    x = torch.randn(n, len(rotation), generator=seeded_rng(seed), dtype=torch.float64)
    return moments(x @ rotation * scale)


def distance_by_sqrtm(a: Moments, b: Moments) -> float:
    """Return the Fréchet distance by scipy's square root of a general matrix, which is common but slow."""
    product = scipy.linalg.sqrtm(a.cov.numpy() @ b.cov.numpy()).real
    return float((a.mean - b.mean).square().sum() + (a.cov + b.cov).trace() - 2 * np.trace(product))


def frechet_bias(distance: Callable[..., float] = distance, d: int = 16, n: int = 2000, times: int = 200) -> Checks:
    """Check that n samples of N(0, I) score (d/n)(1 + (d+1)/4) to first order, and 0 when extrapolated."""
    normal = Moments(9, torch.zeros(d).double(), torch.eye(d).double())
    samples = [torch.randn(n, d, generator=seeded_rng(k), dtype=torch.float64) for k in range(times)]
    scores = np.array([distance(normal, moments(x)) for x in samples])
    extrapolated = np.array([extrapolated_distance(normal, x, root(normal.cov)) for x in samples])
    bias = d / n * (1 + (d + 1) / 4)
    close = partial(check_close, "metrics", "frechet")
    yield close("bias of 2,000 samples in 16 dimensions", scores.mean(), bias, rel=0.03)
    yield close(
        "extrapolates to 0 for samples of the same", extrapolated.mean(), 0, abs=2 * _standard_error(extrapolated)
    )


def kid(kernel_distance: Callable[[Tensor, Tensor], float] = kernel_distance) -> Checks:
    """Compare with 3 a^2 + 3 b^2 + c^2, which (xy + 1)^3 gives on the line.

    a, b and c are the differences of the first three moments.
    """
    close = partial(check_close, "metrics", "kid")
    x, y = (torch.randn(6000, 1, generator=seeded_rng(k), dtype=torch.float64) for k in range(2))
    expected = 3 * 0.5**2 + 3 * 0.25**2 + (0.5**3 + 3 * 0.5) ** 2
    yield close("N(0,1) to N(0.5,1)", kernel_distance(x, y + 0.5), expected, rel=0.1)
    pairs = (torch.randn(2, 300, 8, generator=seeded_rng(k), dtype=torch.float64) for k in range(60))
    scores = [kernel_distance(x, y) for x, y in pairs]
    yield close("0 on average for equal distributions", np.mean(scores), 0, abs=3 * _standard_error(scores))
    x, y = torch.randn(2, 50, 8, generator=seeded_rng(), dtype=torch.float64)
    yield close("agrees with a loop over pairs", kernel_distance(x, y + 1), _kernel_by_pairs(x, y + 1), rel=1e-9)


def _standard_error(values: Sequence[float] | np.ndarray) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _kernel_by_pairs(x: Tensor, y: Tensor) -> float:
    return _mean_kernel(x, x, exclude_same=True) + _mean_kernel(y, y, exclude_same=True) - 2 * _mean_kernel(x, y)


def _mean_kernel(a: Tensor, b: Tensor, exclude_same: bool = False) -> float:
    pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (exclude_same and i == j)]
    return float(np.mean([(float(a[i] @ b[j]) / a.shape[1] + 1) ** 3 for i, j in pairs]))


def energy() -> Checks:
    """Compare with 2 E|N(m, 2)| - 2 E|N(0, 2)| for N(0,1) and N(m,1), by the folded normal's mean."""
    close = partial(check_close, "metrics", "energy")
    x, y = torch.randn(2, 4000, 1, generator=seeded_rng()).double()
    expected = 2 * _folded_mean(1.5) - 2 * _folded_mean(0)
    yield close("N(0,1) to N(1.5,1)", energy_distance(x, y + 1.5), expected, rel=0.05)
    yield close("0 for equal distributions", energy_distance(x, y), 0, abs=0.005)


def _folded_mean(m: float, s: float = math.sqrt(2)) -> float:
    return float(s * math.sqrt(2 / math.pi) * math.exp(-((m / s) ** 2) / 2) + m * (1 - 2 * stats.norm.cdf(-m / s)))


Diversity = Callable[[Tensor, Tensor, int], dict[str, Any]]


def prdc(diversity: Diversity = diversity, n: int = 1000) -> Checks:
    """Check precision, recall, density and coverage where they are known.

    For equal distributions density is 1 and coverage 1 - prod (n-i)/(2n-i) over i = 1..k, both in expectation.
    """
    close = partial(check_close, "metrics", "diversity")
    for k in (3, 5):
        pairs = (torch.randn(2, n, 16, generator=seeded_rng(seed), dtype=torch.float64) for seed in range(10))
        scores = [diversity(real, fake, k) for real, fake in pairs]
        coverage = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
        asymmetry = abs(_mean(scores, "precision") - _mean(scores, "recall"))
        yield close(f"coverage of equal distributions, k={k}", _mean(scores, "coverage"), coverage, abs=0.006)
        yield close(f"density of equal distributions, k={k}", _mean(scores, "density"), 1, abs=0.03)
        yield close(f"precision equals recall for equal distributions, k={k}", asymmetry, 0, abs=0.02)
    real = torch.randn(n, 16, generator=seeded_rng(), dtype=torch.float64)
    for which, fake, expected in (
        ("collapsed", real.flip(0) / 100, [1, 0]),
        ("distant", real + 99, [0, 0]),
        ("too wide", real.flip(0) * 100, [0, 1]),
    ):
        score = diversity(real, fake, 5)
        actual = [score["precision"], score["recall"]]
        yield close(f"precision and recall of {which} samples", actual, expected, abs=0.05)
    real, fake = torch.randn(2, 60, 3, generator=seeded_rng(), dtype=torch.float64)
    fake = fake * 2 + 0.5
    by_counting = _prdc_by_counting(real, fake, 3)
    score = diversity(real, fake, 3)
    actual = [score[name] for name in by_counting]
    yield close("all four agree with loops over pairs", actual, list(by_counting.values()), rel=1e-9)


def _prdc_by_counting(real: Tensor, fake: Tensor, k: int) -> dict[str, float]:
    n = len(real)
    real_radii, fake_radii = _radii(real, k), _radii(fake, k)
    in_real_ball = np.zeros((n, n), dtype=bool)  # [i, j]: fake j lies in the ball of real i
    in_fake_ball = np.zeros((n, n), dtype=bool)  # [i, j]: real i lies in the ball of fake j
    for i in range(n):
        for j in range(n):
            distance = float((real[i] - fake[j]).norm())
            in_real_ball[i, j] = distance <= real_radii[i]
            in_fake_ball[i, j] = distance <= fake_radii[j]
    return {
        "precision": float(in_real_ball.any(0).mean()),
        "recall": float(in_fake_ball.any(1).mean()),
        "density": float(in_real_ball.sum() / (k * n)),
        "coverage": float(in_real_ball.any(1).mean()),
    }


def _radii(x: Tensor, k: int) -> list[float]:
    """Return each sample's distance to its k-th nearest neighbor; the nearest of all is the sample itself."""
    return [sorted(_distances(a, x))[k] for a in x]


def _mean(scores: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([score[name] for score in scores]))


def memorization_ratio(memorization: Callable[..., dict[str, Any]] = memorization) -> Checks:
    close = partial(check_close, "metrics", "memorization")
    train, test, new = torch.randn(3, 1000, 8, generator=seeded_rng(), dtype=torch.float64)
    yield close("0 for copies of training data", memorization(train, train, test)["memorization"], 0, abs=0)
    ratio = memorization(new, train, test)["memorization"]
    yield close("1 for new data, with equally many for training and held out", ratio, 1, abs=0.05)
    some_copies = torch.cat([train[:30], new[:31]])
    to_train, to_test = (_nearest_distances(some_copies, kind[:80]) for kind in (train, test))
    ratio = memorization(some_copies, train[:80], test[:80])["memorization"]
    yield close("some copies, by loops over pairs", ratio, np.median(to_train) / np.median(to_test), rel=1e-6)
    held_out_copies = torch.cat([train[:400], test[:600]])
    has_reason = "memorization_why" in memorization(held_out_copies, train, test)
    description = "copies of held-out data: no value, with a reason"
    yield check_true("metrics", "memorization", description, has_reason)


def _nearest_distances(x: Tensor, y: Tensor) -> list[float]:
    return [min(_distances(a, y)) for a in x]


def _distances(point: Tensor, others: Tensor) -> list[float]:
    return [float((point - other).norm()) for other in others]


def inception(score: Callable[[Tensor], dict[str, Any]] = inception_score) -> Checks:
    """Compare with exp of the mutual information of sample and class, which a noisy channel has in closed form."""
    close = partial(check_close, "metrics", "Inception Score")
    k, n = 8, 640
    which = torch.arange(n) % k
    sure = 1e4 * nn.functional.one_hot(which, k).double()
    yield close(
        "1 where all samples are of the same classes",
        score(torch.randn(k).repeat(n, 1))["inception_score"],
        1,
        rel=1e-6,
    )
    yield close("k for sure classes in equal shares", score(sure)["inception_score"], k, rel=1e-9)
    p = 0.6  # of the sample's own class; the others share the rest
    noisy = torch.full_like(sure, math.log((1 - p) / (k - 1))).masked_fill(sure > 0, math.log(p))
    expected = k * p**p * ((1 - p) / (k - 1)) ** (1 - p)
    yield close("k times exp(-entropy) for unsure classes", score(noisy)["inception_score"], expected, rel=1e-9)
    sorted_by_part = 1e4 * nn.functional.one_hot(torch.arange(n) * 10 // n % k, k).double()
    yield close("1 if every tenth is of one class", score(sorted_by_part)["inception_score"], 1, rel=1e-9)


def references(make: Callable[..., ImageMetric] = ImageMetric) -> Checks:
    """Compare each reference with a distance that is computed here, from the images that it names."""
    close = partial(check_close, "metrics", "reference")
    train, held_out, fake = torch.randint(0, 256, (3, 90, 1, 4, 4), generator=seeded_rng()).to(torch.uint8)
    train, held_out = train // 2, held_out // 3
    real = {"train": train, "held_out": held_out, "all": torch.cat([train, held_out])}
    data = datasets.Data(train, held_out)
    for reference, images in real.items():
        metric = _pixel_metric(data, make, n_real=len(images) - 10, reference=reference)
        expected = distance_by_sqrtm(*(moments(x.flatten(1)) for x in (images[:-10], fake)))
        yield close(f"{reference}: the distance to these images", metric(fake)["fd"], expected, rel=1e-6)
        ratio = memorization(*(x.flatten(1).double() for x in (fake, train, held_out)))["memorization"]
        whole = _pixel_metric(data, make, n_real=None, reference=reference)
        yield close(f"{reference}: memorization is of training images", whole(fake)["memorization"], ratio, rel=1e-9)
    of_reals = {"train": held_out[:40], "held_out": train[:40]}
    for reference, images in of_reals.items():
        metric = _pixel_metric(data, make, n_real=None, reference=reference)
        expected = distance_by_sqrtm(*(moments(x.flatten(1)) for x in (real[reference], images)))
        yield close(f"{reference}: real data are the others", metric.real_reference["fd"], expected, rel=1e-6)


def ring_and_grid(diversity: Diversity = diversity) -> Checks:
    """Score samples of the mixture itself: all modes, 1 - e^(-9/2) within three deviations, KL (K-1)/2n."""
    close = partial(check_close, "metrics", "modes")
    ring, grid = datasets.ring(n=50_000), datasets.grid(n=50_000)
    for name, mixture, n_modes in (("ring", ring, 8), ("grid", grid, 25)):
        parts = mixture.train.split(2500)
        metric = _modes_metric(mixture)
        scores = [metric(part) for part in parts]
        kl, error = (n_modes - 1) / 5000, 3 * math.sqrt(2 * (n_modes - 1) / len(parts)) / 5000
        share = 1 - math.exp(-4.5)
        yield close(f"{name}: modes of a perfect sampler", [score["modes"] for score in scores], n_modes, abs=0)
        yield close(f"{name}: share within three deviations", _mean(scores, "high_quality"), share, abs=0.002)
        yield close(f"{name}: KL from equal shares", _mean(scores, "modes_kl"), kl, abs=error)
    metric = _modes_metric(grid)
    assert grid.modes is not None
    which = torch.cdist(grid.train, grid.modes.centers).argmin(1)
    for n_modes in (13, 1):
        partial_sample = grid.train[which < n_modes].repeat(25, 1)[:2500]
        noise = torch.randn(partial_sample.shape, generator=seeded_rng())
        partial_sample = partial_sample + 1e-3 * noise  # so that no two are equal
        score = diversity(metric.real.double(), partial_sample.double(), 5)
        found_modes = metric(partial_sample)["modes"]
        actual = [score["coverage"], score["recall"]]
        yield close(f"grid: modes of a sampler of {n_modes} of 25", found_modes, n_modes, abs=0)
        yield close(f"grid: coverage and recall of a sampler of {n_modes} of 25", actual, n_modes / 25, abs=0.03)


def _modes_metric(mixture: datasets.Data) -> ModesMetric:
    return ModesMetric("energy_distance", n_fake=2500, n_real=2500, k_neighbors=5, data=mixture, device=CPU)


def stacked_modes() -> Checks:
    """Score 26,000 samples of 1,000 modes in equal shares: all appear, and KL is (K-1)/2n = 0.0192."""
    close = partial(check_close, "metrics", "stacked modes")
    samples = [torch.randint(1000, (26_000,), generator=seeded_rng(k)) for k in range(40)]
    kl = _mean([mode_scores(x, 1000) for x in samples], "modes_kl")
    yield close("KL of a perfect sampler", kl, 999 / 52_000, rel=0.05)
    yield close("modes of a perfect sampler", [x.unique().numel() for x in samples], 1000, abs=0)
    kl_of_100 = mode_scores(torch.arange(26_000) % 100, 1000)["modes_kl"]
    yield close("KL with 100 of 1,000 modes in equal shares", kl_of_100, math.log(10), rel=1e-9)


def no_value() -> Checks:
    """Check that a score without a meaning is None with a reason, never a number that stands for something else."""
    images = torch.randint(0, 256, (64, 1, 4, 4), generator=seeded_rng()).to(torch.uint8)
    metric = _pixel_metric(datasets.Data(images, images[:40]))
    not_finite = torch.full((40, 16), math.nan, dtype=torch.float64)
    rounded = torch.ones(301, 16, dtype=torch.float64)
    rounded[250:] += 1e-7
    for description, scores, reason in (
        ("fewer samples than features", metric(images[:16]), "16 samples cannot span 16 features"),
        ("features that are not finite", metric.scores(not_finite), "features are not finite"),
        ("a constant generator", metric(images[:1].repeat(40, 1, 1, 1)), "all 40 samples are the same"),
        ("a constant generator, rounded differently by batch", metric.scores(rounded), "all 301 samples are the same"),
    ):
        no_score = scores["fd"] is None and scores["fd_why"] == reason
        all_reasons = all(f"{name}_why" in scores for name, value in scores.items() if value is None)
        yield check_true("metrics", "no value", f"{description}: no value, with a reason", no_score and all_reasons)


def _pixel_metric(
    data: datasets.Data,
    make: Callable[..., ImageMetric] = ImageMetric,
    n_real: int | None = None,
    reference: str = "held_out",
) -> ImageMetric:
    """Return an image metric whose 16 features are the pixels."""
    return make(
        "fd", nn.Sequential(nn.Flatten(), _ToFloat()), n_fake=40, n_real=n_real, n_train=None, k_neighbors=5,
        n_subsets=0, data=data, device=CPU, reference=reference,
    )  # fmt: skip


class _ToFloat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float()
