"""Statistical tests of which of two players is better, corrected for all pairs of a table.

What a verdict applies to depends on the players:

- One policy against another policy or a baseline: the verdict applies to these two policies.
  Episodes are the samples.
- An agent, which is several training seeds, against another agent: the verdict applies to the
  agents. Training seeds are the samples, because even 1,000 episodes of one seed contain no
  information about how another seed would have turned out.
- An agent against one policy: the verdict applies to the agent if it has enough seeds. Otherwise it
  applies to each of the agent's policies, all of which must be better.

All players of a table play the same episodes. Between policies, the tests treat the episodes of
different players as independent: episodes that are hard for one player are mostly hard for others
too, so this makes verdicts more conservative. Between agents, the variance of the difference over
episodes is added to that over seeds, since all seeds of an agent may be lucky in these episodes.

Axes: E episodes of a seed, S training seeds, C ways to divide values into two groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evaluation.statistics import CONFIDENCE, Floats, Interval, Strata

ALPHA = round(1 - CONFIDENCE, 3)
"""Level of significance: at most this share of tables of equal players has a significant pair."""
POLICIES, EACH_POLICY, AGENTS = "policies", "each policy", "agents"
"""What a verdict applies to."""
FEWEST_SEEDS = 6
"""Number of seeds from which a verdict on an agent against one policy applies to the agent.

With 5 seeds, all of them are better or all are worse by chance in 2 of 32 cases (sign test); with 6
seeds, in 2 of 64.
"""
_FEW = 20  # Episodes from which the normal approximation of the Mann-Whitney test is good.
_PERMUTATIONS = 20_000  # Enough for an exact test of up to 8 seeds against 8.


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The test of one pair of players, "ours" and "theirs", before the correction for other pairs.

    Attributes:
        about: what the verdict applies to: `POLICIES`, `EACH_POLICY` or `AGENTS`.
        is_ours_ahead: whether ours is the better one if the difference is significant.
        difference: our mean return minus theirs, over new training seeds, with the 95 % interval of
            this pair alone; None between two policies, and if it cannot be estimated.
        p_value: two-sided p-value.
        least_p: smallest p-value that is possible with as many seeds.
    """

    about: str
    is_ours_ahead: bool
    difference: Interval | None
    p_value: float
    least_p: float

    @property
    def can_decide(self) -> bool:
        """Whether there are enough seeds for a significant result if this were the only pair."""
        return self.least_p <= ALPHA

    def reversed(self) -> Evidence:
        """Return the same test with ours and theirs exchanged."""
        d = self.difference
        turned = d and Interval(estimate=-d.estimate, low=-d.high, high=-d.low)
        return replace(self, is_ours_ahead=not self.is_ours_ahead, difference=turned)


def weigh(ours: Strata, theirs: Strata) -> Evidence:
    """Test whether one of two players is better.

    Args:
        ours: (E,) returns for each of S training seeds; one array if it is a policy or a baseline.
        theirs: the same for the other player; numbers of seeds and episodes may differ.
    """
    if len(ours) > 1 and len(theirs) > 1:
        return _weigh_agents(ours, theirs)
    if len(ours) > 1:
        return _weigh_agent(ours, theirs[0])
    if len(theirs) > 1:
        return _weigh_agent(theirs, ours[0]).reversed()
    p, share = _compare_policies(ours[0], theirs[0])
    return Evidence(
        about=POLICIES, is_ours_ahead=share > 0.5, difference=None, p_value=p, least_p=0.0
    )


