"""What scores say, and how far they may be relied upon.

Names and definitions are those of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of
the Statistical Precipice"; the arithmetic is SciPy's.

Scores come in strata, each of which is resampled by itself: the episodes of each training seed, or
the runs of each task. Intervals therefore tell what *these* policies would score on other episodes;
how far training seeds differ is to be read from the seeds' own means.

Axes: E episodes of a stratum, S strata, R resamples, P thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_CONFIDENCE = 0.95
_RESAMPLES = 10_000
_RESAMPLES_OF_PAIRS = 2_000  # As many as the paper takes for its profiles.
# Two lots of 5 scores of one policy differ in 10 % of cases by the bootstrap, instead of 5 %.
_FEW = 20

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
    """What the returns of E episodes say.

    Attributes:
        episodes: E.
        mean: mean return.
        std: standard deviation of the returns.
        ci_low: lower end of the 95 % bootstrap interval of the mean.
        ci_high: its upper end.
        median: median return.
        iqm: mean of the middle half of the returns.
        iqm_low: lower end of its 95 % bootstrap interval.
        iqm_high: its upper end.
        min: lowest return.
        max: highest return.
        mean_length: mean length in env steps.
        seed_means: mean return of each training seed.
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

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as a dictionary, for JSON."""
        return asdict(self)


def summarize(returns: Strata, mean_length: float) -> Score:
    """Summarise returns.

    Args:
        returns: of each training seed, (E,) returns of its episodes.
        mean_length: of all episodes, in env steps.

    Raises:
        ValueError: If there are no episodes.
    """
    together = _together(returns)
    mean, middle = bootstrap(returns, np.mean), bootstrap(returns, iqm)
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
        seed_means=tuple(float(stratum.mean()) for stratum in returns),
    )


def iqm(values: Floats, axis: int = -1) -> Any:
    """Interquartile mean: the mean without the lowest and the highest quarter."""
    return stats.trim_mean(values, 0.25, axis=axis)


def bootstrap(strata: Strata, statistic: Callable[..., Any]) -> Interval:
    """Bound a statistic of all scores together by the stratified percentile bootstrap.

    Of fewer than about 20 scores the interval is too narrow.

    Args:
        strata: S arrays (E,).
        statistic: of an array along `axis`.

    Raises:
        ValueError: If there are no scores.
    """
    together = _together(strata)
    estimate = float(statistic(together, axis=-1))
    if together.min() == together.max():
        return Interval(estimate=estimate, low=estimate, high=estimate)
    interval = stats.bootstrap(
        tuple(_worth_resampling(strata)),
        lambda *samples, axis: statistic(np.concatenate(samples, axis=axis), axis=axis),
        n_resamples=_RESAMPLES,
        batch=1000,
        vectorized=True,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(estimate=estimate, low=float(interval.low), high=float(interval.high))


def probability_of_improvement(ours: Strata, theirs: Strata) -> Interval:
    """How likely a score of ours is above one of theirs; equal ones count half.

    That is the Mann-Whitney U statistic over the number of pairs. The interval is by the stratified
    percentile bootstrap; of fewer than about 20 scores it is too narrow.

    Args:
        ours: S arrays (E,).
        theirs: as many or more, or fewer.

    Raises:
        ValueError: If there are no scores.
    """
    rng = np.random.default_rng(0)
    left, right = _together(ours), _together(theirs)
    samples = _share_above(left, right, _resampled(ours, rng), _resampled(theirs, rng))
    once = _share_above(left, right, np.ones((1, len(left)), int), np.ones((1, len(right)), int))
    low, high = _percentiles(samples)
    return Interval(estimate=float(once[0]), low=float(low), high=float(high))


def _together(strata: Strata) -> Floats:
    if not strata or not all(len(stratum) for stratum in strata):
        raise ValueError("no episodes were played")
    return np.concatenate(strata)


def _worth_resampling(strata: Strata) -> Strata:
    # A single score tells nothing of how far from it another would have been.
    return [_together(strata)] if any(len(stratum) == 1 for stratum in strata) else strata


def _resampled(strata: Strata, rng: np.random.Generator) -> _Counts:
    """Say how often each score is in each resample: (R, E of all strata)."""
    counts = []
    for stratum in _worth_resampling(strata):
        num = len(stratum)
        drawn = rng.integers(num, size=(_RESAMPLES_OF_PAIRS, num))
        drawn += num * np.arange(_RESAMPLES_OF_PAIRS)[:, None]
        flat = np.bincount(drawn.ravel(), minlength=drawn.size)
        counts.append(flat.reshape(drawn.shape))
    return np.concatenate(counts, axis=1)


def _below(scores: Floats, counts: _Counts) -> _Counts:
    """Say how many of the lowest 0 to E scores are in each resample: (R, E + 1)."""
    counts = counts[:, np.argsort(scores)]
    return np.pad(np.cumsum(counts, axis=1), ((0, 0), (1, 0)))


def _share_above(
    ours: Floats, theirs: Floats, our_counts: _Counts, their_counts: _Counts
) -> Floats:
    """Compare resamples pair by pair: (R,) shares of pairs in which ours is above."""
    below, theirs = _below(theirs, their_counts), np.sort(theirs)
    wins = below[:, np.searchsorted(theirs, ours, "left")]
    wins_and_ties = below[:, np.searchsorted(theirs, ours, "right")]
    halves = (our_counts * (wins + wins_and_ties)).sum(axis=1)
    return np.asarray(halves / (2 * len(ours) * len(theirs)), np.float64)


def _percentiles(samples: Floats) -> Floats:
    return np.percentile(samples, [50 * (1 - _CONFIDENCE), 50 * (1 + _CONFIDENCE)], axis=0)


def performance_profile(strata: Strata, thresholds: Floats) -> tuple[Floats, Floats, Floats]:
    """Give the share of scores above each threshold, and a pointwise 95 % band.

    Args:
        strata: S arrays (E,).
        thresholds: (P,).

    Returns:
        (P,) shares, and the (P,) lower and upper ends of the band, from 0 to 1.

    Raises:
        ValueError: If there are no scores.
    """
    scores = _together(strata)
    above = np.searchsorted(np.sort(scores), thresholds, "right")
    counts = _resampled(strata, np.random.default_rng(0))
    low, high = _percentiles((len(scores) - _below(scores, counts)[:, above]) / len(scores))
    return (len(scores) - above) / len(scores), low, high


def beyond_doubt(ours: Strata, theirs: Strata, chance: Interval) -> bool:
    """Whether one of two is better beyond doubt.

    That is where the interval of the probability of improvement leaves out one half. Where one of
    the two has few scores, the Mann-Whitney test has to agree (p < 0.05).

    Args:
        ours: S arrays (E,).
        theirs: as many or more, or fewer.
        chance: that ours is above theirs, by `probability_of_improvement`.
    """
    if chance.low <= 0.5 <= chance.high:
        return False
    left, right = _together(ours), _together(theirs)
    if min(len(left), len(right)) >= _FEW:
        return True
    return bool(stats.mannwhitneyu(left, right).pvalue < 1 - _CONFIDENCE)


def band(
    seeds: Sequence[tuple[Floats, Floats]], num_points: int = 200
) -> tuple[Floats, Floats, Floats, Floats]:
    """Bring the learning curves of several training seeds together.

    Args:
        seeds: of each training seed, (P,) env steps, increasing, and the (P,) values there.
        num_points: how many env steps to give, evenly spread over those that all seeds have.

    Returns:
        (num_points,) env steps, and the mean, the lowest and the highest of the seeds there.

    Raises:
        ValueError: If seeds have no env steps in common, or env steps that do not increase.
    """
    if not seeds or not all(len(steps) for steps, _ in seeds):
        raise ValueError("a learning curve needs at least one point")
    if not all((np.diff(steps) > 0).all() for steps, _ in seeds):
        raise ValueError("the env steps of a learning curve have to increase")
    first, last = max(steps[0] for steps, _ in seeds), min(steps[-1] for steps, _ in seeds)
    if first > last:
        raise ValueError(
            f"no env steps in common: one starts at {first:,.0f}, one ends at {last:,.0f}"
        )
    common = np.linspace(first, last, num_points)
    values = np.stack([np.interp(common, steps, values) for steps, values in seeds])
    return common, values.mean(axis=0), values.min(axis=0), values.max(axis=0)
