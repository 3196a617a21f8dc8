"""Tests of `evaluation.statistics`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evaluation import statistics
from evaluation.statistics import (
    band,
    bootstrap,
    iqm,
    over_seeds,
    performance_profile,
    probability_of_improvement,
    summarize,
)

# Percentiles of two sets of 10,000 resamples differ by about 1 % of the width of the interval.
OF_WIDTH = 0.04
EXPERIMENTS = 300


def strata(*lists):
    return [np.array(scores, np.float64) for scores in lists]


def normal(*means, num=100, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(mean, size=num) for mean in means]


def assert_same_interval(ours, theirs):
    within = OF_WIDTH * (theirs.high - theirs.low)
    assert ours.low == pytest.approx(theirs.low, abs=within)
    assert ours.high == pytest.approx(theirs.high, abs=within)


@pytest.fixture
def few_resamples(monkeypatch):
    # These tests compute hundreds of intervals, each of which may be rough.
    monkeypatch.setattr(statistics, "_RESAMPLES", 500)
    monkeypatch.setattr(statistics, "_RESAMPLES_OF_PAIRS", 500)


def test_a_score_contains_statistics_of_the_returns():
    score = summarize(strata([1, 2, 3, 4], [5, 6, 7, 100]), 12.5)
    assert (score.episodes, score.mean, score.median) == (8, 16.0, 4.5)
    assert (score.min, score.max, score.mean_length) == (1.0, 100.0, 12.5)
    assert score.iqm == 4.5  # The mean of 3, 4, 5 and 6.
    assert score.seed_means == (2.5, 29.5)
    # The squares of deviations are 225 + 196 + 169 + 144 + 121 + 100 + 81 + 7056.
    assert score.std == pytest.approx((8092 / 7) ** 0.5)
    assert score.ci_low < score.mean < score.ci_high
    assert score.iqm_low < score.iqm < score.iqm_high
    assert score.as_dict() == dataclasses.asdict(score)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([7], 7), ([1, 5], 3), ([0, 3, 9], 4), ([90, 1, 2, -80], 1.5), ([1, 2, 3, 4, 5], 3)],
)
def test_the_iqm_ignores_a_quarter_of_the_values_on_either_side(values, expected):
    assert iqm(np.array(values, np.float64)) == expected


@pytest.mark.parametrize("num", [1, 3, 4, 7, 50])
def test_the_iqm_is_the_trimmed_mean_of_scipy(num):
    values = np.random.default_rng(num).normal(size=(3, num, 2))
    np.testing.assert_allclose(iqm(values, axis=1), stats.trim_mean(values, 0.25, axis=1))
    np.testing.assert_allclose(iqm(values[0, :, 0]), stats.trim_mean(values[0, :, 0], 0.25))


def test_bootstrap_intervals_equal_those_of_scipy():
    scores = np.random.default_rng(0).exponential(size=100)
    for statistic in (np.mean, iqm):
        theirs = stats.bootstrap(
            (scores,), statistic, n_resamples=10_000, method="percentile", rng=1
        )
        assert_same_interval(bootstrap([scores], statistic), theirs.confidence_interval)


def test_each_stratum_is_resampled_separately():
    low, high = normal(0, 10)
    high = np.append(high, 10)  # Different lengths: the episodes are not the same.
    stratified = bootstrap([low, high], np.mean)
    pooled = bootstrap([np.concatenate([low, high])], np.mean)
    assert stratified.estimate == pytest.approx(pooled.estimate)
    assert stratified.high - stratified.low < 0.5 * (pooled.high - pooled.low)
    theirs = stats.bootstrap(
        (low, high),
        lambda a, b, axis: (a.sum(axis=axis) + b.sum(axis=axis)) / 201,
        n_resamples=10_000,
        method="percentile",
        rng=1,
    )
    assert_same_interval(stratified, theirs.confidence_interval)


@pytest.mark.usefixtures("few_resamples")
def test_episodes_that_policies_have_in_common_are_resampled_together():
    # As in `basic`, where a monster that is far away lowers the return of every policy.
    rng = np.random.default_rng(0)
    hits, separately, times = 0, 0, 200
    for _ in range(times):
        difficulty = rng.normal(size=100)
        scores = [difficulty + 0.3 * own for own in rng.normal(size=(3, 100))]
        interval = bootstrap(scores, np.mean)
        hits += interval.low <= 0 <= interval.high
        half = 1.96 * np.concatenate(scores).std() / 300**0.5  # Width for 300 independent episodes.
        separately += abs(interval.estimate) <= half
    assert hits >= stats.binom.ppf(0.001, times, 0.94)
    assert separately < 0.8 * times
    shared = probability_of_improvement([difficulty] * 3, normal(0))
    assert shared == probability_of_improvement([difficulty], normal(0))
    levels = np.array([0.0])
    assert performance_profile([difficulty] * 3, levels) == performance_profile(
        [difficulty], levels
    )


def test_intervals_over_seeds_equal_students_t():
    means = [80.0, 82.0, 79.0]
    interval, theirs = over_seeds(means), stats.ttest_1samp(means, 0).confidence_interval()
    assert interval.estimate == pytest.approx(np.mean(means))
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high))
    score = summarize(strata(*([mean] for mean in means)), 1.0)
    assert (score.seeds_low, score.seeds_high) == (interval.low, interval.high)
    assert summarize(strata([1, 2, 3]), 1.0).seeds_low is None
    alike = over_seeds([500.0] * 3)
    assert alike.low == alike.high == 500


@pytest.mark.parametrize("ratio", [0, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_intervals_over_seeds_have_the_stated_coverage(seeds, ratio):
    rng, times = np.random.default_rng(seeds), 2000
    means = (
        rng.normal(size=(times, seeds, 100)) + ratio * rng.normal(size=(times, seeds, 1))
    ).mean(2)
    hits = sum(i.low <= 0 <= i.high for i in map(over_seeds, means))
    assert abs(hits - 0.95 * times) <= 3.3 * (0.95 * 0.05 * times) ** 0.5


def test_a_seed_with_one_episode_is_resampled_with_the_others():
    alone, many = strata([3.0]), normal(0)
    assert bootstrap(alone + many, np.mean) == bootstrap([np.concatenate(alone + many)], np.mean)
    pair = summarize(strata([1], [2]), 1.0)
    assert (pair.ci_low, pair.mean, pair.ci_high) == (1.0, 1.5, 2.0)
    ours = probability_of_improvement(strata([1], [3]), strata([2], [2]))
    assert (ours.low, ours.estimate, ours.high) == (0.0, 0.5, 1.0)


def has_stated_coverage(hits):
    # The coverage of the percentile bootstrap of 100 scores may differ from 95 % by a point.
    low = stats.binom.ppf(0.001, EXPERIMENTS, 0.94)
    high = stats.binom.ppf(0.999, EXPERIMENTS, 0.96)
    return low <= hits <= high


DISTRIBUTIONS = {
    "normal": [stats.norm()],
    "skewed": [stats.gamma(3)],
    "three seeds": [stats.norm(0), stats.norm(3), stats.gamma(3, loc=4)],
}


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("statistic", [np.mean, iqm])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_intervals_have_the_stated_coverage(name, statistic):
    quantiles = (np.arange(100_000) + 0.5) / 100_000
    truth = statistic(np.concatenate([d.ppf(quantiles) for d in DISTRIBUTIONS[name]]))
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(EXPERIMENTS):
        scores = [d.rvs(100, random_state=rng) for d in DISTRIBUTIONS[name]]
        interval = bootstrap(scores, statistic)
        hits += interval.low <= truth <= interval.high
    assert has_stated_coverage(hits), hits / EXPERIMENTS


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("means", [[0.3], [0.0, 1.0, 5.0]])
def test_intervals_of_probabilities_have_the_stated_coverage(means):
    truth = stats.norm.cdf(np.array(means) / 2**0.5).mean()
    hits = 0
    for i in range(EXPERIMENTS):
        ours = normal(*means, seed=2 * i)
        interval = probability_of_improvement(ours, normal(0, seed=2 * i + 1))
        hits += interval.low <= truth <= interval.high
    assert has_stated_coverage(hits), hits / EXPERIMENTS


def test_probabilities_count_pairs_where_ties_count_half():
    # Of 6 pairs, 3 are won (2 and 1, 3 and 1, 3 and 2), 1 is a tie, and 2 are lost.
    assert probability_of_improvement(strata([2, 3, 0]), strata([1, 2])).estimate == 3.5 / 6
    assert probability_of_improvement(strata([2, 3], [0]), strata([1], [2])).estimate == 3.5 / 6
    assert probability_of_improvement(strata([1, 1]), strata([1, 1, 1])).estimate == 0.5


def test_probabilities_are_the_mann_whitney_statistic():
    ours, theirs = normal(0.2, seed=1)[0].round(1), normal(0, num=70, seed=2)[0].round(1)
    interval = probability_of_improvement([ours], [theirs])

    def share(a, b, axis):
        return stats.mannwhitneyu(a, b, axis=axis).statistic / (100 * 70)

    assert interval.estimate == pytest.approx(share(ours, theirs, 0))
    theirs = stats.bootstrap(
        (ours, theirs), share, n_resamples=2_000, batch=500, method="percentile", rng=1
    )
    # With a fifth of the resamples, percentiles differ 2.2 times as much.
    within = 2.2 * OF_WIDTH * (interval.high - interval.low)
    assert interval.low == pytest.approx(theirs.confidence_interval.low, abs=within)
    assert interval.high == pytest.approx(theirs.confidence_interval.high, abs=within)


def test_intervals_of_probabilities_are_stratified_by_seed():
    ours, theirs = normal(0, 10, seed=1), normal(-1, 9, seed=2)
    stratified = probability_of_improvement(ours, theirs)
    pooled = probability_of_improvement([np.concatenate(ours)], [np.concatenate(theirs)])
    assert stratified.estimate == pooled.estimate
    assert stratified.high - stratified.low < 0.5 * (pooled.high - pooled.low)


scores = st.lists(st.integers(-3, 3), min_size=1, max_size=8)


@given(ours=st.lists(scores, min_size=1, max_size=3), theirs=scores)
def test_shares_of_resamples_equal_counts_of_their_pairs(ours, theirs):
    ours, theirs = np.concatenate(strata(*ours)), np.array(theirs, np.float64)
    rng = np.random.default_rng(0)
    pick = rng.integers(len(ours), size=len(ours))
    their_pick = rng.integers(len(theirs), size=len(theirs))
    shares = statistics._share_above(
        ours,
        theirs,
        np.bincount(pick, minlength=len(ours))[None],
        np.bincount(their_pick, minlength=len(theirs))[None],
    )
    pairs = np.sign(ours[pick][:, None] - theirs[their_pick])
    assert shares == pytest.approx([(pairs.mean() + 1) / 2])


def test_profiles_are_the_share_above_each_threshold():
    thresholds = np.array([-1, 0, 1, 1.5, 2, 3, 9])
    share, low, high = performance_profile(strata([0, 1, 2], [2, 3]), thresholds)
    np.testing.assert_array_equal(share, [1, 0.8, 0.6, 0.6, 0.2, 0, 0])
    assert ((low <= share) & (share <= high)).all()
    np.testing.assert_array_equal(low[[0, -1]], high[[0, -1]])


def test_bands_of_profiles_equal_those_of_scipy():
    (scores,) = normal(0)
    _, low, high = performance_profile([scores], np.array([0.5]))
    theirs = stats.bootstrap(
        (scores,), lambda x, axis: (x > 0.5).mean(axis=axis), method="percentile", rng=1
    ).confidence_interval
    # Shares of 100 scores are multiples of 1 %.
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=0.011)


def test_intervals_of_constant_scores_have_no_width():
    score = summarize(strata([-300] * 5, [-300] * 7), 1.0)
    assert {score.mean, score.ci_low, score.ci_high} == {-300}
    assert {score.iqm, score.iqm_low, score.iqm_high} == {-300}
    assert score.std == 0
    seeds = bootstrap(strata([1, 1], [2, 2]), np.mean)
    assert (seeds.low, seeds.estimate, seeds.high) == (1.5, 1.5, 1.5)
    one = summarize(strata([4]), 1.0)
    assert (one.mean, one.ci_low, one.ci_high, one.std) == (4, 4, 4, 0)


@pytest.mark.parametrize("nothing", [[], [[]], [[1], []]])
def test_empty_scores_are_refused(nothing):
    nothing, something = strata(*nothing), strata([1, 2])
    with pytest.raises(ValueError, match="no episodes"):
        summarize(nothing, 0.0)
    with pytest.raises(ValueError, match="no episodes"):
        bootstrap(nothing, np.mean)
    for pair in ((nothing, something), (something, nothing)):
        with pytest.raises(ValueError, match="no episodes"):
            probability_of_improvement(*pair)
    with pytest.raises(ValueError, match="no episodes"):
        performance_profile(nothing, np.zeros(1))


def test_intervals_are_reproducible():
    scores = normal(0, 1)
    assert summarize(scores, 1.0) == summarize(scores, 1.0)
    assert probability_of_improvement(scores, normal(0)) == probability_of_improvement(
        scores, normal(0)
    )


def test_a_band_covers_the_env_steps_that_all_seeds_have():
    steps, mean, low, high = band(
        [
            (np.array([0.0, 10, 20]), np.array([0.0, 10, 20])),
            (np.array([5.0, 25]), np.array([1.0, 1])),
        ],
        num_points=4,
    )
    np.testing.assert_allclose(steps, [5, 10, 15, 20])
    np.testing.assert_allclose(mean, [3, 5.5, 8, 10.5])
    np.testing.assert_allclose(low, [1, 1, 1, 1])
    np.testing.assert_allclose(high, [5, 10, 15, 20])


def test_the_band_of_one_seed_is_its_curve():
    curve = (np.linspace(0, 100, 200), np.random.default_rng(0).normal(size=200))
    steps, *lines = band([curve])
    np.testing.assert_array_equal(steps, curve[0])
    for line in lines:
        np.testing.assert_allclose(line, curve[1])
    assert all((line == 3).all() for line in band([(np.array([7.0]), np.array([3.0]))])[1:])


def test_curves_without_common_steps_have_no_band():
    def curve(*steps):
        return np.array(steps, np.float64), np.zeros(len(steps))

    with pytest.raises(ValueError, match="one starts at 30, another ends at 20"):
        band([curve(0, 20), curve(30, 40)])
    with pytest.raises(ValueError, match="at least one point"):
        band([])
    with pytest.raises(ValueError, match="at least one point"):
        band([curve(0, 1), curve()])
    with pytest.raises(ValueError, match="increase"):
        band([curve(0, 2, 1)])
