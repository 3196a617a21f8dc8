"""Tests of `evaluation.explain.interventions` and `evaluation.explain.seen`, in the engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents import observation_specs
from envs import EnvConfig, make
from envs.doom.sight import MONSTER
from evaluation.errors import EvaluationError
from evaluation.explain.interventions import (
    NULL,
    answers,
    chosen_moments,
    effect,
    interventions,
    over_episodes,
)
from evaluation.explain.pixels import PixelPolicy
from evaluation.explain.seen import Recorded, watch
from tests.agents.synthetic import make_policy

CONFIG = EnvConfig(env="basic", height=60, width=80, time_limit=40, frame_stack=2)


@pytest.fixture(scope="module")
def made():
    """A small recurrent policy, two episodes that it played, and every intervention."""
    env = make(CONFIG)
    specs, actions = observation_specs(env.observation_space, env.metadata), env.action_space
    env.close()
    policy = make_policy(specs=specs, actions=actions, memory="gru")
    episodes = watch(policy, CONFIG, [0, 1])
    pixels = PixelPolicy(policy)
    moments = chosen_moments(episodes, 2, CONFIG.frame_stack)
    return policy, pixels, episodes, dict(interventions(CONFIG, "obs", episodes, moments))


def test_a_recorded_episode_is_seen_again_and_another_one_is_refused(made):
    policy, _, episodes, _ = made
    first = episodes[0]
    (again,) = watch(policy, CONFIG, [0], Recorded(first.actions, first.rewards))
    np.testing.assert_array_equal(again.obs["obs"], first.obs["obs"])
    np.testing.assert_array_equal(again.memory_states, first.memory_states)
    assert again.facts["monster_in_view"].tolist() == [1.0] * len(first)
    with pytest.raises(EvaluationError, match="differs from the recording"):
        watch(policy, CONFIG, [0], Recorded(first.actions, first.rewards + 1.0))


def test_the_intervention_that_changes_nothing_has_no_effect(made):
    _, pixels, episodes, changes = made
    null = changes[NULL]
    np.testing.assert_array_equal(null.before, null.after)
    found = effect(pixels, episodes, null, 100.0)
    assert (found.pixels, found.states, found.episodes) == (0.0, 4, 2)
    for interval in (found.distance, found.switched, found.value, *found.choices):
        assert interval.low == interval.estimate == interval.high == 0.0


def test_the_control_changes_no_reward_where_particles_fly():
    config = EnvConfig(env="deadly_corridor", height=60, width=80, time_limit=100)
    env = make(config)
    specs, actions = observation_specs(env.observation_space, env.metadata), env.action_space
    env.close()
    episodes = watch(make_policy(specs=specs, actions=actions), config, [0])
    moments = chosen_moments(episodes, 10, 1)
    name, control = next(interventions(config, "obs", episodes, moments))
    assert name == NULL
    assert 0 < (control.before != control.after).mean() < 0.2
    paid = replace(episodes[0], rewards=episodes[0].rewards + 1.0)
    with pytest.raises(EvaluationError, match="deadly_corridor is not deterministic here"):
        next(interventions(config, "obs", [paid], moments))


def test_answers_before_a_change_are_those_of_the_policy_with_its_memory(made):
    policy, pixels, episodes, changes = made
    ours = answers(pixels, episodes, changes[NULL], 100.0, after=False)
    for b, moment in enumerate(changes[NULL].moments):
        seen, t = episodes[moment.episode], moment.step
        assert seen.memory_states[:, t].abs().sum() > 0
        obs = {"obs": torch.from_numpy(seen.obs["obs"][t : t + 1])}
        start = torch.zeros(1, dtype=torch.bool)
        decision = policy.act(obs, seen.memory_states[:, t : t + 1], start, None)
        np.testing.assert_allclose(ours.probabilities[b], decision.probabilities[0], rtol=1e-4)
        assert ours.values[b] == pytest.approx(100 * float(decision.values[0]), rel=1e-3, abs=1e-4)


def test_monsters_are_removed_from_every_stacked_frame_and_moved_in_each(made):
    _, _, episodes, changes = made
    removed, moved = changes["monsters removed"], changes["monsters moved right"]
    assert (moved.painted, removed.painted) == (True, False)
    by = round(CONFIG.width / 6)
    for b, moment in enumerate(removed.moments):
        for frame in range(2):
            kinds = episodes[moment.episode].kinds[moment.step - 1 + frame]
            rows, columns = np.nonzero(kinds == MONSTER)
            differs = removed.before[b, ..., frame] != removed.after[b, ..., frame]
            assert differs[rows, columns].mean() > 0.7
            assert differs.sum() == differs[rows, columns].sum()
            inside = columns + by < CONFIG.width
            np.testing.assert_array_equal(
                moved.after[b, rows[inside], columns[inside] + by, frame],
                removed.before[b, rows[inside], columns[inside], frame],
            )


def test_the_engine_draws_otherwise(made):
    _, pixels, episodes, changes = made
    shares = {name: effect(pixels, episodes, c, 1.0).pixels for name, c in changes.items()}
    assert 0 < shares["weapon hidden"] < 0.1 < shares["walls of grey stone"]
    assert min(shares["HUD shown"], shares["floor and ceiling of grey stone"]) > 0.3


def test_intervals_are_over_episodes():
    numbers, episode = np.array([1.0, 1.0, 1.0, 5.0]), np.array([0, 0, 0, 1])
    found = over_episodes(numbers, episode)
    assert (found.low, found.estimate, found.high) == (1.0, 3.0, 5.0)