def correct(evidence: Sequence[Evidence]) -> list[float]:
    """Return the p-values corrected for all pairs of a table, in the order of the pairs.

    Pairs with too few seeds for any significant result cannot cause a false one. They are not
    counted (Tarone 1990, "A modified Bonferroni method for discrete data"), and get 1.
    """
    counted = [i for i, of_pair in enumerate(evidence) if of_pair.can_decide]
    corrected = [1.0] * len(evidence)
    for i, p in zip(counted, holm([evidence[i].p_value for i in counted]), strict=True):
        corrected[i] = p
    return corrected


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number.

    Rejecting all hypotheses whose corrected p-value is at most some level makes any false rejection
    with at most that probability. Holm 1979, "A simple sequentially rejective multiple test
    procedure": the smallest of m p-values is multiplied by m, the next by m - 1, and so on, and
    each is at least as large as the one before.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(factors * np.asarray(p_values, np.float64)[order])
    return [float(p) for p in np.minimum(corrected, 1)]


def least_p(ours: int, theirs: int) -> float:
    """Return the smallest possible two-sided p-value of a permutation test of so many seeds."""
    return 2 / min(comb(ours + theirs, ours), _PERMUTATIONS)


def enough_seeds(pairs: int) -> int:
    """Return how many seeds of each agent are enough for a significant result.

    They are enough if all seeds of one agent are clearly better than all seeds of the other.

    Args:
        pairs: number of pairs in the table.
    """
    most = next(n for n in range(2, 100) if comb(2 * n, n) > _PERMUTATIONS)
    return next((n for n in range(2, most) if least_p(n, n) <= ALPHA / pairs), most)


def _weigh_agents(ours: Strata, theirs: Strata) -> Evidence:
    """Test whether two agents have the same mean return, over training seeds.

    Two tests must agree, because their assumptions differ: the permutation test makes no assumption
    about the distribution of the seeds' means, except that it is the same for both agents. Welch's
    test allows for different variances, but assumes normal distributions.
    """
    our_means, their_means = _means(ours), _means(theirs)
    terms = [_seeds_term(our_means), _seeds_term(their_means)]
    if len({len(returns) for returns in (*ours, *theirs)}) == 1:
        # All seeds play the same episodes, in which one agent may be lucky with all its seeds.
        terms.append(_episodes_term(np.mean(ours, axis=0) - np.mean(theirs, axis=0)))
    difference, p_value = _welch(float(our_means.mean() - their_means.mean()), terms)
    return Evidence(
        about=AGENTS,
        is_ours_ahead=difference is not None and difference.estimate > 0,
        difference=difference,
        p_value=max(p_value, permutation_p(our_means, their_means)),
        least_p=least_p(len(ours), len(theirs)),
    )


def _weigh_agent(agent: Strata, policy: Floats) -> Evidence:
    """Test whether an agent is better or worse than one policy."""
    means = _means(agent)
    # The seeds share their episodes, whose difficulty may affect all of them alike. Their variance
    # over episodes is therefore counted as if all were one policy.
    episodes = [_episodes_term(returns) for returns in agent]
    shared = (float(np.mean([v for v, _ in episodes])), min(df for _, df in episodes))
    terms = [_seeds_term(means), shared, _episodes_term(policy)]
    difference, p_value = _welch(float(means.mean() - policy.mean()), terms)
    is_ahead = float(means.mean()) > float(policy.mean())
    about = AGENTS
    if len(agent) < FEWEST_SEEDS:
        about, (p_value, is_ahead) = EACH_POLICY, _compare_each(agent, policy)
    return Evidence(
        about=about, is_ours_ahead=is_ahead, difference=difference, p_value=p_value, least_p=0.0
    )


def _compare_each(agent: Strata, policy: Floats) -> tuple[float, bool]:
    """Test whether every policy of an agent is better than another policy, or every one is worse.

    An intersection-union test: each of its parts must reject, each at the full level (Berger 1982,
    "Multiparameter hypothesis testing and acceptance sampling").

    Returns:
        The p-value, and whether the agent's policies are better.
    """
    p_values, shares = zip(*(_compare_policies(own, policy) for own in agent), strict=True)
    better = [share > 0.5 for share in shares]
    return (max(p_values) if len(set(better)) == 1 else 1.0), float(np.mean(shares)) > 0.5


