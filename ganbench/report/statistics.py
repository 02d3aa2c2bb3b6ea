"""Statistics of scores over seeds: arrays in, numbers out. Lower is better; a run without a score counts as inf.

Everything random is drawn from a fixed seed, so that two reports on the same runs say the same.
"""

import itertools
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

CONFIDENCE = 0.95
POWER = 0.8  # of the minimum detectable difference
RESAMPLES = 10_000
MAX_EXACT_SEEDS = 16  # up to this many seeds all sign flips are tried; above, RESAMPLES random ones


def iqm(values: ArrayLike, axis: int = -1) -> np.ndarray:
    """Return the interquartile mean: the mean of the middle half, so that no single lucky or failed seed decides."""
    with np.errstate(invalid="ignore"):
        return stats.trim_mean(np.asarray(values, float), 0.25, axis=axis)


def bca_interval(values: ArrayLike) -> tuple[float, float] | None:
    """Return the 95 % BCa bootstrap interval of the interquartile mean (Efron 1987).

    None for fewer than three values, or if one is infinite.
    """
    values = np.asarray(values, float)
    if len(values) < 3 or not np.isfinite(values).all():
        return None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    rng = np.random.default_rng(0)
    result = stats.bootstrap(
        (values,), iqm, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="BCa", rng=rng
    )  # fmt: skip
    low, high = result.confidence_interval
    return (float(low), float(high)) if np.isfinite([low, high]).all() else None


class PairedDifference(NamedTuple):
    """How much worse b scored than a (b - a), over the seeds that both have.

    Where a run has no score, the differences have no mean; the test then uses their signed ranks.
    """

    n: int  # seeds
    mean: float | None
    interval: tuple[float, float] | None  # 95 % t interval of the mean
    p: float  # two-sided sign-flip test of "no difference"
    tested: float  # the mean of what was tested, differences or signed ranks; positive if a is better
    win_rate: float  # share of seeds at which a is lower; ties count half
    std: float | None  # of the differences
    correlation: float | None  # of a and b over seeds: the higher, the more pairing gains


def paired_difference(a: ArrayLike, b: ArrayLike) -> PairedDifference:
    """Compare two lists of scores in the same order of seeds."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    with np.errstate(invalid="ignore"):
        difference = np.where(a == b, 0.0, b - a)  # two runs without a score are equal
    n = len(difference)
    win_rate = float(np.mean((difference > 0) + 0.5 * (difference == 0)))
    if not np.isfinite(difference).all():
        ranks = _signed_ranks(difference)
        return PairedDifference(n, None, None, sign_flip(ranks), float(ranks.mean()), win_rate, None, None)
    mean = float(difference.mean())
    return PairedDifference(
        n,
        mean,
        t_interval(difference),
        sign_flip(difference),
        mean,
        win_rate,
        float(np.std(difference, ddof=1)) if n > 1 else None,
        _correlation(a, b),
    )


def _signed_ranks(difference: np.ndarray) -> np.ndarray:
    return np.sign(difference) * stats.rankdata(np.abs(difference))


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    if len(a) < 3 or not all(np.isfinite(x).all() and np.ptp(x) > 0 for x in (a, b)):
        return None
    return float(np.corrcoef(a, b)[0, 1])


def proportion_interval(share: float, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share of n seeds (Clopper and Pearson 1934).

    Ties count half, so there may be half a hit; scipy's binomtest takes only whole ones.
    """
    hits = share * n
    tail = (1 - CONFIDENCE) / 2
    low = stats.beta.ppf(tail, hits, n - hits + 1) if hits else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, n - hits) if hits < n else 1.0
    return float(low), float(high)


