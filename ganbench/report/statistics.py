"""Statistics of scores over seeds: arrays in, numbers out. Lower is better; a run without a score counts as inf.

One number serves order, gap, interval and test: the interquartile mean (IQM) over seeds. What is random is drawn from a
fixed seed, so that two reports on the same runs say the same.
"""

import math
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95
ALPHA = 0.05
MIN_WIN_RATE = 0.6  # the share of seeds at which the better method must win, in addition to the test
POWER = 0.8  # of the minimum detectable difference
RESAMPLES = 2_000
MIN_SEEDS_FOR_INTERVAL = 4  # the IQM of three is their median, for which no 95 % interval exists
MAX_SEEDS = 1_000
NUMBERS_OF_SEEDS = sorted({*range(1, 31), *(round(30 * 1.1**k) for k in range(1, 37)), MAX_SEEDS})
# By the number of seeds, what Yuen's error of a gap is multiplied by: without, his interval would hold the truth
# in up to 98 %. Of 200,000 draws, such that it does in at most 97 % for normal and log-normal scores (s = 1/2, 1) that
# correlate by 0, 1/4 and 1/2; then in no less than 94.7 %. Numbers between these are interpolated.
YUEN_SCALE = {
    4: 0.75, 5: 0.88, 6: 0.89, 7: 0.86, 8: 0.90, 9: 0.92, 10: 0.93, 11: 0.93, 12: 0.94, 13: 0.95, 14: 0.96, 15: 0.96,
    16: 0.97, 18: 0.985, 20: 0.99, 22: 1.0,
}  # fmt: skip
SIMULATED_CORRELATIONS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99)


def trimmed(n: int) -> int:
    """Return how many of n values the IQM leaves out at each end: the whole number nearest to a quarter of them."""
    return (n + 1) // 4


def center_name(n: int) -> str:
    """Name what the IQM of n values is."""
    return {1: "score", 2: "mean", 3: "median"}.get(n, "IQM")


def iqm(values: ArrayLike) -> np.ndarray:
    """Return the interquartile mean over the last axis: of the middle half, so that no lucky or failed seed decides."""
    ordered = np.sort(np.asarray(values, float), axis=-1)
    n = ordered.shape[-1]
    with np.errstate(invalid="ignore"):
        return ordered[..., trimmed(n) : n - trimmed(n)].mean(-1)


def iqm_interval(values: ArrayLike) -> tuple[float, float] | None:
    """Return a 95 % interval of the interquartile mean; None for fewer than four values, or if it would be infinite.

    Tukey and McLaughlin (1963): Student's t with the winsorized variance. It is widened by sqrt((n + 1) / (n - 1)),
    because of ten skewed values (log-normal with s = 1) it would hold the truth in less than 92 %.
    """
    values = np.asarray(values, float)
    n = len(values)
    widening = math.sqrt((n + 1) / (n - 1)) if n > 1 else 1.0
    return _t_interval(float(iqm(values)), widening * float(_standard_error(_winsorized(values), values)), n)


def _t_interval(center: float, error: float, n: int) -> tuple[float, float] | None:
    if n < MIN_SEEDS_FOR_INTERVAL or not math.isfinite(center) or not math.isfinite(error):
        return None
    half_width = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, _degrees_of_freedom(n)))
    return center - half_width, center + half_width


def _degrees_of_freedom(n: int) -> int:
    return n - 2 * trimmed(n) - 1


def _winsorized(values: np.ndarray) -> np.ndarray:
    """Replace what the IQM over the last axis leaves out by the nearest value that it keeps."""
    n = values.shape[-1]
    ordered = np.sort(values, axis=-1)
    lowest = ordered[..., trimmed(n), None]
    highest = ordered[..., n - 1 - trimmed(n), None]
    return np.clip(values, lowest, highest)


