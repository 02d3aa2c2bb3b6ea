"""Statistics against closed forms, scipy and simulated reports."""

import math

import numpy as np
import pytest
from scipy import stats

from ganbench.report.compare import Method, compare_all, verdict
from ganbench.report.load import Run
from ganbench.report.statistics import (
    ALPHA,
    MIN_WIN_RATE,
    NUMBERS_OF_SEEDS,
    gap_test,
    holm,
    iqm,
    iqm_interval,
    min_seeds_for_significance,
    minimum_detectable_difference,
    paired_difference,
    performance_profile,
    proportion_interval,
    rank_probabilities,
    seeds_needed,
)

SEEDS = (4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 20)
# Distributions of scores, from standard normal values: the last is as skewed as scores of runs that nearly diverged.
SHAPES = {"normal": lambda z: z, "log-normal 1/2": lambda z: np.exp(z / 2), "log-normal 1": np.exp}


def true_iqm(shape: str) -> float:
    """Return the mean of the middle half of the distribution, by quadrature over its quantiles."""
    quantiles = 0.25 + 0.5 * (np.arange(10_000) + 0.5) / 10_000
    return float(SHAPES[shape](stats.norm.ppf(quantiles)).mean())


def test_the_interquartile_mean() -> None:
    assert iqm([1, 2, 3, 4, 5, 6, 7, 800]) == pytest.approx(4.5)
    assert iqm([1, 2, 3, math.inf]) == pytest.approx(2.5)  # one mishap in four does not decide
    assert iqm([1, 2, math.inf, math.inf]) == math.inf
    assert iqm([1, 2, 30]) == iqm([1, 2, math.inf]) == 2 and iqm([1, 4]) == 2.5 and iqm([7]) == 7
    for n in (4, 8, 12, 20):
        values = np.random.default_rng(n).normal(size=n)
        assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25))


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_hold_what_they_should(shape: str, n: int) -> None:
    rng = np.random.default_rng(n)
    covered = []
    for _ in range(2500):
        low, high = iqm_interval(SHAPES[shape](rng.normal(size=n)))
        covered.append(low <= true_iqm_of[shape] <= high)
    assert 0.92 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("n", [4, 6, 7, 10, 11, 20])
@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_of_gaps_hold_what_they_should(shape: str, n: int) -> None:
    """Scores of correlation 0.3 between methods; b is twice as wide as a, and higher."""
    rng = np.random.default_rng(n)
    covered = []
    for _ in range(1500):
        shared = math.sqrt(0.3) * rng.normal(size=n)
        a, b = (SHAPES[shape](shared + math.sqrt(0.7) * rng.normal(size=n)) for _ in range(2))
        low, high = paired_difference(a, 2 * b + 1).interval
        covered.append(low <= true_iqm_of[shape] + 1 <= high)
    assert 0.92 <= np.mean(covered) <= 0.97


true_iqm_of = {shape: true_iqm(shape) for shape in SHAPES}


def test_no_interval_where_none_holds() -> None:
    assert iqm_interval([1, 2]) is None and iqm_interval([1, 2, 3]) is None
    assert iqm_interval([1, 2, math.inf, math.inf]) is None and iqm_interval([3, 3, 3, 3]) == (3, 3)
    assert iqm_interval([1, 2, 3, math.inf]) == iqm_interval([1, 2, 3, 3])  # what the IQM leaves out, it does, too
    assert paired_difference([1, 2, 3], [2, 3, 4]).interval is None


