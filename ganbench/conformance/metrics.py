"""Metrics on distributions of known distance, spread and modes."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.linalg
import torch
from scipy import stats
from torch import Tensor, nn

from ganbench import datasets
from ganbench.conformance.checks import Checks, check_close, check_true, run_checks, seeded_rng
from ganbench.metrics.frechet import Moments, distance, extrapolated, moments, root
from ganbench.metrics.images import ImageMetric
from ganbench.metrics.kid import kernel_distance
from ganbench.metrics.modes import ModesMetric, energy_distance, mode_scores
from ganbench.metrics.prdc import diversity, memorisation


def check() -> Checks:
    checks = (frechet, frechet_bias, kernel, energy, neighbours, copies, ring_and_grid, thousand_modes, no_value)
    for one in checks:
        yield from run_checks("metric", one.__name__, [one])


frechet_row = partial(check_close, "metrics", "frechet")


def frechet(distance: Callable[..., float] = distance, d: int = 64) -> Checks:
    """|m|^2 + sum (sqrt a - sqrt b)^2 for covariances that commute; and the matrix square root where they do not."""
    zero, one, eye = torch.zeros(d).double(), torch.ones(d).double(), torch.eye(d).double()
    a, b = torch.rand(2, d, generator=seeded_rng(), dtype=torch.float64) * 3
    turn, _ = torch.linalg.qr(torch.randn(d, d, generator=seeded_rng(), dtype=torch.float64))
    diagonal = Moments(9, zero, a.diag()), Moments(9, one, b.diag())
    turned = [Moments(9, turn @ m.mean, turn @ m.cov @ turn.T) for m in diagonal]
    due = float(d + (a.sqrt() - b.sqrt()).square().sum())
    yield frechet_row(
        "N(0, I) to N(1, I) in 64 dimensions", distance(Moments(9, zero, eye), Moments(9, one, eye)), d, 1e-9
    )
    yield frechet_row("N(0, I) to N(0, 4I)", distance(Moments(9, zero, eye), Moments(9, zero, 4 * eye)), d, 1e-9)
    yield frechet_row(
        "diagonal covariances, both ways round", [distance(*diagonal), distance(*diagonal[::-1])], due, 1e-9
    )
    yield frechet_row("the same after a rotation", distance(*turned), due, 1e-9)
    yield frechet_row("of a sample to itself", distance(turned[0], turned[0]), 0, abs=1e-9)
    x, y = (moments(torch.randn(400, d, generator=seeded_rng(s), dtype=torch.float64) @ turn * (a + s)) for s in (1, 2))
    yield frechet_row("against the matrix square root", distance(x, y), by_sqrtm(x, y), 1e-6)


def by_sqrtm(a: Moments, b: Moments) -> float:
    """The distance by scipy's square root of a general matrix: the usual way, and a slow one."""
    product = scipy.linalg.sqrtm(a.cov.numpy() @ b.cov.numpy()).real
    return float((a.mean - b.mean).square().sum() + (a.cov + b.cov).trace() - 2 * np.trace(product))


def frechet_bias(distance: Callable[..., float] = distance, d: int = 16, n: int = 2000, times: int = 200) -> Checks:
    """n samples of N(0, I) score (d/n)(1 + (d+1)/4) against N(0, I) itself, to first order; and 0 for endless n."""
    truth = Moments(9, torch.zeros(d).double(), torch.eye(d).double())
    samples = [torch.randn(n, d, generator=seeded_rng(k), dtype=torch.float64) for k in range(times)]
    found = np.array([distance(truth, moments(x)) for x in samples])
    yield frechet_row("bias of 2,000 samples in 16 dimensions", found.mean(), d / n * (1 + (d + 1) / 4), rel=0.03)
    endless = np.array([extrapolated(truth, x, root(truth.cov)) for x in samples])
    error = 2 * endless.std(ddof=1) / math.sqrt(times)
    yield frechet_row("0 for endlessly many samples of the same", endless.mean(), 0, abs=error)