def _compare_policies(ours: Floats, theirs: Floats) -> tuple[float, float]:
    """Test whether our episodes score higher than theirs as often as lower.

    Two tests must agree: that of Brunner and Munzel (2000, "The nonparametric Behrens-Fisher
    problem"), which allows for different variances but rejects too often with few episodes, and
    that of Mann and Whitney, which is computed by permutations if there are few episodes.

    Returns:
        The p-value, and the share of pairs in which ours is higher, where ties count half.
    """
    if min(ours.min(), theirs.min()) == max(ours.max(), theirs.max()):
        return 1.0, 0.5
    test = stats.mannwhitneyu(ours, theirs, method="asymptotic")
    p, share = float(test.pvalue), float(test.statistic) / (len(ours) * len(theirs))
    if min(len(ours), len(theirs)) < _FEW:
        ranks = stats.rankdata(np.concatenate([ours, theirs]))
        p = permutation_p(ranks[: len(ours)], ranks[len(ours) :])
    if 0 < share < 1:  # Otherwise its estimate of the variance is 0.
        p = max(p, float(np.nan_to_num(stats.brunnermunzel(ours, theirs).pvalue, nan=1.0)))
    return p, share


def permutation_p(ours: Floats, theirs: Floats) -> float:
    """Return the p-value of the permutation test of a difference in means.

    Fisher 1935, "The design of experiments"; two-sided by doubling. The test is exact up to 8
    values against 8, and uses 20,000 random permutations beyond.

    Args:
        ours: (S,) values, such as seeds' means.
        theirs: the same of the other agent; the number of values may differ.
    """
    if len(ours) > len(theirs):
        ours, theirs = theirs, ours
    values = np.concatenate([ours, theirs])
    values = values - values.mean()
    sums = values[_groups(len(ours), len(values))].sum(axis=1)
    rounding = 1e-9 * float(np.abs(values).sum())  # Sums in another order differ by rounding.
    above = float((sums >= sums[0] - rounding).mean())
    below = float((sums <= sums[0] + rounding).mean())
    return min(1.0, 2 * min(above, below))


@lru_cache(maxsize=64)
def _groups(size: int, num: int) -> NDArray[np.intp]:
    """Return (C, size) choices of `size` of `num` values; the first one is the first values."""
    if comb(num, size) <= _PERMUTATIONS:
        return np.array(list(combinations(range(num), size)), np.intp)
    rng = np.random.default_rng(0)
    chosen = np.stack([rng.permutation(num)[:size] for _ in range(_PERMUTATIONS)])
    chosen[0] = np.arange(size)
    return chosen


_Term = tuple[float, float]
"""The variance of a mean, and its degrees of freedom."""


def _means(strata: Strata) -> Floats:
    return np.array([returns.mean() for returns in strata])


def _seeds_term(means: Floats) -> _Term:
    return float(means.var(ddof=1)) / len(means), len(means) - 1


def _episodes_term(returns: Floats) -> _Term:
    if len(returns) < 2:
        return np.inf, 1
    return float(returns.var(ddof=1)) / len(returns), len(returns) - 1


def _welch(difference: float, terms: Sequence[_Term]) -> tuple[Interval | None, float]:
    """Test whether a difference of means is 0.

    Welch 1947, "The generalization of Student's problem when several different population variances
    are involved", with the degrees of freedom of Satterthwaite 1946.

    Args:
        difference: the difference.
        terms: estimated variances, whose sum is the variance of the difference.

    Returns:
        The difference with its 95 % interval, or None if its variance is unknown; and the p-value.
    """
    variance = sum(v for v, _ in terms)
    if not np.isfinite(variance):
        return None, 1.0
    if variance == 0:
        exact = Interval(estimate=difference, low=difference, high=difference)
        return exact, 1.0 if difference == 0 else 0.0
    df = variance**2 / sum(v**2 / own for v, own in terms)
    error = variance**0.5
    margin = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, df))
    interval = Interval(estimate=difference, low=difference - margin, high=difference + margin)
    return interval, float(2 * stats.t.sf(abs(difference) / error, df))
