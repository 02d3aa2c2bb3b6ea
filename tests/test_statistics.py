"""Statistics against closed forms, scipy and simulated reports."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from ganbench.report.compare import MIN_WIN_RATE, Method, compare_all, min_seeds_for_significance, verdict
from ganbench.report.load import Run
from ganbench.report.statistics import (
    bca_interval,
    holm,
    iqm,
    minimum_detectable_difference,
    paired_difference,
    performance_profile,
    proportion_interval,
    rank_probabilities,
    sign_flip,
)  # fmt: skip


def test_the_interquartile_mean() -> None:
    assert iqm([1, 2, 3, 4, 5, 6, 7, 800]) == pytest.approx(4.5)
    assert iqm([1, 2, 3, math.inf]) == pytest.approx(2.5)  # one mishap in four does not decide
    assert iqm([1, 2, math.inf, math.inf]) == math.inf


def test_the_interval_holds_what_it_should() -> None:
    """BCa of the interquartile mean of normals, 20 of each: near 95 % of intervals hold the center."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(150):
        low, high = bca_interval(rng.normal(size=20))
        covered.append(low <= 0 <= high)
    assert np.mean(covered) == pytest.approx(0.93, abs=0.05)
    assert bca_interval([1, 2, math.inf]) is None and bca_interval([1, 2]) is None and bca_interval([3, 3, 3]) == (3, 3)


def test_the_sign_flip_test_is_exact() -> None:
    """Against scipy's permutation test over all flips, and the least p of n seeds: 2 / 2^n."""
    difference = np.random.default_rng(1).normal(0.4, 1, 9)
    expected = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue
    assert sign_flip(difference) == pytest.approx(expected)
    for n in (3, 6, 10):
        assert sign_flip(np.arange(1, n + 1)) == pytest.approx(2 / 2**n)
    assert sign_flip(np.zeros(7)) == 1
    many = np.random.default_rng(2).normal(0.5, 1, 20)
    assert sign_flip(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.02)


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
    a, b = [1, 2, 3, 4, 5, math.inf], [2, 3, math.inf, 5, 6, math.inf]
    difference = paired_difference(a, b)
    assert difference.mean is None and difference.interval is None
    assert difference.win_rate == pytest.approx(5.5 / 6)
    ranks = np.array([3.5, 3.5, 6, 3.5, 3.5, 1]) * [1, 1, 1, 1, 1, 0]  # five wins, the one against inf the largest
    assert difference.p == pytest.approx(sign_flip(ranks))


def test_the_minimum_detectable_difference() -> None:
    """Four times in five, by the test that decides: at ten seeds near one standard deviation."""
    assert minimum_detectable_difference(1.0, 10, 0.05) == pytest.approx(1.0, abs=0.02)
    assert minimum_detectable_difference(3.0, 10, 0.05) == pytest.approx(
        3 * minimum_detectable_difference(1.0, 10, 0.05)
    )
    assert (
        minimum_detectable_difference(1.0, 9, 0.05 / 15) is None and minimum_detectable_difference(1.0, 5, 0.05) is None
    )
    rng = np.random.default_rng(1)
    for n, alpha in ((10, 0.05 / 15), (6, 0.05), (20, 0.05 / 15)):
        shift = minimum_detectable_difference(1.0, n, alpha)
        detected = [sign_flip(rng.normal(shift, 1, n)) < alpha for _ in range(400)]
        assert np.mean(detected) == pytest.approx(0.8, abs=0.06), n


def test_better_needs_the_mean_on_its_side() -> None:
    """A method that wins at most seeds by a little, and loses by far at the rest, is not better."""
    ours = np.array([0.0] * 9 + [60.0] * 6)
    theirs = np.array([1.0] * 9 + [0.0] * 6)
    (only,) = compare_all([method("a", ours), method("b", theirs)])
    assert only.p < 0.05 and only.difference.win_rate == 0.6 and not only.significant


def test_ranks_and_profiles() -> None:
    scores = np.array([[1.0, 2, 3, 4], [1.1, 2.1, 3.1, 4.1], [math.inf] * 4])
    chances = rank_probabilities(scores)
    assert chances[0].tolist() == [1, 0, 0] and chances[2].tolist() == [0, 0, 1]
    assert rank_probabilities(np.full((2, 4), math.inf)).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    alike = rank_probabilities(np.random.default_rng(0).normal(size=(2, 10)) * [[1], [1]])
    assert alike.sum(1) == pytest.approx([1, 1]) and 0.01 < alike[0, 0] < 0.99
    assert performance_profile([1, 2, 3, math.inf], [0.5, 2, 9]).tolist() == [0, 0.5, 0.75]


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
    assert (only.difference.mean, only.difference.win_rate, only.p, only.significant) == (0, 0.5, 1, False)
    sentences = verdict(methods, "fd")
    assert any(sentence.startswith("No significant difference between a and b") for sentence in sentences)
    assert not any("better" in sentence for sentence in sentences)


@pytest.mark.slow
def test_reports_of_no_difference_seldom_show_one() -> None:
    """Six methods alike at ten seeds, 200 times: in at most 5 % of reports is any of them called better."""
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(200):
        methods = [method(str(i), scores) for i, scores in enumerate(rng.normal(5, 1, (6, 10)))]
        methods.sort(key=lambda each: each.sort_key)
        false += any(comparison.significant for comparison in compare_all(methods))
    assert false / 200 <= 0.05


@pytest.mark.slow
def test_a_planted_difference_is_found() -> None:
    """One standard deviation at ten seeds, correlation 1/2: found in at least 80 % of reports of two methods.

    Paired t has a power of 0.803 there, so that nothing is to spare: 3,000 reports.
    """
    rng = np.random.default_rng(0)
    detected = []
    for _ in range(3000):
        shared, own = rng.normal(size=10), rng.normal(size=(2, 10))
        better, worse = (shared + own) / math.sqrt(2) + [[0], [1]]
        result = paired_difference(better, worse)
        detected.append(result.p < 0.05 and result.win_rate >= MIN_WIN_RATE)
    assert np.mean(detected) >= 0.8


def test_signs_are_enumerated() -> None:
    difference = np.array([0.5, -1.0, 2.0])
    sums = [abs(np.dot(signs, difference)) for signs in itertools.product((1, -1), repeat=3)]
    assert sign_flip(difference) == np.mean([s >= 1.5 for s in sums])