def kernel(kernel_distance: Callable[[Tensor, Tensor], float] = kernel_distance) -> Checks:
    """In one dimension (xy + 1)^3 gives 3 a^2 + 3 b^2 + c^2, with the differences of the first three moments."""
    x, y = (torch.randn(6000, 1, generator=seeded_rng(k), dtype=torch.float64) for k in range(2))
    row = partial(check_close, "metrics", "kid")
    due = 3 * 0.5**2 + 3 * 0.25**2 + (0.5**3 + 3 * 0.5) ** 2
    yield row("N(0,1) to N(0.5,1)", kernel_distance(x, y + 0.5), due, rel=0.1)
    same = [kernel_distance(*torch.randn(2, 300, 8, generator=seeded_rng(k), dtype=torch.float64)) for k in range(60)]
    yield row("0 on average for equal distributions", np.mean(same), 0, abs=3 * np.std(same, ddof=1) / math.sqrt(60))
    x, y = torch.randn(2, 50, 8, generator=seeded_rng(), dtype=torch.float64)
    yield row("against loops over pairs", kernel_distance(x, y + 1), _by_pairs(x, y + 1), rel=1e-9)


def _by_pairs(x: Tensor, y: Tensor) -> float:
    def mean(a: Tensor, b: Tensor, same: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return float(np.mean([(float(a[i] @ b[j]) / a.shape[1] + 1) ** 3 for i, j in pairs]))

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def energy() -> Checks:
    """2 E|N(m, 2)| - 2 E|N(0, 2)| for N(0,1) and N(m,1), by the folded normal's mean."""
    x, y = torch.randn(2, 4000, 1, generator=seeded_rng()).double()
    due = 2 * _folded(1.5) - 2 * _folded(0)
    yield check_close("metrics", "energy", "N(0,1) to N(1.5,1)", energy_distance(x, y + 1.5), due, rel=0.05)
    yield check_close("metrics", "energy", "0 for equal distributions", energy_distance(x, y), 0, abs=0.005)


def _folded(m: float, s: float = math.sqrt(2)) -> float:
    return float(s * math.sqrt(2 / math.pi) * math.exp(-((m / s) ** 2) / 2) + m * (1 - 2 * stats.norm.cdf(-m / s)))


def neighbours(diversity: Callable[..., dict] = diversity, n: int = 1000) -> Checks:
    """Equal distributions: density 1, coverage 1 - prod (n-i)/(2n-i) over i = 1..k, both exact in expectation."""
    row = partial(check_close, "metrics", "diversity")
    for k in (3, 5):
        found = [diversity(*torch.randn(2, n, 16, generator=seeded_rng(s), dtype=torch.float64), k) for s in range(10)]
        due = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
        yield row(f"coverage of equal distributions, k={k}", _mean(found, "coverage"), due, abs=0.006)
        yield row(f"density of equal distributions, k={k}", _mean(found, "density"), 1, abs=0.03)
        apart = abs(_mean(found, "precision") - _mean(found, "recall"))
        yield row(f"precision less recall of equal distributions, k={k}", apart, 0, abs=0.02)
    x = torch.randn(n, 16, generator=seeded_rng(), dtype=torch.float64)
    collapsed, astray, wide = (diversity(x, y, 5) for y in (x.flip(0) / 100, x + 99, x.flip(0) * 100))
    for which, found, due in (
        ("collapsed", collapsed, [1, 0]),
        ("far away", astray, [0, 0]),
        ("too wide", wide, [0, 1]),
    ):
        yield row(f"precision and recall, {which}", [found["precision"], found["recall"]], due, abs=0.05)
    x, y = torch.randn(2, 60, 3, generator=seeded_rng(), dtype=torch.float64)
    found, due = diversity(x, y * 2 + 0.5, 3), _by_counting(x, y * 2 + 0.5, 3)
    yield row("all four, by counting", list(found.values()), list(due.values()), rel=1e-9)


def _by_counting(real: Tensor, fake: Tensor, k: int) -> dict[str, float]:
    n = len(real)
    ball = [[sorted(float((a - b).norm()) for b in kind)[k] for a in kind] for kind in (real, fake)]
    held = [[float((real[i] - fake[j]).norm()) <= ball[0][i] for i in range(n)] for j in range(n)]
    reached = [[float((real[i] - fake[j]).norm()) <= ball[1][j] for j in range(n)] for i in range(n)]
    precision, recall = (np.mean([any(row) for row in table]) for table in (held, reached))
    coverage = np.mean([any(column) for column in zip(*held, strict=True)])
    return {"precision": precision, "recall": recall, "density": np.sum(held) / (k * n), "coverage": coverage}


def _mean(found: list[dict], name: str) -> float:
    return float(np.mean([one[name] for one in found]))


def copies(memorisation: Callable[..., dict] = memorisation) -> Checks:
    train, test, new = torch.randn(3, 1000, 8, generator=seeded_rng(), dtype=torch.float64)
    row = partial(check_close, "metrics", "memorisation")
    found = memorisation(train, train, test)["memorisation"]
    yield row("of copies of training data", found, 0, abs=0)
    found = memorisation(new, train, test)["memorisation"]
    yield row("of new data, as many to train on as held out", found, 1, abs=0.05)
    some = torch.cat([train[:30], new[:31]])
    near, far = ([min(float((x - y).norm()) for y in kind[:80]) for x in some] for kind in (train, test))
    found = memorisation(some, train[:80], test[:80])["memorisation"]
    yield row("of some copies, by counting", found, np.median(near) / np.median(far), rel=1e-6)
    mixed = torch.cat([train[:400], test[:600]])
    why = memorisation(mixed, train, test)
    yield check_true("metrics", "memorisation", "none for copies of held-out data, and why", "memorisation_why" in why)


def ring_and_grid(diversity: Callable[..., dict] = diversity) -> Checks:
    """Samples of the mixture itself: all modes, 1 - e^(-9/2) of them within three deviations, KL (K-1)/2n."""
    row, parts = partial(check_close, "metrics", "modes"), 20
    for name, make, modes in (("ring", datasets.ring, 8), ("grid", datasets.grid, 25)):
        mixture = make(n=50_000)
        metric = ModesMetric("energy_distance", 2500, 2500, 5, mixture, torch.device("cpu"))
        found = [metric(part) for part in mixture.train.split(2500)]
        yield row(f"{name}: modes of a perfect sampler", [one["modes"] for one in found], modes, abs=0)
        yield row(f"{name}: share within three deviations", _mean(found, "high_quality"), 1 - math.exp(-4.5), abs=0.002)
        due, error = (modes - 1) / 5000, 3 * math.sqrt(2 * (modes - 1) / parts) / 5000
        yield row(f"{name}: KL of its modes from equal shares", _mean(found, "modes_kl"), due, abs=error)
    _, which = torch.cdist(mixture.train, mixture.modes.centres).min(1)
    for kept in (13, 1):
        some = mixture.train[which < kept].repeat(25, 1)[:2500]
        some = some + 1e-3 * torch.randn(some.shape, generator=seeded_rng())  # no two quite alike
        missing = diversity(metric.real.double(), some.double(), 5)
        yield row(f"grid: modes of a sampler of {kept} of 25", metric(some)["modes"], kept, abs=0)
        found = [missing["coverage"], missing["recall"]]
        yield row(f"grid: coverage and recall of a sampler of {kept} of 25", found, kept / 25, abs=0.03)


def thousand_modes() -> Checks:
    """Equal shares of 1,000 modes, 26,000 samples: all appear, and KL (K-1)/2n = 0.0192."""
    found = [torch.randint(1000, (26_000,), generator=seeded_rng(k)) for k in range(40)]
    row = partial(check_close, "metrics", "stacked modes")
    yield row(
        "KL of a perfect sampler", _mean([mode_scores(x, 1000) for x in found], "modes_kl"), 999 / 52_000, rel=0.05
    )
    yield row("modes of a perfect sampler", [x.unique().numel() for x in found], 1000, abs=0)
    few = torch.arange(26_000) % 100
    yield row("KL with 100 of 1,000 modes in equal shares", mode_scores(few, 1000)["modes_kl"], math.log(10), rel=1e-9)


def no_value() -> Checks:
    """A score without meaning is none, with a reason: never a number that stands for something else."""
    images = torch.randint(0, 256, (64, 1, 4, 4), generator=seeded_rng()).to(torch.uint8)
    features = nn.Sequential(nn.Flatten(), _Floats())
    metric = ImageMetric("fd", features, 40, None, None, 5, 0, datasets.Data(images, images[:40]), torch.device("cpu"))
    spoiled = torch.full((40, 16), math.nan, dtype=torch.float64)
    rounded = torch.ones(301, 16, dtype=torch.float64)
    rounded[250:] += 1e-7
    for claim, scores, why in (
        ("fewer samples than features", metric(images[:16]), "16 samples cannot span 16 features"),
        ("features that are not finite", metric.scores(spoiled), "features are not finite"),
        ("a constant generator", metric(images[:1].repeat(40, 1, 1, 1)), "all 40 samples are the same"),
        ("a constant generator, in batches that round", metric.scores(rounded), "all 301 samples are the same"),
    ):
        ok = scores["fd"] is None and scores["fd_why"] == why
        ok = ok and all(f"{k}_why" in scores for k, v in scores.items() if v is None)
        yield check_true("metrics", "no value", f"{claim}: none, and why", ok)


class _Floats(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float()
