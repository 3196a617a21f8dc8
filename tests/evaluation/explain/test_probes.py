"""Tests of `evaluation.explain.probes`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from evaluation.explain.probes import features_of, probe, ridge_predictions, separation
from evaluation.explain.seen import Seen, with_past
from tests.agents.synthetic import make_obs, make_policy

EPISODES, STEPS, FEATURES = 12, 20, 10


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(EPISODES), STEPS)
    return rng, rng.standard_normal((len(episode), FEATURES)), episode


@pytest.mark.parametrize("is_binary", [False, True])
def test_a_fact_in_the_features_scores_1_and_noise_0(data, is_binary):
    rng, features, episode = data
    fact = features @ rng.standard_normal(FEATURES)
    if is_binary:
        fact = (fact > 0).astype(float)
    found = probe(features, fact, episode)
    assert (found.is_binary, found.states) == (is_binary, len(fact))
    assert found.score.estimate > (0.98 if is_binary else 0.999)
    noise = probe(rng.standard_normal(features.shape), fact, episode)
    assert noise.score.estimate == pytest.approx(0.0, abs=0.2)
    assert noise.score.low <= noise.score.estimate <= noise.score.high


def test_frames_of_one_episode_are_never_divided(data):
    _, _, episode = data
    # A fact of each episode as a whole, with features that say which episode it is.
    fact = np.random.default_rng(1).standard_normal(EPISODES)[episode]
    found = probe(np.eye(EPISODES)[episode], fact, episode)
    assert found.score.estimate < 0.1  # Divided at random, frames would score 1.


def test_a_fact_that_is_rare_or_fixed_has_no_probe(data):
    _, features, episode = data
    assert probe(features, np.ones(len(episode)), episode) is None
    rare = np.where(np.arange(len(episode)) < 5, 1.0, np.nan)
    assert probe(features, rare, episode) is None


def test_ridge_and_separation_equal_their_definitions(data):
    rng, features, _ = data
    fact, others = rng.standard_normal(len(features)), rng.standard_normal((5, FEATURES))
    x = (features - features.mean(0)) / features.std(0)
    weights = np.linalg.solve(x.T @ x + 0.5 * len(x) * np.eye(FEATURES), x.T @ (fact - fact.mean()))
    expected = (others - features.mean(0)) / features.std(0) @ weights + fact.mean()
    np.testing.assert_allclose(ridge_predictions(features, fact, others, (0.5,))[0], expected)
    true, predicted = (fact > 0).astype(float), rng.standard_normal(len(fact)).round(1)
    u = stats.mannwhitneyu(predicted[true == 1], predicted[true == 0]).statistic
    auc = u / ((true == 1).sum() * (true == 0).sum())
    assert separation(true, predicted) == pytest.approx(2 * auc - 1)


def test_features_are_those_of_stepping_with_memory_and_the_past_is_shifted():
    policy = make_policy(memory="gru")
    obs = {name: part[:, 0].numpy() for name, part in make_obs(policy.specs, 6, 1).items()}
    seen = Seen(
        seed=0,
        obs=obs,
        memory_states=torch.zeros(1, 6, 6),
        actions=np.zeros(6, np.int64),
        rewards=np.zeros(6),
        facts={"monster_in_view": np.arange(6.0)},
    )
    _, after = features_of(policy, [seen])
    state = policy.initial_state(1)
    with torch.no_grad():
        for t in range(6):
            one = {name: torch.from_numpy(part[t])[None, None] for name, part in obs.items()}
            output = policy(one, state, torch.tensor([[t == 0]]))
            state = output.memory_state
            np.testing.assert_allclose(after[t], output.features[0, 0], rtol=1e-4, atol=1e-6)
    past = with_past(seen, ["monster_in_view"], 2).facts["monster_in_view 2 env steps ago"]
    np.testing.assert_array_equal(past, [np.nan, np.nan, 0, 1, 2, 3])