def test_the_test_is_yuens() -> None:
    """By hand: six seeds, of which the IQM leaves out one at each end; so three degrees of freedom. Times its scale."""
    a, b = np.array([1.0, 2, 3, 4, 5, 9]), np.array([2.0, 4, 3, 7, 6, 6.5])
    wa, wb = np.array([2.0, 2, 3, 4, 5, 5]), np.array([3.0, 4, 3, 6.5, 6, 6.5])
    covariance = np.cov(wa, wb)
    error = 0.89 * math.sqrt(5 * (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) / (4 * 3))
    gap = (3 + 4 + 6 + 6.5) / 4 - (2 + 3 + 4 + 5) / 4
    assert gap_test(a, b) == pytest.approx(2 * stats.t.sf(gap / error, 3))
    difference = paired_difference(a, b)
    assert difference.gap == pytest.approx(gap) == pytest.approx(difference.tested)
    low, high = difference.interval
    assert (low + high) / 2 == pytest.approx(gap) and (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 3) * error)
    assert gap_test(b, a) == gap_test(a, b) and gap_test(a, a) == 1


def test_no_p_is_below_what_signs_can_show() -> None:
    for n in (1, 2, 3, 6, 10):
        a = np.arange(n, dtype=float)
        assert gap_test(a, a + 1000) == (2 / 2**n if n > 3 else 1)


