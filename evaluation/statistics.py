"""Statistics of scores, and confidence intervals.

Names and definitions follow Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the
Statistical Precipice".

Scores come in strata: the episodes of each training seed. The bootstrap resamples episodes, never
training seeds, so its intervals estimate what *these* policies would score on other episodes.
`over_seeds` estimates what other training seeds would score, and `evaluation.verdicts` tests which
agent is better.

Strata of equal length are assumed to be the same episodes, which may be easy or hard for all
policies alike: a resample draws the same episodes in each of them. If the strata are in fact
independent, the interval is still valid.

SciPy is imported by the functions that need it: that takes a second, for which every training would
wait at its start.

Axes: E episodes of a stratum, S strata, R resamples, P thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
"""Confidence level of the intervals."""
_RESAMPLES = 10_000
_RESAMPLES_OF_PAIRS = 2_000  # The number that the paper uses for its profiles.

Floats = NDArray[np.float64]
Strata = Sequence[Floats]
_Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with the ends of its 95 % confidence interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """Statistics of the returns of E episodes.

    Attributes:
        episodes: E.
        mean: mean return.
        std: standard deviation of the returns.
        ci_low: lower end of the 95 % bootstrap interval of the mean, over episodes.
        ci_high: its upper end.
        median: median return.
        iqm: mean of the middle half of the returns.
        iqm_low: lower end of its 95 % bootstrap interval.
        iqm_high: its upper end.
        min: lowest return.
        max: highest return.
        mean_length: mean length in env steps.
        seed_means: mean return of each training seed.
        seeds_low: lower end of the 95 % interval of the mean over new training seeds; None if there
            is only one seed.
        seeds_high: its upper end.
    """

    episodes: int
    mean: float
    std: float
    ci_low: float
    ci_high: float
    median: float
    iqm: float
    iqm_low: float
    iqm_high: float
    min: float
    max: float
    mean_length: float
    seed_means: tuple[float, ...]
    seeds_low: float | None = None
    seeds_high: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary, for JSON."""
        return asdict(self)


def summarize(returns: Strata, mean_length: float) -> Score:
    """Compute the score of returns.

    Args:
        returns: for each training seed, (E,) returns of its episodes.
        mean_length: mean length of all episodes in env steps.

    Raises:
        ValueError: If there are no episodes.
    """
    together = _together(returns)
    mean, middle = bootstrap(returns, np.mean), bootstrap(returns, iqm)
    seed_means = tuple(float(stratum.mean()) for stratum in returns)
    seeds = over_seeds(seed_means) if len(seed_means) > 1 else None
    return Score(
        episodes=len(together),
        mean=mean.estimate,
        std=float(together.std(ddof=1)) if len(together) > 1 else 0.0,
        ci_low=mean.low,
        ci_high=mean.high,
        median=float(np.median(together)),
        iqm=middle.estimate,
        iqm_low=middle.low,
        iqm_high=middle.high,
        min=float(together.min()),
        max=float(together.max()),
        mean_length=mean_length,
        seed_means=seed_means,
        seeds_low=seeds.low if seeds else None,
        seeds_high=seeds.high if seeds else None,
    )


def over_seeds(seed_means: Sequence[float]) -> Interval:
    """Return the interval of an agent's mean return over new training seeds.

    It is Student's t interval of the seeds' means, because a bootstrap interval of three to eight
    seeds would be far too narrow.

    Args:
        seed_means: mean return of each of at least two training seeds.
    """
    from scipy import stats

    num, mean = len(seed_means), float(np.mean(seed_means))
    error = float(np.std(seed_means, ddof=1)) / num**0.5
    margin = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, num - 1))
    return Interval(estimate=mean, low=mean - margin, high=mean + margin)


