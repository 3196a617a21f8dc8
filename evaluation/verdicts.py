"""Which of two is better: tests of pairs, corrected for all pairs of a table.

What a verdict is about depends on what there is several of:

- One policy against another (a player without training seeds counts as a policy): about these two
  policies. Episodes vary.
- An agent, which is several training seeds, against another agent: about the agents. Training seeds
  vary; so much as 1,000 episodes of a seed say nothing of how another one would have turned out.
- An agent against one policy: about the agent where it has enough seeds; where it has fewer, about
  each of its policies, which all have to be better.

Players of a table play the same episodes, which are treated as if each player had its own. What is
hard for one is mostly hard for others, so this makes verdicts rarer, never more frequent.

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
"""How often a table whose players are all alike may tell any two of them apart."""
POLICIES, EACH_POLICY, AGENTS = "policies", "each policy", "agents"
"""What a verdict is about."""
FEWEST_SEEDS = 6
"""From how many seeds on a verdict on one agent against one policy is about the agent.

All of 5 seeds are better by chance in 2 of 32 cases (sign test), all of 6 in 2 of 64.
"""
_FEW = 20  # From here on the Mann-Whitney test's normal approximation is good.
_PERMUTATIONS = 20_000  # All of them, up to 8 seeds against 8.


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What returns say about which of two is better, before the correction for other pairs.

    Attributes:
        about: one of `POLICIES`, `EACH_POLICY` and `AGENTS`.
        is_ours_ahead: which of the two is better if either is.
        difference: our mean return minus theirs, over new training seeds, with the 95 % interval of
            this pair alone; None between two policies, and where it cannot be estimated.
        p_value: two-sided.
        least_p: the smallest p-value that as many seeds could have given.
    """

    about: str
    is_ours_ahead: bool
    difference: Interval | None
    p_value: float
    least_p: float

    @property
    def can_decide(self) -> bool:
        """Whether there are enough seeds for a verdict on this pair, were it the only one."""
        return self.least_p <= ALPHA

    def reversed(self) -> Evidence:
        """Give what theirs say about ours."""
        d = self.difference
        turned = d and Interval(estimate=-d.estimate, low=-d.high, high=-d.low)
        return replace(self, is_ours_ahead=not self.is_ours_ahead, difference=turned)


def weigh(ours: Strata, theirs: Strata) -> Evidence:
    """Test whether one of two is better.

    Args:
        ours: of each of S training seeds, (E,) returns; of one policy, one array.
        theirs: as many or more, or fewer.
    """
    if len(ours) > 1 and len(theirs) > 1:
        return _weigh_agents(ours, theirs)
    if len(ours) > 1:
        return _weigh_agent(ours, theirs[0])
    if len(theirs) > 1:
        return _weigh_agent(theirs, ours[0]).reversed()
    p, chance = _compare_policies(ours[0], theirs[0])
    return Evidence(
        about=POLICIES, is_ours_ahead=chance > 0.5, difference=None, p_value=p, least_p=0.0
    )


def correct(evidence: Sequence[Evidence]) -> list[float]:
    """Give p-values that hold for all pairs of a table together, in the order of the pairs.

    Pairs that too few seeds keep from any verdict cannot be told apart wrongly. They do not count
    (Tarone 1990, "A modified Bonferroni method for discrete data"), and get 1.
    """
    counted = [i for i, of_pair in enumerate(evidence) if of_pair.can_decide]
    corrected = [1.0] * len(evidence)
    for i, p in zip(counted, holm([evidence[i].p_value for i in counted]), strict=True):
        corrected[i] = p
    return corrected


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number: to reject what is at most a level errs at most so often.

    Holm 1979, "A simple sequentially rejective multiple test procedure": of m p-values the smallest
    is multiplied by m, the next by m - 1 and so on, and none gets less than a smaller one did.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(factors * np.asarray(p_values, np.float64)[order])
    return [float(p) for p in np.minimum(corrected, 1)]


def least_p(ours: int, theirs: int) -> float:
    """Give the smallest two-sided p-value that a permutation test of so many seeds can give."""
    return 2 / min(comb(ours + theirs, ours), _PERMUTATIONS)


def enough_seeds(pairs: int) -> int:
    """Say how many seeds of each agent are enough for a verdict among so many pairs.

    That is, where all seeds of one are better than all of the other's, and clearly so.
    """
    most = next(n for n in range(2, 100) if comb(2 * n, n) > _PERMUTATIONS)
    return next((n for n in range(2, most) if least_p(n, n) <= ALPHA / pairs), most)