def _standard_error(winsorized: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the standard error of an IQM from winsorized values, or of a gap from their differences.

    NaN for too few values, and where winsorizing makes all of `values` equal that are not, as with scores that are
    whole numbers: then the error is not known, rather than zero.
    """
    n = winsorized.shape[-1]
    kept = n - 2 * trimmed(n)
    if n < MIN_SEEDS_FOR_INTERVAL:
        return np.full(winsorized.shape[:-1], math.nan)
    with np.errstate(invalid="ignore"):
        std = np.std(winsorized, axis=-1, ddof=1)
        is_unknown = (std == 0) & (values.max(-1) > values.min(-1))
        return np.where(is_unknown, math.nan, std) * math.sqrt((n - 1) / (kept * (kept - 1)))


class PairedDifference(NamedTuple):
    """How much worse b scored than a, at the same seeds."""

    n: int  # seeds
    gap: float | None  # iqm(b) - iqm(a); None if either is infinite
    interval: tuple[float, float] | None  # 95 %, of the gap
    p: float  # two-sided, of "the gap is 0"
    tested: float  # what was tested against 0, the gap or the wins beyond a half; positive if a is better
    win_rate: float  # share of seeds at which a is lower; ties count half
    std: float | None  # of the differences, as the test sees them; None where too many runs have no score
    correlation: float | None  # of a and b over seeds: the higher, the more pairing gains


def paired_difference(a: ArrayLike, b: ArrayLike) -> PairedDifference:
    """Compare two lists of scores in the same order of seeds.

    Where the gap or its standard error is not known, as when too many runs have no score, wins are tested instead.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    n = len(a)
    with np.errstate(invalid="ignore"):
        gap = float(iqm(b) - iqm(a))
    error = float(_gap_error(a, b))
    is_known = math.isfinite(gap) and math.isfinite(error)
    correlation = _correlation(a, b)
    win_rate = float(_win_rate(a, b))
    return PairedDifference(
        n=n,
        gap=gap if math.isfinite(gap) else None,
        interval=_t_interval(gap, error, n),
        p=float(_p_of_gap(gap, error, n)) if is_known or n < MIN_SEEDS_FOR_INTERVAL else sign_test(a, b),
        tested=gap if is_known else win_rate - 0.5,
        win_rate=win_rate,
        std=_std_of_difference(a, b, error, correlation),
        correlation=correlation,
    )


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return b - a; two runs without a score are equal."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, b - a)


def _std_of_difference(a: np.ndarray, b: np.ndarray, error: float, correlation: float | None) -> float | None:
    """Return the standard deviation with which normal scores would have the test's standard error.

    So runs that the IQM leaves out, such as one that diverged, count for no more here than they do there. Of fewer
    seeds than the test needs it is that of the differences.
    """
    n = len(a)
    if n < MIN_SEEDS_FOR_INTERVAL:
        with np.errstate(invalid="ignore"):
            std = float(np.std(_difference(a, b), ddof=1)) if n > 1 else math.nan
    else:
        std = error / _simulated(n, _nearest(correlation)).typical_error
    return std if math.isfinite(std) else None


def _gap_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the standard error of iqm(b) - iqm(a), paired over the last axis."""
    scale = np.interp(a.shape[-1], list(YUEN_SCALE), list(YUEN_SCALE.values()))
    with np.errstate(invalid="ignore"):
        return scale * _standard_error(_winsorized(b) - _winsorized(a), _difference(a, b))


def gap_test(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the two-sided p of "iqm(b) - iqm(a) is 0", paired over the last axis.

    Yuen's test for dependent samples (Wilcox 2012, section 5.9.5), with an error that YUEN_SCALE corrects; its interval
    is that of the gap. But p is never below 2 / 2^n, which is as much as n seeds can show without assumptions on their
    distribution: the probability that one method wins at all of them by chance.
    """
    return _p_of_gap(iqm(b) - iqm(a), _gap_error(a, b), a.shape[-1])


def _p_of_gap(gap: ArrayLike, error: ArrayLike, n: int) -> np.ndarray:
    """Return the p of gaps over n seeds, from their standard errors; 1 where an error is not known."""
    gap, error = np.abs(gap), np.asarray(error)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(gap / error, max(1, _degrees_of_freedom(n)))
    p = np.where(gap == 0, 1.0, p)
    p = np.where(np.isnan(p), 1.0, p)
    return np.clip(p, min(1.0, 2.0 ** (1 - n)), 1.0)


def _win_rate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.mean((a < b) + 0.5 * (a == b), axis=-1)


def sign_test(a: np.ndarray, b: np.ndarray) -> float:
    """Return the exact two-sided p of "a is lower as often as b"; seeds at which they are equal do not count."""
    wins, losses = int(np.sum(a < b)), int(np.sum(a > b))
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


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


def holm(p: list[float]) -> list[float]:
    """Correct p values for their number (Holm 1979)."""
    adjusted = [0.0] * len(p)
    highest = 0.0
    for smaller, i in enumerate(np.argsort(p, kind="stable")):  # so many p values are smaller
        highest = max(highest, min(1.0, (len(p) - smaller) * p[i]))
        adjusted[i] = highest
    return adjusted


def is_significant(p: float, tested: float, win_rate: float) -> bool:
    """Tell whether a method may be called better: by the test, and by the share of seeds at which it wins."""
    return p < ALPHA and tested > 0 and win_rate >= MIN_WIN_RATE


def minimum_detectable_difference(std: float, correlation: float | None, n: int, level: float) -> float | None:
    """Return the smallest true gap that n seeds show at this level in 80 % of reports, by the rule that decides.

    For normal scores whose paired differences have this standard deviation. None if n seeds cannot show any.
    """
    if 2.0 ** (1 - n) >= level or n < MIN_SEEDS_FOR_INTERVAL:
        return None
    return std * _detectable(n, level, _nearest(correlation))


def _nearest(correlation: float | None) -> float:
    return min(SIMULATED_CORRELATIONS, key=lambda each: abs(each - (correlation or 0.0)))


class _Reports(NamedTuple):
    """Simulated reports of normal scores of two equal methods, in standard deviations of their difference."""

    gaps: np.ndarray  # of the IQMs
    errors: np.ndarray  # the test's standard errors
    by_wins: np.ndarray  # the gap from which on the second method loses at enough seeds

    @property
    def typical_error(self) -> float:
        return float(np.sqrt(np.mean(self.errors**2)))


@cache
def _simulated(n: int, correlation: float) -> _Reports:
    reports = min(4000, max(1000, 200_000 // n))
    rng = np.random.default_rng(0)
    shared = math.sqrt(correlation) * rng.normal(size=(reports, n))
    a, b = (shared + math.sqrt(1 - correlation) * rng.normal(size=(reports, n)) for _ in range(2))
    by_wins = np.sort(a - b, axis=-1)[:, math.ceil(MIN_WIN_RATE * n) - 1]
    std = math.sqrt(2 - 2 * correlation)
    return _Reports((iqm(b) - iqm(a)) / std, _gap_error(a, b) / std, by_wins / std)


@cache
def _detectable(n: int, level: float, correlation: float) -> float:
    """Return that gap in standard deviations of the difference, by simulated reports.

    A gap shifts the scores of one method, which changes neither the test's standard error nor the order of the seeds'
    differences. So each report is significant from one gap on, and POWER of them are from that quantile of these gaps.
    """
    simulated = _simulated(n, correlation)
    critical = float(stats.t.isf(level / 2, _degrees_of_freedom(n)))
    by_test = critical * simulated.errors - simulated.gaps
    return float(np.quantile(np.maximum(by_test, simulated.by_wins), POWER))


def seeds_needed(gap: float, std: float, correlation: float | None, pairs: int) -> int | None:
    """Return the number of seeds from which on `gap` is detectable among so many pairs; None above MAX_SEEDS.

    Beyond 30 seeds in steps of a tenth. The next number must be enough, too: where the IQM comes to leave one more out
    at each end, as from 6 to 7 seeds, a seed more can show less.
    """

    def is_enough(n: int) -> bool:
        detectable = minimum_detectable_difference(std, correlation, n, ALPHA / max(pairs, 1))
        return detectable is not None and detectable <= gap

    # One after the other, since each number is simulated: few are needed where few seeds are.
    candidates = pairwise([*NUMBERS_OF_SEEDS, MAX_SEEDS])
    return next((n for n, following in candidates if is_enough(n) and is_enough(following)), None)


def min_seeds_for_significance(pairs: int) -> int:
    """Return how many seeds bring the least p, 2 / 2^n, below ALPHA after correction."""
    return math.floor(math.log2(2 * max(pairs, 1) / ALPHA)) + 1


def rank_probabilities(scores: np.ndarray) -> np.ndarray:
    """Return the probability [method, rank] of each rank by interquartile mean, over resampled seeds.

    `scores` is [methods, seeds].
    """
    n = scores.shape[1]
    resampled = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    means = np.stack([iqm(each[resampled]) for each in scores])  # [methods, resamples]; one by one, for their memory
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