def iqm(values: Floats, axis: int = -1) -> Any:
    """Return the interquartile mean: the mean without the lowest and the highest quarter.

    A quarter is rounded down to whole values.
    """
    num = values.shape[axis]
    middle = range(num // 4, num - num // 4)
    return np.sort(values, axis=axis).take(middle, axis=axis).mean(axis=axis)


def bootstrap(strata: Strata, statistic: Callable[..., Any]) -> Interval:
    """Return a statistic of all scores, with its percentile bootstrap interval.

    With fewer than about 20 scores the interval is too narrow.

    Args:
        strata: S arrays (E,).
        statistic: function of an array, along its keyword argument `axis`.

    Raises:
        ValueError: If there are no scores.
    """
    together = _together(strata)
    estimate = float(statistic(together, axis=-1))
    if together.min() == together.max():
        return Interval(estimate=estimate, low=estimate, high=estimate)
    from scipy import stats

    samples = tuple(_worth_resampling(strata))
    interval = stats.bootstrap(
        samples,
        lambda *samples, axis: statistic(np.concatenate(samples, axis=axis), axis=axis),
        n_resamples=_RESAMPLES,
        batch=1000,
        vectorized=True,
        paired=len({len(sample) for sample in samples}) == 1,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(estimate=estimate, low=float(interval.low), high=float(interval.high))


def probability_of_improvement(ours: Strata, theirs: Strata) -> Interval:
    """Return the probability that one player scores higher than another; ties count half.

    It is the Mann-Whitney U statistic divided by the number of pairs of episodes. The interval is
    the percentile bootstrap over episodes; with fewer than about 20 scores it is too narrow.

    Args:
        ours: S arrays (E,), scores of the first player.
        theirs: arrays of the second player, whose number and sizes may differ.

    Raises:
        ValueError: If there are no scores.
    """
    rng = np.random.default_rng(0)
    left, right = _together(ours), _together(theirs)
    samples = _share_above(left, right, _resampled(ours, rng), _resampled(theirs, rng))
    once = _share_above(left, right, np.ones((1, len(left)), int), np.ones((1, len(right)), int))
    low, high = percentile_interval(samples)
    return Interval(estimate=float(once[0]), low=float(low), high=float(high))


def _together(strata: Strata) -> Floats:
    if not strata or not all(len(stratum) for stratum in strata):
        raise ValueError("no episodes were played")
    return np.concatenate(strata)


def _worth_resampling(strata: Strata) -> Strata:
    # Resampling a stratum of one score would always return that score, as if it had no variance.
    return [_together(strata)] if any(len(stratum) == 1 for stratum in strata) else strata


def _resampled(strata: Strata, rng: np.random.Generator) -> _Counts:
    """Return how often each score is in each resample: (R, E of all strata)."""
    nums = [len(stratum) for stratum in _worth_resampling(strata)]
    if len(set(nums)) == 1:
        return np.tile(_drawn(nums[0], rng), len(nums))
    return np.concatenate([_drawn(num, rng) for num in nums], axis=1)


def _drawn(num: int, rng: np.random.Generator) -> _Counts:
    """Draw `num` scores with replacement, and return how often each was drawn: (R, num)."""
    drawn = rng.integers(num, size=(_RESAMPLES_OF_PAIRS, num))
    drawn += num * np.arange(_RESAMPLES_OF_PAIRS)[:, None]
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)


def _below(scores: Floats, counts: _Counts) -> _Counts:
    """Return how many of the lowest 0 to E scores are in each resample: (R, E + 1)."""
    counts = counts[:, np.argsort(scores)]
    return np.pad(np.cumsum(counts, axis=1), ((0, 0), (1, 0)))


def _share_above(
    ours: Floats, theirs: Floats, our_counts: _Counts, their_counts: _Counts
) -> Floats:
    """Return the share of pairs in which ours is higher, for each resample: (R,)."""
    below, theirs = _below(theirs, their_counts), np.sort(theirs)
    wins = below[:, np.searchsorted(theirs, ours, "left")]
    wins_and_ties = below[:, np.searchsorted(theirs, ours, "right")]
    halves = (our_counts * (wins + wins_and_ties)).sum(axis=1)
    return np.asarray(halves / (2 * len(ours) * len(theirs)), np.float64)


def percentile_interval(samples: Floats | Sequence[float]) -> Floats:
    """Return the ends of the 95 % interval of resampled estimates, (2, ...), from (R, ...)."""
    return np.percentile(samples, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)], axis=0)


def performance_profile(strata: Strata, thresholds: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the share of scores above each threshold, with a pointwise 95 % band.

    Args:
        strata: S arrays (E,).
        thresholds: (P,).

    Returns:
        (P,) shares, and the (P,) lower and (P,) upper ends of the band, each from 0 to 1.

    Raises:
        ValueError: If there are no scores.
    """
    scores = _together(strata)
    above = np.searchsorted(np.sort(scores), thresholds, "right")
    counts = _resampled(strata, np.random.default_rng(0))
    low, high = percentile_interval((len(scores) - _below(scores, counts)[:, above]) / len(scores))
    return (len(scores) - above) / len(scores), low, high


def band(
    seeds: Sequence[tuple[Floats, Floats]], num_points: int = 200
) -> tuple[Floats, Floats, Floats, Floats]:
    """Compute the mean and the range of the learning curves of several training seeds.

    Args:
        seeds: for each training seed, (P,) increasing env steps and the (P,) values there.
        num_points: number of points of the result, evenly spaced over the env steps that all seeds
            have in common.

    Returns:
        (num_points,) env steps, and the mean, the lowest and the highest value of the seeds there.

    Raises:
        ValueError: If the seeds have no env steps in common, or env steps do not increase.
    """
    if not seeds or not all(len(steps) for steps, _ in seeds):
        raise ValueError("a learning curve needs at least one point")
    if not all((np.diff(steps) > 0).all() for steps, _ in seeds):
        raise ValueError("the env steps of a learning curve must increase")
    first, last = max(steps[0] for steps, _ in seeds), min(steps[-1] for steps, _ in seeds)
    if first > last:
        raise ValueError(
            f"the curves have no env steps in common: one starts at {first:,.0f}, another ends at "
            f"{last:,.0f}"
        )
    common = np.linspace(first, last, num_points)
    values = np.stack([np.interp(common, steps, values) for steps, values in seeds])
    return common, values.mean(axis=0), values.min(axis=0), values.max(axis=0)