def t_interval(values: ArrayLike) -> tuple[float, float] | None:
    """Return the 95 % t interval of the mean; None for fewer than two values."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return None
    mean = values.mean()
    error = stats.sem(values)
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, mean, error) if error else (mean, mean)
    return float(low), float(high)


def sign_flip(difference: ArrayLike) -> float:
    """Return the two-sided p of the mean of paired differences, if each sign were equally likely; 1 if all are 0.

    Equal to scipy.stats.permutation_test, which takes forty times as long and refuses a single seed.
    """
    difference = np.asarray(difference, float)
    n = len(difference)
    if n <= MAX_EXACT_SEEDS:
        signs = _all_signs(n)
    else:
        signs = np.random.default_rng(0).choice((1, -1), (RESAMPLES, n))
        signs[0] = 1  # what was observed is one of the flips, so that p is never 0
    at_least_observed = np.abs(signs @ difference) >= abs(difference.sum()) * (1 - 1e-12)
    return float(at_least_observed.mean())


@cache
def _all_signs(n: int) -> np.ndarray:
    """Return all sign flips [2^n, n]; the first is all +1, and the second half mirrors the first."""
    return np.array(list(itertools.product((1, -1), repeat=n)))


def holm(p: list[float]) -> list[float]:
    """Correct p values for their number (Holm 1979)."""
    adjusted = [0.0] * len(p)
    highest = 0.0
    for smaller, i in enumerate(np.argsort(p, kind="stable")):  # so many p values are smaller
        highest = max(highest, min(1.0, (len(p) - smaller) * p[i]))
        adjusted[i] = highest
    return adjusted


def minimum_detectable_difference(std: float, n: int, alpha: float) -> float | None:
    """Return the smallest true mean difference that n seeds detect at level alpha with 80 % power.

    For normal differences of this standard deviation. None where n seeds cannot detect any, because the smallest
    possible p is 2 / 2^n.
    """
    if 2 / 2**n >= alpha:
        return None
    return std * (_detectable_by_sign_flip(n, alpha) if n <= 12 else _detectable_by_t(n, alpha))


@cache
def _detectable_by_sign_flip(n: int, alpha: float) -> float:
    """Return the mean shift, in standard deviations, at which the sign-flip test has 80 % power.

    By simulation, because at few seeds p takes few values and the t test would promise too much: of 4,000 samples of
    n standard normals plus the shift, count those with p < alpha. The same noise serves every shift, so the power is
    a function of the shift alone that grows with it, and bisection finds where it is 80 %.
    """
    noise = np.random.default_rng(0).normal(size=(n, 4000))
    signs = _all_signs(n)[: 2 ** (n - 1)]  # the other half gives the same absolute sums

    def power(shift: float) -> float:
        sums = np.abs(signs @ (noise + shift))  # [flips, samples]; the first flip is the sample as it is
        p = (sums >= sums[0] * (1 - 1e-12)).mean(0)
        return float((p < alpha).mean())

    return float(optimize.brentq(lambda shift: POWER - power(shift), 0, 50, xtol=1e-3))


def _detectable_by_t(n: int, alpha: float) -> float:
    """Return the same for the paired t test, which the sign-flip test comes close to at more seeds.

    Under a shift, t has a noncentral t distribution with noncentrality shift * sqrt(n).
    """
    critical = stats.t.ppf(1 - alpha / 2, n - 1)

    def power(noncentrality: float) -> float:
        return stats.nct.sf(critical, n - 1, noncentrality)

    root = optimize.brentq(lambda noncentrality: power(noncentrality) - POWER, 0, 100 + 10 * critical)
    return float(root / np.sqrt(n))


def rank_probabilities(scores: np.ndarray) -> np.ndarray:
    """Return the probability [method, rank] of each rank by interquartile mean, over resampled seeds.

    `scores` is [methods, seeds].
    """
    n = scores.shape[1]
    resampled = np.random.default_rng(0).integers(n, size=(RESAMPLES // 5, n))
    means = iqm(scores[:, resampled])  # [methods, resamples]
    means = np.nan_to_num(means, nan=np.inf)
    # Ranked in both orders of the methods, so that of methods that tie none gains by its place.
    ranks = _ranks(means)
    ranks_reversed = _ranks(means[::-1])[:, ::-1]
    counts = (_rank_counts(ranks) + _rank_counts(ranks_reversed)) / 2
    return counts / len(resampled)


def _ranks(means: np.ndarray) -> np.ndarray:
    """Rank means [methods, resamples] from 0; returns [resamples, methods]."""
    return np.stack([stats.rankdata(column, method="ordinal") for column in means.T]).astype(int) - 1


def _rank_counts(ranks: np.ndarray) -> np.ndarray:
    """Count how often each method has each rank: [methods, ranks]."""
    methods = ranks.shape[1]
    return np.stack([np.bincount(ranks[:, i], minlength=methods) for i in range(methods)])


def performance_profile(scores: ArrayLike, levels: ArrayLike) -> np.ndarray:
    """Return the share of runs whose score is at or below each level."""
    return (np.asarray(scores, float)[:, None] <= np.asarray(levels, float)).mean(0)
