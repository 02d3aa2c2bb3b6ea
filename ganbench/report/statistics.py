"""Statistics of scores over seeds: arrays in, numbers out. Lower scores are better; a run without one counts as inf.

Everything random is drawn from a fixed stream, so that a report made twice says the same.
"""

import itertools
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

LEVEL = 0.95
RESAMPLES = 10_000
MAX_EXACT_SEEDS = 16  # up to so many seeds all sign flips are tried; above, as many as RESAMPLES


def iqm(values: ArrayLike, axis: int = -1) -> np.ndarray:
    """Interquartile mean: of the middle half, so that neither luck nor a mishap in one seed decides."""
    with np.errstate(invalid="ignore"):
        return stats.trim_mean(np.asarray(values, float), 0.25, axis=axis)


def bca_interval(values: ArrayLike) -> tuple[float, float] | None:
    """95 % BCa interval of the interquartile mean; None for fewer than three values, or if one is infinite."""
    values = np.asarray(values, float)
    if len(values) < 3 or not np.isfinite(values).all():
        return None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (values,), iqm, n_resamples=RESAMPLES, confidence_level=LEVEL, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return (float(found.low), float(found.high)) if np.isfinite(found).all() else None


class Paired(NamedTuple):
    """b less a, over the seeds that both have: what a is better by, and how surely.

    The mean and its t interval are None where a run without a score takes part; the test then works on signed ranks.
    """

    n: int
    mean: float | None
    interval: tuple[float, float] | None
    p: float  # exact sign-flip test of "no difference", two-sided
    tested: float  # what the test looked at: that mean, or the mean of the signed ranks; above 0 if a is better
    wins: float  # share of seeds at which a is lower; ties count half
    deviation: float | None  # of the differences
    correlation: float | None  # of the two arms over seeds: what pairing gains


def paired(a: ArrayLike, b: ArrayLike) -> Paired:
    """Of two lists of scores in the same order of seeds."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    with np.errstate(invalid="ignore"):
        difference = np.where(a == b, 0.0, b - a)  # two runs without a score are alike
    wins, n = float(np.mean((difference > 0) + 0.5 * (difference == 0))), len(a)
    if not np.isfinite(difference).all():
        ranks = _signed_ranks(difference)
        return Paired(n, None, None, sign_flip(ranks), float(ranks.mean()), wins, None, None)
    deviation = float(np.std(difference, ddof=1)) if n > 1 else None
    spread = n > 2 and all(np.isfinite(x).all() and np.ptp(x) > 0 for x in (a, b))
    correlation = float(np.corrcoef(a, b)[0, 1]) if spread else None
    mean, p = float(difference.mean()), sign_flip(difference)
    return Paired(n, mean, t_interval(difference), p, mean, wins, deviation, correlation)


def proportion_interval(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n seeds (Clopper and Pearson 1934); a tie counts as half a seed."""
    hits, tail = share * n, (1 - LEVEL) / 2
    low = stats.beta.ppf(tail, hits, n - hits + 1) if hits else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, n - hits) if hits < n else 1.0
    return float(low), float(high)


def t_interval(values: ArrayLike) -> tuple[float, float] | None:
    """95 % t interval of the mean; None for fewer than two values."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return None
    error = stats.sem(values)
    low, high = stats.t.interval(LEVEL, len(values) - 1, values.mean(), error) if error else [values.mean()] * 2
    return float(low), float(high)


def sign_flip(difference: ArrayLike) -> float:
    """Two-sided p of the mean of paired differences under free choice of their signs; 1 for no differences at all."""
    difference = np.asarray(difference, float)
    n = len(difference)
    if n <= MAX_EXACT_SEEDS:
        signs = _all_signs(n)
    else:
        signs = np.random.default_rng(0).choice((1, -1), (RESAMPLES, n))
        signs[0] = 1
    reached = np.abs(signs @ difference) >= abs(difference.sum()) * (1 - 1e-12)
    return float(reached.mean())


@cache
def _all_signs(n: int) -> np.ndarray:
    return np.array(list(itertools.product((1, -1), repeat=n)))


def _signed_ranks(difference: np.ndarray) -> np.ndarray:
    return np.sign(difference) * stats.rankdata(np.abs(difference))


def holm(p: list[float]) -> list[float]:
    """p values corrected for their number (Holm 1979)."""
    adjusted, highest = [0.0] * len(p), 0.0
    for done, i in enumerate(np.argsort(p, kind="stable")):
        highest = max(highest, min(1.0, (len(p) - done) * p[i]))
        adjusted[i] = highest
    return adjusted


def minimum_detectable_difference(deviation: float, n: int, alpha: float) -> float | None:
    """The smallest true mean difference that n seeds show at level alpha four times in five, of normal differences.

    None where n seeds cannot show any, since the least p is 2 / 2^n.
    """
    if 2 / 2**n >= alpha:
        return None
    return deviation * (_shift_flipped(n, alpha) if n <= 12 else _shift_t(n, alpha))


@cache
def _shift_flipped(n: int, alpha: float) -> float:
    """In standard deviations, of the sign-flip test: at few seeds its steps are coarse, and t promises too much."""
    noise = np.random.default_rng(0).normal(size=(n, 4000))
    signs = _all_signs(n)[: 2 ** (n - 1)]  # the other half mirrors these

    def missed(shift: float) -> float:
        sums = np.abs(signs @ (noise + shift))
        return 0.8 - float(((sums >= sums[0] * (1 - 1e-12)).mean(0) < alpha).mean())

    return float(optimize.brentq(missed, 0, 50, xtol=1e-3))


def _shift_t(n: int, alpha: float) -> float:
    """In standard deviations, of the paired t test, which the sign-flip test is close to at more seeds."""
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    missed = lambda shift: stats.nct.sf(critical, n - 1, shift) - 0.8  # noqa: E731
    return float(optimize.brentq(missed, 0, 100 + 10 * critical) / np.sqrt(n))


def rank_probabilities(scores: np.ndarray) -> np.ndarray:
    """Of scores [arms, seeds]: the chance [arm, rank] of each rank by interquartile mean, over resampled seeds."""
    arms, n = scores.shape
    drawn = np.random.default_rng(0).integers(n, size=(RESAMPLES // 5, n))
    means = iqm(scores[:, drawn])
    means = np.nan_to_num(means, nan=np.inf)
    # Once from the front and once from the back, so that of arms that tie none gains by its place.
    both = [_ranks(means), _ranks(means[::-1])[:, ::-1]]
    counts = [[np.bincount(ranks[:, arm], minlength=arms) for arm in range(arms)] for ranks in both]
    return np.mean(counts, axis=0) / len(drawn)


def _ranks(means: np.ndarray) -> np.ndarray:
    """Of [arms, draws]: each arm's rank from 0, [draws, arms]."""
    return np.stack([stats.rankdata(column, method="ordinal") for column in means.T]).astype(int) - 1


def performance_profile(scores: ArrayLike, levels: ArrayLike) -> np.ndarray:
    """The share of runs whose score is at or below each level."""
    return (np.asarray(scores, float)[:, None] <= np.asarray(levels, float)).mean(0)
