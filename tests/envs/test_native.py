"""Tests of `envs.native`: what is reported is native, whatever wrappers do to rewards."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from envs import EnvConfig, make
from envs.errors import ContractError
from envs.native import Native, Reported, as_number
from tests.envs.toy import LENGTH

TOY = "tests.envs.toy"
TRIPLED = (f"{TOY}:Tripled", f"{TOY}:one_more")  # A reward of r becomes 3 r + 1.
NATIVE_RETURN = sum(range(1, LENGTH + 1))


def play(**options):
    """Play an episode of action 0; return the rewards and the last info."""
    env = make(EnvConfig(**options))
    env.reset(seed=1)
    rewards, ended = [], False
    while not ended:
        _, reward, terminated, truncated, info = env.step(0)
        rewards.append(reward)
        ended = terminated or truncated
    env.close()
    return rewards, info


@pytest.mark.parametrize("frame_skip", [1, 4])
def test_wrappers_change_what_is_learned_from_and_not_what_is_reported(frame_skip):
    options = {"env": f"{TOY}:Shifted-v0", "frame_skip": frame_skip}
    rewards, info = play(**options, wrappers=TRIPLED)
    assert sum(rewards) == 3 * NATIVE_RETURN + LENGTH
    assert info["statistics"] == {"r": NATIVE_RETURN, "l": len(rewards)}
    native, plain = play(**options, wrappers=TRIPLED, native_reward=True), play(**options)
    assert native[0] == plain[0]
    assert native[1]["statistics"] == plain[1]["statistics"] == info["statistics"]


def test_doom_in_wrappers_reports_native_statistics():
    options = {"env": "basic", "time_limit": 40, "height": 40, "width": 40}
    shaped, info = play(**options, wrappers=TRIPLED)
    plain, expected = play(**options)
    assert info["statistics"] == expected["statistics"]
    assert shaped == [3 * reward + 1 for reward in plain]
    assert play(**options, wrappers=TRIPLED, native_reward=True)[0] == plain


def test_evaluations_are_native_only_where_there_are_wrappers():
    assert EnvConfig(wrappers=TRIPLED).whole_games().native_reward
    assert not EnvConfig().whole_games().native_reward


def test_names_of_ours_in_a_users_info_attributes_and_metadata_have_no_effect():
    env = make(EnvConfig(env=f"{TOY}:Claiming-v0"))
    assert (env.metadata["channels"], env.metadata["palette"], env.metadata["left_out"]) == (
        (),
    ) * 3
    env.reset(seed=0)
    infos = [env.step(0)[4] for _ in range(LENGTH)]
    assert infos[0]["statistics"] == 5
    assert infos[-1]["statistics"] == {"r": NATIVE_RETURN, "l": LENGTH}


@pytest.mark.parametrize(
    "reward", [1, 1.0, True, np.float32(1), np.array([1.0]), np.array([[1]]), [1.0]]
)
def test_one_element_is_a_number(reward):
    assert as_number(reward, "it") == 1.0


@pytest.mark.parametrize("reward", [None, "1", [1.0, 2.0], np.zeros((2, 1)), {}, 1j])
def test_other_rewards_are_refused_by_name(reward):
    with pytest.raises(ContractError, match=r"^it returns the reward .*, which is not a number$"):
        as_number(reward, "it")


def test_gymnasiums_statistics_are_left_alone():
    env = gym.wrappers.RecordEpisodeStatistics(make(EnvConfig(env=f"{TOY}:Shifted-v0")))
    env.reset(seed=0)
    for _ in range(LENGTH):
        info = env.step(0)[4]
    assert info["episode"]["r"] == info["statistics"]["r"]


class LivesAsEpisodes(gym.Wrapper):
    """Ends an episode with each life, and resets the game only after the last one."""

    def __init__(self, env):
        super().__init__(env)
        self.over = True

    def reset(self, **kwargs):
        if not self.over:
            return self.env.step(0)[0], {}  # The game goes on.
        self.over = False
        return self.env.reset(**kwargs)

    def step(self, action):
        observation, reward, self.over, truncated, info = self.env.step(action)
        self.steps = getattr(self, "steps", 0) + 1
        return observation, reward, self.over or self.steps % 3 == 0, truncated, info


class Generous(gym.Env):
    """Pays 1, 2, 3, ... and ends after nine steps."""

    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def reset(self, **_):
        self.paid = 0
        return np.zeros(2, np.float32), {}

    def step(self, _):
        self.paid += 1
        return np.zeros(2, np.float32), float(self.paid), self.paid == 11, False, {}


@pytest.mark.parametrize("native_reward", [False, True])
def test_an_episode_of_wrappers_has_the_rewards_that_were_paid_during_it(native_reward):
    native = Native(Generous(), "Generous")
    env = Reported(LivesAsEpisodes(native), native, "Generous", native_reward=native_reward)
    env.reset()
    returns, rewards = [], []
    for _ in range(9):
        _, reward, terminated, _, info = env.step(0)
        rewards.append(reward)
        if terminated:
            returns.append((info["statistics"]["r"], info["statistics"]["l"]))
            env.reset()
    # What the wrapper earns as it starts an episode, 4 and 8, belongs to that episode.
    native_rewards = [1, 2, 3, 4 + 5, 6, 7, 8 + 9, 10, 11]
    assert rewards == (native_rewards if native_reward else [1, 2, 3, 5, 6, 7, 9, 10, 11])
    assert returns == [(6, 3), (22, 3), (38, 3)]
