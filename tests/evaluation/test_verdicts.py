"""Tests of `evaluation.verdicts`, by simulation of players whose true means are known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from evaluation.verdicts import (
    AGENTS,
    ALPHA,
    EACH_POLICY,
    POLICIES,
    correct,
    enough_seeds,
    holm,
    least_p,
    permutation_p,
    weigh,
)

RATIOS = (0, 0.1, 0.2, 0.3, 0.5)
"""Standard deviations between training seeds, relative to those between episodes."""


def agent(rng, seeds, ratio=0.0, mean=0.0, episodes=100):
    """Draw the returns of each training seed; one seed is a policy."""
    means = mean + ratio * rng.normal(size=(seeds, 1))
    return list(means + rng.normal(size=(seeds, episodes)))


def table(players):
    """Test all pairs of a table, as `compare` does."""
    return [weigh(one, other) for one, other in combinations(players, 2)]


def any_significant(players):
    """Return whether any pair of a table differs significantly."""
    return min(correct(table(players))) <= ALPHA


def assert_at_most_as_stated(wrong, times):
    """Check that the rate of false results is compatible with the stated level."""
    assert wrong <= stats.binom.ppf(0.999, times, ALPHA), f"{100 * wrong / times:.1f} %"


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("seeds", [3, 4, 5, 6, 7, 8])
def test_equal_agents_differ_significantly_at_most_as_often_as_stated(seeds, ratio):
    rng, times = np.random.default_rng(seeds), 200
    wrong = sum(any_significant([agent(rng, seeds, ratio) for _ in range(2)]) for _ in range(times))
    assert_at_most_as_stated(wrong, times)


@pytest.mark.parametrize(("ours", "theirs"), [(4, 8), (8, 4), (3, 5)])
def test_the_level_holds_if_one_agent_varies_more(ours, theirs):
    rng, times = np.random.default_rng(ours), 300
    wrong = sum(
        any_significant([agent(rng, ours, 1.0), agent(rng, theirs, 0.1)]) for _ in range(times)
    )
    assert_at_most_as_stated(wrong, times)


@pytest.mark.parametrize("seeds", [4, 5, 8])
def test_the_level_holds_if_some_seeds_fail_to_learn(seeds):
    # Half of the seeds learn nothing. Welch's test alone would be wrong in up to 13 % of cases.
    rng, times = np.random.default_rng(seeds), 300

    def lucky():
        return [np.full(10, 100.0 * rng.integers(2)) + rng.normal(size=10) for _ in range(seeds)]

    assert_at_most_as_stated(sum(any_significant([lucky(), lucky()]) for _ in range(times)), times)


def test_the_level_holds_for_tables_of_equal_policies():
    rng, times, most = np.random.default_rng(0), 30, 8
    wrong, uncorrected = dict.fromkeys(range(2, most + 1), 0), 0
    for _ in range(times):
        pairs = list(combinations(range(most), 2))
        evidence = dict(zip(pairs, table([agent(rng, 1) for _ in range(most)]), strict=True))
        for size in wrong:
            wrong[size] += min(correct([evidence[p] for p in pairs if max(p) < size])) <= ALPHA
        uncorrected += min(of_pair.p_value for of_pair in evidence.values()) <= ALPHA
    for num in wrong.values():
        assert_at_most_as_stated(num, times)
    assert uncorrected > 0.25 * times, "without the correction, many tables have a false result"


@pytest.mark.parametrize(("num", "ratio"), [(3, 0), (5, 0.2), (8, 0.5)])
def test_the_level_holds_for_tables_of_equal_agents(num, ratio):
    rng, times = np.random.default_rng(num), 40
    wrong = sum(any_significant([agent(rng, 8, ratio) for _ in range(num)]) for _ in range(times))
    assert_at_most_as_stated(wrong, times)


@pytest.mark.parametrize("num", [1, 2, 3, 5, 10, 19])
@pytest.mark.parametrize("values", [np.inf, 3])
def test_the_level_holds_for_few_episodes(num, values):
    rng, times = np.random.default_rng(num), 100

    def policy():
        drawn = rng.normal(size=num) if values == np.inf else rng.integers(values, size=num)
        return [drawn.astype(np.float64)]

    wrong = sum(any_significant([policy(), policy()]) for _ in range(times))
    assert_at_most_as_stated(wrong, times)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("seeds", [6, 8])
def test_the_level_holds_for_an_agent_against_an_equal_policy(seeds, ratio):
    rng, times = np.random.default_rng(seeds), 300
    wrong = sum(any_significant([agent(rng, seeds, ratio), agent(rng, 1)]) for _ in range(times))
    assert_at_most_as_stated(wrong, times)


@pytest.mark.parametrize("seeds", [6, 8])
def test_the_level_holds_if_seeds_share_easy_and_hard_episodes(seeds):
    rng, times = np.random.default_rng(seeds), 300
    wrong = 0
    for _ in range(times):
        difficulty = rng.normal(size=100)
        ours = [difficulty + 0.3 * own for own in agent(rng, seeds)]
        wrong += any_significant([ours, agent(rng, 1)])
    assert_at_most_as_stated(wrong, times)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_level_holds_for_few_seeds_against_an_equal_policy(seeds):
    rng, times = np.random.default_rng(seeds), 50
    wrong = sum(any_significant([agent(rng, seeds), agent(rng, 1)]) for _ in range(times))
    assert_at_most_as_stated(wrong, times)


@pytest.mark.parametrize(("seeds", "ratio"), [(5, 0.3), (6, 0.3), (8, 0.5)])
def test_a_large_difference_is_found_with_enough_seeds(seeds, ratio):
    rng, times = np.random.default_rng(seeds), 50
    found = 0
    for _ in range(times):
        better, worse = agent(rng, seeds, ratio, mean=2.0), agent(rng, seeds, ratio)
        evidence = table([better, worse, agent(rng, 1, mean=-3.0)])
        first = evidence[0]
        found += correct(evidence)[0] <= ALPHA
        assert (first.about, first.is_ours_ahead) == (AGENTS, True)
    assert found > 0.9 * times


def test_a_better_agent_of_eight_seeds_is_found_in_a_table_of_six():
    rng = np.random.default_rng(0)
    players = [agent(rng, 8, 0.3, mean) for mean in (0, 0, 0, 0, 0, 2)]
    significant = [p <= ALPHA for p in correct(table(players))]
    assert significant == [5 in pair for pair in combinations(range(6), 2)]


def test_a_better_policy_is_found():
    rng = np.random.default_rng(0)
    better, worse = agent(rng, 1, mean=1.0), agent(rng, 1)
    assert weigh(better, worse).p_value < 1e-4
    assert weigh(better, worse).is_ours_ahead
    assert not weigh(worse, better).is_ours_ahead
    assert weigh(worse, better).about == POLICIES


def test_three_seeds_against_three_are_never_significant():
    rng = np.random.default_rng(0)
    evidence = weigh(agent(rng, 3, mean=1e6), agent(rng, 3))
    assert evidence.p_value == evidence.least_p == pytest.approx(0.1)
    assert not evidence.can_decide
    assert correct([evidence]) == [1.0]


def test_four_seeds_of_each_are_enough_for_one_pair_and_more_for_a_table():
    rng = np.random.default_rng(0)
    evidence = weigh(agent(rng, 4, mean=100), agent(rng, 4))
    assert evidence.p_value == evidence.least_p == pytest.approx(2 / 70)
    for pairs, seeds in {1: 4, 6: 5, 15: 6, 28: 7}.items():
        assert enough_seeds(pairs) == seeds
        assert least_p(seeds, seeds) <= ALPHA / pairs < least_p(seeds - 1, seeds - 1)
    assert enough_seeds(10_000) == 9, "more than 20,000 permutations are not computed"


def test_three_seeds_can_be_significantly_better_than_a_baseline():
    rng = np.random.default_rng(0)
    ours = [mean + 10 * own for mean, own in zip((81, 80, 82), agent(rng, 3), strict=True)]
    theirs = [-133 + 204 * own for own in agent(rng, 1)]
    evidence = weigh(ours, theirs)
    assert (evidence.about, evidence.is_ours_ahead) == (EACH_POLICY, True)
    assert evidence.p_value < 1e-6
    assert evidence.difference.low < 81 - theirs[0].mean() < evidence.difference.high


def test_all_of_few_policies_must_be_better():
    rng = np.random.default_rng(0)
    good, bad = agent(rng, 1, mean=5), agent(rng, 1, mean=-5)
    fixed = agent(rng, 1)
    assert weigh([*good, *good, *good], fixed).p_value < 1e-6
    assert weigh([*good, *good, *bad], fixed).p_value == 1
    assert weigh([*good, *good, *fixed], fixed).p_value > ALPHA


def test_one_of_many_seeds_may_fail():
    rng = np.random.default_rng(0)
    ours = [*agent(rng, 9, mean=5), *agent(rng, 1)]
    evidence = weigh(ours, agent(rng, 1))
    assert (evidence.about, evidence.is_ours_ahead) == (AGENTS, True)
    assert evidence.p_value < 0.001


@pytest.mark.parametrize(("ours", "theirs"), [(1, 1), (3, 1), (8, 1), (4, 5)])
def test_exchanging_the_players_reverses_the_result(ours, theirs):
    rng = np.random.default_rng(0)
    one, other = agent(rng, ours, 0.3, mean=0.5), agent(rng, theirs, 0.3)
    there, back = weigh(one, other), weigh(other, one)
    assert there.p_value == pytest.approx(back.p_value)
    assert (there.about, there.least_p) == (back.about, back.least_p)
    assert there.is_ours_ahead is not back.is_ours_ahead
    assert (there.difference is None) is (ours == theirs == 1)
    if there.difference:
        assert there.difference.low == pytest.approx(-back.difference.high)


def test_policies_are_compared_by_the_tests_of_scipy():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0.2, 1, 100).round(1), rng.normal(0, 3, 70).round(1)
    expected = max(
        stats.mannwhitneyu(ours, theirs, method="asymptotic").pvalue,
        stats.brunnermunzel(ours, theirs).pvalue,
    )
    assert weigh([ours], [theirs]).p_value == pytest.approx(expected)


def test_agents_are_compared_by_the_tests_of_scipy():
    rng = np.random.default_rng(0)
    for seeds in (4, 6):
        ours, theirs = agent(rng, seeds, 0.3, mean=0.4), agent(rng, 5, 0.3)
        theirs = [returns[:-1] for returns in theirs]  # Other episodes: nothing is shared.
        means = np.mean(ours, axis=1), np.mean(theirs, axis=1)
        welch = stats.ttest_ind(*means, equal_var=False)
        evidence = weigh(ours, theirs)
        assert evidence.p_value == pytest.approx(max(welch.pvalue, permutation_p(*means)))
        ends = welch.confidence_interval()
        assert evidence.difference.low == pytest.approx(ends.low)
        assert evidence.difference.high == pytest.approx(ends.high)


def test_episodes_that_suit_all_seeds_of_one_agent_decide_nothing():
    """Both agents are equally good; each is better in other episodes, with all its seeds."""
    rng = np.random.default_rng(0)
    num, found = 200, 0
    for _ in range(num):
        ours, theirs = (
            list(rng.normal(0, 1, 50) + rng.normal(0, 0.5, (5, 50)) + rng.normal(0, 0.02, (5, 1)))
            for _ in range(2)
        )
        found += weigh(ours, theirs).p_value < 0.05
    assert found <= 0.08 * num


@pytest.mark.parametrize(("ours", "theirs"), [(2, 2), (3, 3), (3, 5), (5, 5), (6, 4)])
@pytest.mark.parametrize("decimals", [9, 0])
def test_permutation_tests_equal_that_of_scipy(ours, theirs, decimals):
    rng = np.random.default_rng(ours)
    for _ in range(20):
        groups = rng.normal(size=ours).round(decimals), rng.normal(0.5, size=theirs).round(decimals)
        expected = stats.permutation_test(groups, lambda a, b: a.mean() - b.mean()).pvalue
        assert permutation_p(*groups) == pytest.approx(expected)


def test_permutations_are_random_if_there_are_too_many():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0.5, size=12), rng.normal(size=12)
    expected = stats.ttest_ind(ours, theirs).pvalue
    assert permutation_p(ours, theirs) == pytest.approx(expected, rel=0.15)
    assert permutation_p(ours, theirs) == permutation_p(ours, theirs)
    assert permutation_p(ours + 100, theirs) == least_p(12, 12) == 1e-4


def test_p_values_are_corrected_by_holm():
    # By hand: 4 x 0.01; 3 x 0.012, raised to the one before; 2 x 0.03; 1 x 0.5.
    assert holm([0.03, 0.01, 0.5, 0.012]) == pytest.approx([0.06, 0.04, 0.5, 0.04])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_pairs_that_cannot_be_significant_are_not_counted():
    rng = np.random.default_rng(0)
    pair = weigh(agent(rng, 1, mean=0.4), agent(rng, 1))
    hopeless = weigh(agent(rng, 3), agent(rng, 3))
    assert correct([hopeless, pair, hopeless]) == [1, pair.p_value, 1]
    assert correct([pair, pair])[0] == pytest.approx(2 * pair.p_value)


def test_constant_returns_are_compared():
    low, high = [np.full(100, 1.0)], [np.full(100, 2.0)]
    assert weigh(low, low).p_value == 1
    assert weigh(high, low).p_value < 1e-6
    assert weigh(high * 3, low).p_value < 1e-6
    assert weigh(low * 3, low).p_value == 1
    assert weigh(high * 8, low).p_value == 0
    assert weigh(low * 8, low).p_value == weigh(low * 4, low * 4).p_value == 1
    assert weigh(high * 4, low * 4).p_value == pytest.approx(2 / 70)


def test_single_episodes_are_never_significant():
    one, other = [np.array([1.0])], [np.array([2.0])]
    assert weigh(one, other).p_value == 1
    assert weigh(one * 8, other).p_value == 1
    assert weigh(one * 8, other).difference is None
    assert weigh(one * 3, other).p_value == 1


def test_few_scores_without_overlap_differ_significantly():
    def differ(ours, theirs):
        return any_significant([[np.array(ours, np.float64)], [np.array(theirs, np.float64)]])

    assert differ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    assert not differ([1, 2, 3], [4, 5, 6])  # The p-value is 0.1.
    assert not differ([1, 1, 1], [2, 2, 2])  # The p-value with ties is not lower.
