"""Ratings of players from the results of their matches.

In the model of Bradley and Terry (1952), player i beats player j with the probability

    p_ij = 1 / (1 + 10 ** ((r_j - r_i) / 400))

where r are ratings, here on the scale of Elo. A draw counts as half a win. Ratings are the maximum
of the likelihood, which is concave and is found by Newton's method. Axes: K players.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.statistics import percentile_interval

Floats = NDArray[np.float64]
Pair = tuple[int, int]
SCALE = 400.0  # Elo: a difference of 400 means that the stronger one wins ten of eleven.
_MOST_ROUNDS = 100
_TOLERANCE = 1e-9
_LONGEST_STEP = 2.0  # Of Newton's method, in logits: longer ones may lead away.
_RESAMPLES = 1_000
# Half a draw against an imaginary player of average strength, for each player: without it, one that
# has won all matches would have an infinite rating.
_PRIOR_MATCHES = 0.5
_RESULTS = np.array([1.0, 0.5, 0.0])
_JEFFREYS = 0.5


@dataclass(frozen=True, kw_only=True)
class Rating:
    """A rating with the ends of its 95 % interval, relative to the mean or to an anchor."""

    rating: float
    low: float
    high: float


def bradley_terry(scores: Floats, *, prior: float = _PRIOR_MATCHES) -> Floats:
    """Return the ratings under which results are most likely, (..., K), with mean 0.

    Args:
        scores: (..., K, K), the points that player i has won against player j: a win 1, a draw 0.5.
        prior: matches against an imaginary player of average strength, all drawn; 0 gives the
            maximum of the likelihood itself, which is infinite for who has lost or won all matches.

    Raises:
        ValueError: If a table is not square, or holds a negative number.
    """
    if scores.ndim < 2 or scores.shape[-1] != scores.shape[-2] or (scores < 0).any():
        raise ValueError(f"scores are a square table of points, got shape {scores.shape}")
    count = scores.shape[-1]
    played = scores + np.swapaxes(scores, -1, -2)
    won = scores.sum(axis=-1)
    # Without a prior only differences matter: then the mean is held where it is.
    held = 0.0 if prior else 1.0
    logits: Floats = np.zeros(scores.shape[:-1])  # Natural logarithms of strengths.
    for _ in range(_MOST_ROUNDS):
        expected = 1 / (1 + np.exp(logits[..., None, :] - logits[..., :, None]))
        # Against the imaginary player, whose logit is 0.
        average = 1 / (1 + np.exp(-logits))
        gradient = won - (played * expected).sum(axis=-1) + prior * (0.5 - average)
        weights = played * expected * (1 - expected)
        diagonal = weights.sum(axis=-1) + prior * average * (1 - average)
        hessian = diagonal[..., None] * np.eye(count) - weights + held
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        logits = logits + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        if np.abs(step).max() < _TOLERANCE:
            break
    ratings: Floats = SCALE * logits / np.log(10)
    centred: Floats = ratings - ratings.mean(axis=-1, keepdims=True)
    return centred


def win_probability(difference: float) -> float:
    """Return how likely a player wins whose rating is higher by a difference."""
    return float(1 / (1 + 10 ** (-difference / SCALE)))


def rate(
    results: dict[Pair, Floats],
    count: int,
    *,
    anchor: int | None = None,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> list[Rating]:
    """Return the ratings of K players with 95 % intervals, by a Bayesian bootstrap over matches.

    What share of a pair's matches is won, drawn and lost is drawn from its posterior, a Dirichlet
    distribution with half a match of each kind as the prior (Jeffreys). Drawing the matches
    themselves again would give an interval of no width where one player has won them all.

    Args:
        results: for each pair (i, j), i < j, the result of each match: 1 if i won, 0.5, or 0.
        count: K.
        anchor: the player whose rating is 0 by definition; None: the mean is 0.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        Percentile intervals. They say which ratings agree with the matches that were played.
    """
    rng = np.random.default_rng(seed)
    sums = {pair: np.array([each.sum()]) for pair, each in results.items()}
    lengths = {pair: len(each) for pair, each in results.items()}
    (estimate,) = _anchored(bradley_terry(_tables(sums, lengths, count)), anchor)
    again = {}
    for pair, each in results.items():
        counts = [(each == result).sum() for result in _RESULTS]
        shares = rng.dirichlet(np.add(counts, _JEFFREYS), resamples)
        again[pair] = len(each) * shares @ _RESULTS
    drawn = _anchored(bradley_terry(_tables(again, lengths, count)), anchor)
    # Where one player has won all matches, the estimate is at one end of what can be drawn.
    low, high = percentile_interval(drawn)
    low, high = np.minimum(low, estimate), np.maximum(high, estimate)
    return [
        Rating(rating=float(r), low=float(a), high=float(b))
        for r, a, b in zip(estimate, low, high, strict=True)
    ]


def _tables(sums: dict[Pair, Floats], lengths: dict[Pair, int], count: int) -> Floats:
    """Return tables of points, (R, K, K), from the points of the first player of each pair."""
    scores: Floats = np.zeros((len(next(iter(sums.values()))), count, count))
    for (i, j), points in sums.items():
        scores[:, i, j] = points
        scores[:, j, i] = lengths[i, j] - points
    return scores


def _anchored(ratings: Floats, anchor: int | None) -> Floats:
    return ratings if anchor is None else ratings - ratings[:, anchor : anchor + 1]