def _weigh_agents(ours: Strata, theirs: Strata) -> Evidence:
    """Test whether two agents have the same mean return, over training seeds.

    Two tests have to agree, as each has a weakness that the other has not: permutations hold
    whatever the distribution of seeds' means, but take both agents' to be the same; Welch's test
    lets one vary more than the other, but takes means to be normally distributed.
    """
    our_means, their_means = _means(ours), _means(theirs)
    terms = [_seeds_term(our_means), _seeds_term(their_means)]
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
    # Seeds share their episodes, so that their luck may be common: as if all were one policy.
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
    """Test whether each policy of an agent is better than another policy, or each is worse.

    An intersection-union test: all of its parts have to reject, each at the full level (Berger
    1982, "Multiparameter hypothesis testing and acceptance sampling").

    Returns:
        The p-value, and whether they are better.
    """
    p_values, chances = zip(*(_compare_policies(own, policy) for own in agent), strict=True)
    better = [chance > 0.5 for chance in chances]
    return (max(p_values) if len(set(better)) == 1 else 1.0), float(np.mean(chances)) > 0.5


def _compare_policies(ours: Floats, theirs: Floats) -> tuple[float, float]:
    """Test whether an episode of ours is as likely above one of theirs as below.

    Two tests have to agree: Brunner and Munzel's (2000, "The nonparametric Behrens-Fisher
    problem"), which allows for returns that vary differently but is too bold with few of them, and
    Mann and Whitney's, by permutations where there are few.

    Returns:
        The p-value, and the share of pairs in which ours is above, equal ones counting half.
    """
    if min(ours.min(), theirs.min()) == max(ours.max(), theirs.max()):
        return 1.0, 0.5
    test = stats.mannwhitneyu(ours, theirs, method="asymptotic")
    p, chance = float(test.pvalue), float(test.statistic) / (len(ours) * len(theirs))
    if min(len(ours), len(theirs)) < _FEW:
        ranks = stats.rankdata(np.concatenate([ours, theirs]))
        p = permutation_p(ranks[: len(ours)], ranks[len(ours) :])
    if 0 < chance < 1:  # Else nothing is left that varies.
        p = max(p, float(np.nan_to_num(stats.brunnermunzel(ours, theirs).pvalue, nan=1.0)))
    return p, chance


def permutation_p(ours: Floats, theirs: Floats) -> float:
    """Compute how often values dealt out to two by chance differ in mean as these do.

    The exact permutation test of a difference in means (Fisher 1935, "The design of experiments"),
    two-sided by doubling. Of more than 8 values against 8: from 20,000 permutations.

    Args:
        ours: (S,) values, such as seeds' means.
        theirs: the other's.
    """
    if len(ours) > len(theirs):
        ours, theirs = theirs, ours
    values = np.concatenate([ours, theirs])
    values = values - values.mean()
    sums = values[_groups(len(ours), len(values))].sum(axis=1)
    rounding = 1e-9 * float(np.abs(values).sum())  # Sums in another order are the same sums.
    above = float((sums >= sums[0] - rounding).mean())
    below = float((sums <= sums[0] + rounding).mean())
    return min(1.0, 2 * min(above, below))


@lru_cache(maxsize=64)
def _groups(size: int, num: int) -> NDArray[np.intp]:
    """Give (C, size) ways to choose so many of `num` values; the first chooses the first ones."""
    if comb(num, size) <= _PERMUTATIONS:
        return np.array(list(combinations(range(num), size)), np.intp)
    rng = np.random.default_rng(0)
    chosen = np.stack([rng.permutation(num)[:size] for _ in range(_PERMUTATIONS)])
    chosen[0] = np.arange(size)
    return chosen


_Term = tuple[float, float]  # The variance of a mean, its degrees of freedom.


def _means(strata: Strata) -> Floats:
    return np.array([returns.mean() for returns in strata])


def _seeds_term(means: Floats) -> _Term:
    return float(means.var(ddof=1)) / len(means), len(means) - 1


def _episodes_term(returns: Floats) -> _Term:
    if len(returns) < 2:
        return np.inf, 1
    return float(returns.var(ddof=1)) / len(returns), len(returns) - 1


def _welch(difference: float, terms: Sequence[_Term]) -> tuple[Interval | None, float]:
    """Test whether a difference is 0 whose variance is a sum of estimated ones.

    Welch 1947, "The generalization of Student's problem when several different population variances
    are involved", with the degrees of freedom of Satterthwaite 1946.

    Returns:
        The difference with its 95 % interval, None where its variance is unknown, and the p-value.
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