def test_the_gap_is_the_difference_of_what_ranks() -> None:
    """The better method is never behind, and p and interval agree about 0."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        methods = sorted((method(str(i), scores) for i, scores in enumerate(rng.normal(5, 1, (3, 8)))), key=key)
        for comparison in compare_all(methods):
            difference = comparison.difference
            assert difference.gap == pytest.approx(comparison.worse.iqm - comparison.better.iqm) and difference.gap >= 0
            assert (difference.interval[0] > 0) == (difference.p < ALPHA)


def test_the_interval_of_a_share_is_exact() -> None:
    for hits in range(11):
        expected = stats.binomtest(hits, 10).proportion_ci(0.95, "exact")
        assert proportion_interval(hits / 10, 10) == pytest.approx((expected.low, expected.high))
    low, high = proportion_interval(0.25, 10)  # a tie
    assert proportion_interval(0.2, 10)[0] < low < proportion_interval(0.3, 10)[0] < high


def test_holm_corrects_in_steps() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1] and holm([]) == []


def test_pairs_with_runs_that_diverged() -> None:
    one = paired_difference([1, 2, 3, 4, 5, math.inf], [2, 3, math.inf, 5, 6, math.inf])
    assert one.win_rate == pytest.approx(5.5 / 6) and one.std is None
    assert one.gap is None and one.interval is None  # two of six have no score, and the IQM leaves out one
    assert one.p == pytest.approx(2 / 2**5) and one.tested > 0  # five wins and a tie, by the sign test
    few = paired_difference([0.0] * 10, [5.0] * 9 + [math.inf])
    assert few.gap == 5 and few.interval is None and few.p == 2 / 2**10  # how much 5 is certain is not known
    assert paired_difference([1.0, 2, 3, 4, 5, 6, 7, 8], [2.0, 4, 3, 7, 6, 6.5, 9, math.inf]).interval is not None


def test_equal_scores_but_for_some_have_no_interval() -> None:
    """As of a metric that counts. What winsorizing leaves is all equal: by itself that would say ± 0."""
    assert iqm_interval([25, 25, 25, 24, 25, 25, 20, 25]) is None
    pair = paired_difference([25.0] * 10, [24.0] * 8 + [25, 20])
    assert pair.gap == -1 and pair.interval is None and pair.p == 2 / 2**9 and pair.tested == pair.win_rate - 0.5 < 0
    certain = paired_difference([25.0] * 10, [24.0] * 10)
    assert certain.interval == (-1, -1) and certain.p == 2 / 2**10


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 0.4, 0.5])
@pytest.mark.parametrize(("methods", "n"), [(2, 8), (6, 10), (6, 20)])
def test_no_difference_is_shown_between_methods_that_diverge_alike(share: float, methods: int, n: int) -> None:
    """In at most 5 % of reports on equal methods, as long as each run diverges with this probability."""
    rng = np.random.default_rng(n)
    shown = 0
    for _ in range(400):
        scores = np.where(rng.random((methods, n)) < share, np.inf, rng.normal(5, 1, (methods, n)))
        by_rank = sorted((method(str(i), row) for i, row in enumerate(scores)), key=key)
        shown += any(comparison.significant for comparison in compare_all(by_rank))
    assert shown / 400 <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize(("gap", "pairs"), [(2.0, 1), (1.0, 15)])
def test_a_seed_more_than_needed_is_enough_too(gap: float, pairs: int) -> None:
    n = seeds_needed(gap, 1.0, 0.0, pairs)
    for more in (n, n + 1):
        assert minimum_detectable_difference(1.0, 0.0, more, ALPHA / pairs) <= gap


@pytest.mark.parametrize("n", [5, 10, 20])
def test_the_deviation_is_that_of_normal_scores(n: int) -> None:
    """On average; and one run that fell far out moves it by little."""
    rng = np.random.default_rng(n)
    found, with_outlier = [], []
    for _ in range(400):
        a, b = rng.normal(size=(2, n))
        found.append(paired_difference(a, 2 * b).std)
        b[0] += 1e6
        with_outlier.append(paired_difference(a, 2 * b).std)
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(math.sqrt(5), rel=0.1)
    assert 1 < np.median(with_outlier) / np.median(found) < 2


@pytest.mark.parametrize("correlation", [0.0, 0.5])
@pytest.mark.parametrize(("n", "pairs"), [(6, 1), (10, 1), (10, 15), (20, 15), (20, 780)])
def test_the_minimum_detectable_difference_is_detected(n: int, pairs: int, correlation: float) -> None:
    """In four of five reports, by the rule that decides, on noise of its own."""
    shift = minimum_detectable_difference(math.sqrt(2 - 2 * correlation), correlation, n, ALPHA / pairs)
    rng = np.random.default_rng(n + pairs)
    shared = math.sqrt(correlation) * rng.normal(size=(1500, 1, n))
    scores = shared + math.sqrt(1 - correlation) * rng.normal(size=(1500, 2, n)) + np.array([[0], [shift]])
    shown = []
    for a, b in scores:
        result = paired_difference(a, b)
        shown.append(result.p < ALPHA / pairs and result.tested > 0 and result.win_rate >= MIN_WIN_RATE)
    assert np.mean(shown) == pytest.approx(0.8, abs=0.035)


def test_what_no_number_of_seeds_so_few_can_show() -> None:
    assert minimum_detectable_difference(1.0, 0.0, 9, ALPHA / 15) is None
    assert minimum_detectable_difference(1.0, 0.0, 5, ALPHA) is None
    one = minimum_detectable_difference(1.0, 0.2, 10, ALPHA)
    assert minimum_detectable_difference(3.0, 0.2, 10, ALPHA) == pytest.approx(3 * one)


def test_the_seeds_that_a_gap_needs() -> None:
    for gap, pairs in ((2.0, 1), (1.0, 1), (1.0, 15), (0.3, 3)):
        n = seeds_needed(gap, 1.0, 0.0, pairs)
        assert minimum_detectable_difference(1.0, 0.0, n, ALPHA / pairs) <= gap
        one_step_fewer = NUMBERS_OF_SEEDS[NUMBERS_OF_SEEDS.index(n) - 1]
        fewer = minimum_detectable_difference(1.0, 0.0, one_step_fewer, ALPHA / pairs)
        assert fewer is None or fewer > gap
    assert seeds_needed(0.001, 1.0, 0.0, 1) is None


def test_a_difference_of_many_methods_is_shown() -> None:
    """With 33 methods there are 528 pairs; 17 seeds show a large difference among them."""
    scores = np.random.default_rng(0).normal(5, 1, (33, 17)) + np.array([[0.0]] + [[20.0]] * 32)
    comparisons = compare_all([method(f"{i:02}", each) for i, each in enumerate(scores)])
    with_first = [comparison for comparison in comparisons if comparison.better.label == "00"]
    assert len(comparisons) == 528 and all(comparison.significant for comparison in with_first)
    detectable = with_first[0].minimum_detectable_difference(528)
    assert detectable is not None and 1 < detectable / with_first[0].difference.std < 4


def test_better_needs_the_gap_on_its_side() -> None:
    """A method that wins at most seeds by a little, and loses by far at the rest, is not better."""
    ours = np.array([0.0] * 9 + [60.0] * 6)
    theirs = np.array([1.0] * 9 + [0.0] * 6)
    (only,) = compare_all([method("a", ours), method("b", theirs)])
    assert only.difference.win_rate == 0.6 and only.difference.tested < 0 and not only.significant


def test_ranks_and_profiles() -> None:
    scores = np.array([[1.0, 2, 3, 4], [1.1, 2.1, 3.1, 4.1], [math.inf] * 4])
    chances = rank_probabilities(scores)
    assert chances[0].tolist() == [1, 0, 0] and chances[2].tolist() == [0, 0, 1]
    assert rank_probabilities(np.full((2, 4), math.inf)).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    alike = rank_probabilities(np.random.default_rng(0).normal(size=(2, 10)) * [[1], [1]])
    assert alike.sum(1) == pytest.approx([1, 1]) and 0.01 < alike[0, 0] < 0.99
    assert performance_profile([1, 2, 3, math.inf], [0.5, 2, 9]).tolist() == [0, 0.5, 0.75]


def key(each: Method) -> tuple:
    return each.sort_key


def method(label: str, scores: np.ndarray) -> Method:
    return Method(label, [
        Run(None, "finished", label=label, seed=seed, metric="fd", facts={"score": float(score), "t_train": 1.0})
        for seed, score in enumerate(scores)
    ])  # fmt: skip


def test_seeds_needed_for_significance() -> None:
    assert [min_seeds_for_significance(pairs) for pairs in (1, 3, 15)] == [6, 7, 10]
    for pairs in (1, 3, 15):
        n = min_seeds_for_significance(pairs)
        assert holm([2 / 2**n] + [1.0] * (pairs - 1))[0] < 0.05 <= holm([2 / 2 ** (n - 1)] + [1.0] * (pairs - 1))[0]


def test_a_loss_against_itself() -> None:
    """The same scores under two names: a difference of exactly zero, no verdict."""
    scores = np.random.default_rng(0).normal(5, 1, 10)
    methods = [method("a", scores), method("b", scores)]
    (only,) = compare_all(methods)
    assert (only.difference.gap, only.difference.win_rate, only.p, only.significant) == (0, 0.5, 1, False)
    sentences = verdict(methods, "fd", [only], {"a": 1.0, "b": math.inf})
    assert any(sentence.startswith("No significant difference between a and b") for sentence in sentences)
    assert not any("better" in sentence for sentence in sentences)


@pytest.mark.slow
def test_reports_of_no_difference_seldom_show_one() -> None:
    """Six methods alike at ten seeds, 400 times: in at most 5 % of reports is any of them called better."""
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(400):
        methods = [method(str(i), scores) for i, scores in enumerate(rng.normal(5, 1, (6, 10)))]
        methods.sort(key=key)
        false += any(comparison.significant for comparison in compare_all(methods))
    assert false / 400 <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("correlation", "power"), [(0.0, 0.72), (0.5, 0.64)])
def test_a_planted_difference_is_found(correlation: float, power: float) -> None:
    """One standard deviation of the paired difference at ten seeds, in reports of two methods: as README says."""
    rng = np.random.default_rng(0)
    shown = []
    for _ in range(3000):
        shared = math.sqrt(correlation) * rng.normal(size=10)
        better, worse = (shared + math.sqrt(1 - correlation) * rng.normal(size=10) for _ in range(2))
        result = paired_difference(better, worse + math.sqrt(2 - 2 * correlation))
        shown.append(result.p < ALPHA and result.win_rate >= MIN_WIN_RATE)
    assert np.mean(shown) == pytest.approx(power, abs=0.03)
