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

Floats = NDArray[np.float64]
Strata = Sequence[Floats]


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
    if not returns or not all(len(stratum) for stratum in returns):
        raise ValueError("no episodes were played")
    together = np.concatenate(returns)
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

    Args:
        strata: S arrays (E,).
        statistic: of an array along `axis`.
    """
    together = np.concatenate(strata)
    estimate = float(statistic(together, axis=-1))
    if together.min() == together.max():
        return Interval(estimate=estimate, low=estimate, high=estimate)
    interval = stats.bootstrap(
        tuple(strata),
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

    That is the Mann-Whitney U statistic over the number of pairs.

    Args:
        ours: S arrays (E,).
        theirs: as many or more, or fewer.
    """
    rng = np.random.default_rng(0)
    samples = [
        _share_above(_resampled(ours, rng), _resampled(theirs, rng))
        for _ in range(_RESAMPLES_OF_PAIRS)
    ]
    low, high = np.percentile(samples, [50 * (1 - _CONFIDENCE), 50 * (1 + _CONFIDENCE)])
    estimate = _share_above(np.concatenate(ours), np.concatenate(theirs))
    return Interval(estimate=estimate, low=float(low), high=float(high))


def _resampled(strata: Strata, rng: np.random.Generator) -> Floats:
    return np.concatenate([rng.choice(stratum, len(stratum)) for stratum in strata])


def _share_above(ours: Floats, theirs: Floats) -> float:
    theirs = np.sort(theirs)
    below = np.searchsorted(theirs, ours, "left") + np.searchsorted(theirs, ours, "right")
    return float(below.mean() / (2 * len(theirs)))


def performance_profile(strata: Strata, thresholds: Floats) -> tuple[Floats, Floats, Floats]:
    """Give the share of scores above each threshold, and a pointwise 95 % band.

    Args:
        strata: S arrays (E,).
        thresholds: (P,).

    Returns:
        (P,) shares, and the (P,) lower and upper ends of the band, from 0 to 1.
    """
    rng = np.random.default_rng(0)

    def shares(scores: Floats) -> Floats:
        above = len(scores) - np.searchsorted(np.sort(scores), thresholds, "right")
        return np.asarray(above / len(scores), np.float64)

    samples = np.array([shares(_resampled(strata, rng)) for _ in range(_RESAMPLES_OF_PAIRS)])
    low, high = np.percentile(samples, [50 * (1 - _CONFIDENCE), 50 * (1 + _CONFIDENCE)], axis=0)
    return shares(np.concatenate(strata)), low, high


def ranks(entries: Sequence[Strata]) -> list[int]:
    """Rank entries: 1 and one more for each that is better beyond doubt, so that equals share.

    One is better beyond doubt if the interval of its probability of improvement is above one half.
    """
    return [
        1 + sum(probability_of_improvement(other, entry).low > 0.5 for other in entries)
        for entry in entries
    ]
