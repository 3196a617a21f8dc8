"""Tests of `evaluation.playing`."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from scipy import stats

from agents import NoopPlayer, RandomPlayer, observation_specs
from envs import EnvConfig, SharedVectorEnv, make
from envs.speed import random_env_steps_per_second
from evaluation.entries import ZOO
from evaluation.playing import play_episodes, score_episodes
from perception import MEMORIES, VectorSpec
from storage.files import decode
from storage.policy_file import load_policy
from storage.recording import Episode
from tests.agents.synthetic import make_policy
from tests.agents.toy import ACTION_SPACES, LocalEnvs, counter_length

COUNTER = "tests.agents.toy:Counter-v0"


def counter_policy(memory="none"):
    """Make a policy of the environment `Counter`."""
    policy = make_policy(specs={"obs": VectorSpec(size=2)}, memory=memory, normalize_obs=True)
    normalizer = policy.perception.encoders["obs"].normalizer
    normalizer.mean.copy_(torch.tensor([24.3, 3.4]))
    normalizer.variance.fill_(9.0)
    return policy


def play(player, envs, episodes=20, seed=17, *, greedy=False):
    return list(play_episodes(player, envs, num_episodes=episodes, seed=seed, greedy=greedy))


@pytest.mark.parametrize("num_envs", [1, 3, 7, 20, 32])
def test_exactly_the_requested_seeds_are_played(num_envs):
    episodes = play(counter_policy(), LocalEnvs(COUNTER, num_envs))
    assert sorted(episode.seed for episode in episodes) == list(range(17, 37))
    for episode in episodes:
        steps = counter_length(episode.seed)
        assert len(episode.actions) == len(episode.values) == len(episode.rewards) == steps
        assert episode.probabilities.shape == (steps, 3)
        assert episode.statistics["l"] == steps
        # A reward encodes the env step and the action.
        np.testing.assert_array_equal(episode.rewards, 10 * np.arange(steps) + episode.actions)
        assert episode.episode_return == episode.rewards.sum()


def test_worker_processes_play_the_same_episodes():
    policy = counter_policy("lstm")
    with contextlib.closing(SharedVectorEnv(EnvConfig(env=COUNTER), 6, 2)) as envs:
        there = play(policy, envs)
    here = play(policy, LocalEnvs(COUNTER, 6))
    for left, right in zip(there, here, strict=True):
        assert left.seed == right.seed
        np.testing.assert_array_equal(left.actions, right.actions)
        np.testing.assert_array_equal(left.rewards, right.rewards)


def test_episodes_do_not_depend_on_earlier_episodes_of_the_engines():
    """Values are compared too, because they depend on every pixel."""
    file = load_policy(ZOO / "basic" / "policy.safetensors")
    config = decode(EnvConfig, file.env)
    played = []
    for steps_before in (1, 40):
        with contextlib.closing(SharedVectorEnv(config, 4, 2)) as envs:
            random_env_steps_per_second(envs, steps_before)
            played.append(play(file.policy, envs, 12))
    for episode, expected in zip(*played, strict=True):
        assert episode.seed == expected.seed
        np.testing.assert_array_equal(episode.values, expected.values)
        np.testing.assert_array_equal(episode.rewards, expected.rewards)


@pytest.mark.parametrize("memory", MEMORIES)
def test_greedy_results_do_not_depend_on_the_number_of_environments(memory):
    policy = counter_policy(memory)
    policy.actor.layer.weight.data.mul_(100)
    reference = None
    for num_envs in (1, 4, 9):
        episodes = play(policy, LocalEnvs(COUNTER, num_envs), greedy=True)
        assert all(episode.greedy for episode in episodes)
        actions = {episode.seed: episode.actions.tolist() for episode in episodes}
        reference = reference or actions
        assert actions == reference
    assert len({action for chosen in reference.values() for action in chosen}) > 1


PLAYERS = {
    "none": (COUNTER, lambda space: counter_policy()),
    "lstm": (COUNTER, lambda space: counter_policy("lstm")),
    "random": (COUNTER, RandomPlayer),
    "random, several choices": ("tests.agents.toy:IdentityMultiDiscrete-v0", RandomPlayer),
    "random, numbers": ("tests.agents.toy:IdentityBox-v0", RandomPlayer),
}


def assert_same_episodes(left, right):
    """Compare episodes of the same seeds, in any order."""
    left, right = ({episode.seed: episode for episode in each} for each in (left, right))
    assert left.keys() == right.keys()
    for seed, episode in left.items():
        other = right[seed]
        np.testing.assert_array_equal(episode.actions, other.actions)
        np.testing.assert_array_equal(episode.rewards, other.rewards)
        assert episode.statistics == other.statistics
        # Rounding depends on the number of observations in a batch.
        np.testing.assert_allclose(episode.values, other.values, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(episode.probabilities, other.probabilities, atol=1e-5)


@pytest.mark.parametrize("name", PLAYERS)
def test_sampled_results_do_not_depend_on_the_number_of_environments(name):
    env_id, make_player = PLAYERS[name]
    player = make_player(LocalEnvs(env_id, 1).single_action_space)
    alone, *others = (play(player, LocalEnvs(env_id, num_envs)) for num_envs in (1, 3, 4))
    for episodes in others:
        assert_same_episodes(episodes, alone)
    assert len({tuple(episode.actions.flat) for episode in alone}) > 10


def test_actions_are_drawn_independently_of_the_environment():
    # Both are seeded by the episode's seed. If actions were drawn from the same numbers, random
    # actions would predict the environment.
    envs = LocalEnvs("tests.agents.toy:IdentityDiscrete-v0", 4)
    episodes = play(RandomPlayer(envs.single_action_space), envs, episodes=50)
    rewards = np.concatenate([episode.rewards for episode in episodes])
    assert rewards.mean() == pytest.approx(1 / 3, abs=5 * (2 / 9 / len(rewards)) ** 0.5)


@pytest.mark.slow
def test_random_actions_in_doom_do_not_depend_on_the_number_of_environments():
    config, played = EnvConfig(env="basic", time_limit=60), []
    for num_envs, num_workers in ((1, 1), (3, 2), (4, 1)):
        with contextlib.closing(SharedVectorEnv(config, num_envs, num_workers)) as envs:
            played.append(play(RandomPlayer(envs.single_action_space), envs, episodes=6))
    for episodes in played[1:]:
        assert_same_episodes(episodes, played[0])


def test_a_recorded_episode_can_be_simulated_again_from_its_seed_and_actions():
    env_id = "CartPole-v1"
    env = make(EnvConfig(env=env_id))
    player = RandomPlayer(env.action_space)
    for episode in play(player, LocalEnvs(env_id, 4), episodes=6):
        env.reset(seed=episode.seed)
        total = 0.0
        for step, action in enumerate(episode.actions):
            _, reward, terminated, truncated, _ = env.step(action)
            total += reward
            assert (terminated or truncated) == (step == len(episode.actions) - 1)
        assert total == episode.episode_return


def test_sampled_results_repeat_with_the_seed_and_leave_torchs_generator_alone():
    policy = counter_policy()
    before = torch.get_rng_state()
    first, again = (play(policy, LocalEnvs(COUNTER, 3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left.actions, right.actions)
    # An episode depends on its own seed only, not on that of the first episode.
    later = play(policy, LocalEnvs(COUNTER, 3), episodes=17, seed=20)
    assert_same_episodes(later, [episode for episode in first if episode.seed >= 20])


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_actions_of_every_kind_are_recorded(name):
    envs = LocalEnvs(f"tests.agents.toy:Identity{name}-v0", 2)
    space = envs.single_action_space
    specs = observation_specs(envs.single_observation_space, {})
    for player in (make_policy(specs=specs, actions=space), RandomPlayer(space), NoopPlayer(space)):
        for episode in play(player, envs, episodes=3):
            assert episode.actions.shape == (16, *(space.shape or ()))


def test_environments_can_be_used_repeatedly():
    envs = LocalEnvs(COUNTER, 5)
    for seed in (0, 40, 0):
        played = play(counter_policy(), envs, episodes=7, seed=seed)
        assert sorted(episode.seed for episode in played) == list(range(seed, seed + 7))


def episode_of(value, length=4):
    return Episode(
        seed=0,
        greedy=False,
        actions=np.zeros(length, int),
        rewards=np.full(length, value / length),
        values=np.zeros(length, np.float32),
        probabilities=np.zeros((length, 2), np.float32),
        terminated=True,
        gamma=0.0,
        statistics={"r": value, "l": length},
    )


def test_a_score_equals_numbers_computed_by_hand():
    score = score_episodes([episode_of(1.0, 2), episode_of(2.0, 4), episode_of(6.0, 9)])
    # The standard deviation is sqrt((4 + 1 + 9) / 2).
    assert score.episodes == 3
    assert score.mean == 3.0
    assert score.std == pytest.approx(7**0.5)
    assert (score.median, score.min, score.max) == (2.0, 1.0, 6.0)
    assert score.mean_length == 5.0
    assert score.as_dict()["ci_low"] == score.ci_low


def test_the_interval_equals_scipys():
    returns = np.random.default_rng(1).normal(10, 5, 40)
    score = score_episodes([episode_of(float(value)) for value in returns])
    expected = stats.bootstrap(
        (returns,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert score.ci_low == pytest.approx(expected.low, rel=1e-12)
    assert score.ci_high == pytest.approx(expected.high, rel=1e-12)
    # The normal interval of a mean, 1.96 standard errors on either side, is close to it.
    error = returns.std(ddof=1) / 40**0.5
    assert score.ci_low == pytest.approx(score.mean - 1.96 * error, abs=0.2 * error)
    assert score.ci_high == pytest.approx(score.mean + 1.96 * error, abs=0.2 * error)


def test_the_interval_of_two_returns_is_known():
    # Means of resamples of 0 and 1 are 0, 0.5 and 1 with probabilities 1/4, 1/2 and 1/4. The
    # percentiles 2.5 and 97.5 are 0 and 1.
    score = score_episodes([episode_of(0.0), episode_of(1.0)])
    assert (score.ci_low, score.ci_high) == (0.0, 1.0)


@pytest.mark.parametrize("count", [1, 5])
def test_equal_returns_have_an_interval_without_width(count):
    score = score_episodes([episode_of(7.0)] * count)
    assert (score.mean, score.std, score.ci_low, score.ci_high) == (7.0, 0.0, 7.0, 7.0)


def test_no_episodes_have_no_score():
    with pytest.raises(ValueError, match="no episodes were played"):
        score_episodes([])


def test_an_episode_whose_environment_failed_is_repeated_and_scores_the_same():
    config = EnvConfig(env="defend_the_center", time_limit=80)
    returns, killed = [], False
    for kill in (False, True):
        with contextlib.closing(SharedVectorEnv(config, 2, 2)) as envs:
            specs = observation_specs(envs.single_observation_space, envs.metadata)
            policy = make_policy(specs=specs, actions=envs.single_action_space)
            episodes = play_episodes(policy, envs, num_episodes=4, seed=0, greedy=False)
            played = [next(episodes)]
            if kill:
                envs._workers[0].process.kill()
            played += list(episodes)
            killed = envs.num_restarts > 0
        played.sort(key=lambda episode: episode.seed)
        returns.append([(e.seed, e.actions.tolist(), e.episode_return) for e in played])
    assert killed
    assert returns[0] == returns[1]
