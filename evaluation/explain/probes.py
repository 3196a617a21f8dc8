"""What a policy knows: which facts a linear function can read from its features.

A probe is a ridge regression from features to a fact, tested on episodes that it was not fitted
on: frames of one episode are too alike to be divided. A fact that is true or false is regressed
too, and scored by how well the prediction separates true from false.

Axes: B states, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from agents.device import single_thread
from agents.policy import Policy
from evaluation.explain.seen import Seen
from evaluation.statistics import Interval, percentile_interval

Floats = NDArray[np.float64]
_FOLDS = 5
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # Per state; chosen on episodes of the training folds.
_FEWEST = 20  # States that have a fact; with fewer, no probe is fitted.
_RESAMPLES = 500


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How well a fact can be read.

    Attributes:
        score: of a number, the share of its variance that is explained (R^2); of a fact that is
            true or false, 2 AUC - 1. 1 is perfect, 0 is chance. The interval is the 95 % bootstrap
            over episodes.
        states: the number of states that have the fact.
        is_binary: whether it is true or false.
    """

    score: Interval
    states: int
    is_binary: bool


@torch.no_grad()
def features_of(policy: Policy, episodes: Sequence[Seen]) -> tuple[Floats, Floats]:
    """Return what a policy computes in every env step of episodes.

    Args:
        policy: the policy, which need not be the one that played.
        episodes: the episodes.

    Returns:
        (B, F) features before the memory, and (B, F) features after it; without a memory, both are
        the same.
    """
    before, after = [], []
    with single_thread():
        for seen in episodes:
            parts = {name: torch.from_numpy(seen.obs[name]) for name in policy.specs}
            before.append(policy.perception.encode(parts).numpy())
            sequence = {name: part[:, None] for name, part in parts.items()}
            output = policy(sequence, policy.initial_state(1), seen.starts[:, None])
            after.append(output.features[:, 0].numpy())
    return np.concatenate(before).astype(np.float64), np.concatenate(after).astype(np.float64)


def probes(
    features: Floats, facts: Mapping[str, Floats], episode: NDArray[np.int64]
) -> dict[str, Probe]:
    """Fit and test a probe for each fact that varies.

    Args:
        features: (B, F).
        facts: (B,) by name; NaN where there is no such fact.
        episode: (B,), the episode of each state; at least two.
    """
    return {
        name: found
        for name, values in facts.items()
        if (found := probe(features, values, episode)) is not None
    }


def probe(features: Floats, fact: Floats, episode: NDArray[np.int64]) -> Probe | None:
    """Fit and test a probe for a fact; None if too few states or episodes have it, or it is fixed.

    Args:
        features: (B, F).
        fact: (B,), NaN where there is none.
        episode: (B,), the episode of each state.
    """
    there = np.isfinite(fact)
    features, fact, episode = features[there], fact[there], episode[there]
    own = np.unique(episode)
    if len(fact) < _FEWEST or len(own) < 2 or fact.min() == fact.max():
        return None
    is_binary = bool(np.isin(fact, (0.0, 1.0)).all())
    predicted = np.empty(len(fact))
    for test in np.array_split(np.random.default_rng(0).permutation(own), min(_FOLDS, len(own))):
        held = np.isin(episode, test)
        predicted[held] = _fitted(features[~held], fact[~held], episode[~held], features[held])
    score = separation if is_binary else explained
    rng, scores = np.random.default_rng(0), []
    rows = [np.flatnonzero(episode == e) for e in own]
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        if fact[drawn].min() < fact[drawn].max():
            scores.append(score(fact[drawn], predicted[drawn]))
    low, high = percentile_interval(scores)
    return Probe(
        score=Interval(estimate=score(fact, predicted), low=float(low), high=float(high)),
        states=len(fact),
        is_binary=is_binary,
    )


def _fitted(features: Floats, fact: Floats, episode: NDArray[np.int64], others: Floats) -> Floats:
    """Return the predictions for other features; how much is regularised is chosen on episodes."""
    validation = np.isin(episode, np.unique(episode)[::3])
    ridge = _RIDGES[len(_RIDGES) // 2]
    if 0 < validation.sum() < len(fact):
        tried = ridge_predictions(
            features[~validation], fact[~validation], features[validation], _RIDGES
        )
        errors = ((tried - fact[validation]) ** 2).mean(axis=1)
        ridge = _RIDGES[int(errors.argmin())]
    predicted: Floats = ridge_predictions(features, fact, others, (ridge,))[0]
    return predicted


def ridge_predictions(
    features: Floats, fact: Floats, others: Floats, ridges: Sequence[float]
) -> Floats:
    """Return what ridge regressions predict, (number of ridges, number of others).

    Args:
        features: (B, F), to fit on; each is scaled to standard deviation 1.
        fact: (B,), to fit on.
        others: (C, F), to predict for.
        ridges: penalties of the squared weights, each per state.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation[deviation < 1e-8] = np.inf  # Features that are always the same say nothing.
    x, y = (features - mean) / deviation, fact - fact.mean()
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    along = vectors.T @ (x.T @ y / len(x))
    projected = ((others - mean) / deviation) @ vectors
    weights = [along / (values.clip(min=0.0) + ridge) for ridge in ridges]
    return np.asarray(np.stack([projected @ w for w in weights]) + fact.mean(), np.float64)


def explained(fact: Floats, predicted: Floats) -> float:
    """Return R^2: the share of the variance that predictions explain; at least -1."""
    left = ((fact - predicted) ** 2).mean() / fact.var()
    return float(max(-1.0, 1.0 - left))


def separation(fact: Floats, predicted: Floats) -> float:
    """Return 2 AUC - 1, for a fact of 0 and 1: 1 if every true state is predicted above the others.

    AUC is the Mann-Whitney U statistic divided by the number of pairs.
    """
    ranks = stats.rankdata(predicted)
    true = fact == 1.0
    above = ranks[true].sum() - true.sum() * (true.sum() + 1) / 2
    return float(2 * above / (true.sum() * (~true).sum()) - 1)
