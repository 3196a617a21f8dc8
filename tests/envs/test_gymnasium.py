"""Doom in Gymnasium: made by its functions, checked by its checkers, wrapped in its wrappers."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from envs import SCENARIOS, SharedVectorEnv
from envs.registry import DOOMGRAD_IDS
from tests.envs import processes

BASIC = "doomgrad/Basic-v0"
IDS = {name: env_id for env_id, name in DOOMGRAD_IDS.items()}

# Options for each scenario; together they cover all options that change spaces.
OPTIONS = {
    "basic": {},
    "basic_audio": {"observation": "rgb"},
    "basic_notifications": {"observation": "gray"},
    "simpler_basic": {"frame_stack": 4},
    "learning": {"actions": "groups"},
    "rocket_basic": {"actions": "combinations", "frame_skip": 1},
    "deadly_corridor": {"extra_channels": ("depth", "labels", "automap")},
    "defend_the_center": {"variables": True},
    "defend_the_line": {"variables": True, "frame_stack": 3, "observation": "rgb"},
    "health_gathering": {"skill": 1, "frame_skip": 7},
    "health_gathering_supreme": {"time_limit": 100, "variables": True, "actions": "groups"},
    "my_way_home": {"height": 60, "width": 80},
    "predict_position": {"height": 84, "width": 84, "observation": "gray", "frame_stack": 4},
    "take_cover": {"height": 43, "width": 57, "extra_channels": ("labels",), "frame_stack": 2},
    "deathmatch": {"variables": True, "extra_channels": ("depth",), "observation": "rgb"},
    "freedoom1:E1M1": {},
    "freedoom2:MAP01": {"enemy_in_view": True},
}
# What these change, others of the list change too.
SLOW = {"basic_notifications", "simpler_basic", "health_gathering", "my_way_home", "freedoom1:E1M1"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in OPTIONS]
)
def test_every_scenario_passes_gymnasiums_checker_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(IDS[name], render_mode="rgb_array", **OPTIONS[name])
        check_env(env.unwrapped)
    env.close()


def test_no_scenario_is_left_out():
    assert OPTIONS.keys() >= SCENARIOS.keys()


def test_an_environment_can_be_made_without_an_import(tmp_path):
    script = """
import gymnasium
env = gymnasium.make("envs:doomgrad/Basic-v0", observation="rgb", height=60, width=80)
print(env.reset(seed=0)[0].shape)
env.close()
envs = gymnasium.make_vec("envs:doomgrad/Basic-v0", num_envs=2, num_workers=1)
print(envs.reset(seed=0)[0].shape, type(envs).__name__)
envs.close()
"""
    output = processes.run_script(script, tmp_path)
    assert output == "(60, 80, 3)\n(2, 72, 128, 1) SharedVectorEnv\n"


def test_make_vec_uses_worker_processes_by_default():
    for mode in (None, "vector_entry_point"):
        options = {"num_workers": 1, "observation": "gray", "frame_skip": 8}
        envs = gym.make_vec(BASIC, num_envs=3, vectorization_mode=mode, **options)
        assert isinstance(envs, SharedVectorEnv)
        assert (envs.num_envs, envs.num_workers) == (3, 1)
        assert (envs.config.observation, envs.config.frame_skip) == ("gray", 8)
        envs.close()
    again = gym.make_vec(envs.spec)
    assert isinstance(again, SharedVectorEnv)
    assert (again.num_envs, again.num_workers, again.config) == (3, 1, envs.config)
    again.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gym.make(BASIC, hieght=60), "hieght is not an option .*; did you mean height\\?"),
        (
            lambda: gym.make_vec(BASIC, 2, max_episode_steps=9),
            "not an option .*; there are .*time_lim",
        ),
        (lambda: gym.make(BASIC, height=0), "height must be at least 1"),
        (lambda: gym.make_vec(BASIC, 2, num_workers=0), "num_workers must be at least 1"),
        (lambda: gym.make_vec(BASIC, 2, render_mode="rgb_array"), "use vectorization_mode="),
    ],
)
def test_wrong_options_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as refusal:
        make()
    assert "\n" not in str(refusal.value)


# Short episodes: some end with a kill, and some run out of time.
SHORT = {"variables": True, "time_limit": 40, "height": 60, "width": 80, "actions": "groups"}


def same(ours, theirs):
    """Check that observations are equal, of all environments or of one."""
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasiums_vector_environments_have_the_same_episodes(mode):
    ours = gym.make_vec(BASIC, num_envs=4, num_workers=2, **SHORT)
    kwargs = {"autoreset_mode": AutoresetMode.SAME_STEP}
    theirs = gym.make_vec(BASIC, 4, vectorization_mode=mode, vector_kwargs=kwargs, **SHORT)
    try:
        assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
        for name in ("observation_space", "action_space", "single_observation_space"):
            assert getattr(ours, name) == getattr(theirs, name)
        same(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
        ours.action_space.seed(0)
        first = np.ones(4, bool)  # After an episode's end they draw other seeds.
        while first.any():
            actions = ours.action_space.sample()
            one, other = ours.step(actions), theirs.step(actions)
            for a, b in zip(one[1:4], other[1:4], strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a[first], b[first])
            for lane in np.flatnonzero((one[2] | one[3]) & first):
                same(one[4]["final_obs"][lane], other[4]["final_obs"][lane])
                final, expected = one[4]["final_info"], other[4]["final_info"]
                for key in ours.unwrapped.info_keys:
                    assert final[key][lane] == expected[key][lane]
                for key in ours.unwrapped.episode_keys:
                    assert final["episode"][key][lane] == expected["statistics"][key][lane]
                first[lane] = False
            same(*({n: part[first] for n, part in obs.items()} for obs in (one[0], other[0])))
            for key in ours.unwrapped.info_keys:
                np.testing.assert_array_equal(one[4][key][first], other[4][key][first])
    finally:
        ours.close()
        theirs.close()


def test_with_gymnasiums_default_there_is_a_step_between_two_episodes():
    ours = gym.make_vec(BASIC, num_envs=1, **SHORT)
    theirs = gym.make_vec(BASIC, num_envs=1, vectorization_mode="sync", **SHORT)
    try:
        assert theirs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
        ours.reset(seed=3)
        theirs.reset(seed=3)
        noop = np.zeros((1, 2), np.int64)
        for _ in range(10):
            one, other = ours.step(noop), theirs.step(noop)
        assert one[3].tolist() == other[3].tolist() == [True]
        # Their observation is our final one; they return our observation after an extra step
        # without a reward.
        same(one[4]["final_obs"][0], {name: part[0] for name, part in other[0].items()})
        obs, rewards, terminated, truncated, _ = theirs.step(noop)
        assert (rewards[0], terminated[0], truncated[0]) == (0, False, False)
        assert theirs.step(noop)[1][0] == ours.step(noop)[1][0] == -4
        assert obs["variables"][0] == one[0]["variables"][0]
    finally:
        ours.close()
        theirs.close()


@pytest.fixture
def opened():
    """A list of environments that are closed after the test."""
    environments = []
    yield environments
    for env in environments:
        env.close()


def play_out(env, seed=0):
    """Play an episode randomly; return its observations, rewards, truncated and last info."""
    env.action_space.seed(seed)
    observations, rewards = [env.reset(seed=seed)[0]], []
    while True:
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        observations.append(obs)
        rewards.append(reward)
        assert env.observation_space.contains(obs)
        if terminated or truncated:
            return observations, rewards, truncated, info


def test_wrappers_of_statistics_and_time_limits(opened):
    opened.append(env := wrappers.RecordEpisodeStatistics(gym.make(BASIC)))
    for seed in range(2):
        _, rewards, _, info = play_out(env, seed)
        assert info["episode"]["r"] == info["statistics"]["r"] == sum(rewards)
        assert info["episode"]["l"] == info["statistics"]["l"] == len(rewards)
    opened.append(env := wrappers.TimeLimit(gym.make(BASIC), max_episode_steps=5))
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(5)] == [False] * 4 + [True]


def test_wrappers_of_observations(opened):
    plain = gym.make(BASIC, observation="rgb", height=96, width=128)
    opened.append(plain)
    raw, *_ = play_out(plain)
    resized = wrappers.ResizeObservation(plain, (48, 64))
    assert play_out(resized)[0][0].shape == (48, 64, 3)
    gray = wrappers.GrayscaleObservation(plain)
    assert play_out(gray)[0][0].shape == (96, 128)
    stacked, *_ = play_out(wrappers.FrameStackObservation(plain, 3))
    np.testing.assert_array_equal(stacked[5], raw[3:6])
    opened.append(both := gym.make(BASIC, variables=True))
    flat = wrappers.FlattenObservation(both)
    assert play_out(flat)[0][0].shape == (72 * 128 + 1,)


def test_wrappers_of_rewards_leave_the_statistics_native(opened):
    opened.append(env := gym.make(BASIC))
    _, native, _, _ = play_out(env)
    _, halved, _, info = play_out(wrappers.TransformReward(env, lambda reward: reward / 2))
    assert halved == [reward / 2 for reward in native]
    assert info["statistics"]["r"] == sum(native)
    _, clipped, _, _ = play_out(wrappers.ClipReward(env, -1, 1))
    assert clipped == [max(-1, min(1, reward)) for reward in native]


def test_render_modes_that_gymnasium_derives(opened, monkeypatch):
    opened.append(env := gym.make(BASIC, render_mode="rgb_array_list"))
    env.reset(seed=0)
    for _ in range(3):
        env.step(0)
    pictures = env.render()
    assert [picture.shape for picture in pictures] == [(120, 160, 3)] * 4
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with pytest.warns(UserWarning, match="HumanRendering wrapper is being applied"):
        opened.append(env := gym.make(BASIC, render_mode="human"))
    env.reset(seed=0)
    env.step(0)
    assert env.render_mode == "human"


def test_wrappers_of_vectors(opened):
    vector = wrappers.vector
    plain = gym.make_vec(BASIC, num_envs=4, num_workers=2, time_limit=40)
    opened.append(plain)

    def play(envs, steps=21):
        envs.reset(seed=3)
        envs.action_space.seed(0)
        return [envs.step(envs.action_space.sample()) for _ in range(steps)]

    native = play(plain)
    counted = play(vector.RecordEpisodeStatistics(plain))
    ends = 0
    for *_, terminated, truncated, infos in counted:
        for lane in np.flatnonzero(terminated | truncated):
            ends += 1
            ours = infos["final_info"]["episode"]
            assert infos["episode"]["r"][lane] == ours["r"][lane]
            assert infos["episode"]["l"][lane] == ours["l"][lane]
    assert ends >= 8  # Two episodes in each.
    for listed, given in zip(play(vector.DictInfoToList(plain)), native, strict=True):
        for lane, info in enumerate(listed[4]):
            ended = given[2][lane] or given[3][lane]
            assert ("final_info" in info) == ended
            assert info["HEALTH"] == given[4]["HEALTH"][lane]
            if ended:
                episode = given[4]["final_info"]["episode"]
                assert info["final_info"]["episode"]["r"] == episode["r"][lane]
                np.testing.assert_array_equal(info["final_obs"], given[4]["final_obs"][lane])
    clipped = play(vector.ClipReward(plain, -1, 1))
    for changed, given in zip(clipped, native, strict=True):
        np.testing.assert_array_equal(changed[1], given[1].clip(-1, 1))
    # It divides by a running deviation of returns, which an episode's end resets.
    normalized = play(vector.NormalizeReward(plain))
    assert all(np.isfinite(step[1]).all() for step in normalized)
    assert np.abs(normalized[-1][1]).max() < 10 < np.abs([step[1] for step in native]).max()


def test_gymnasiums_vector_wrappers_of_observations_accept_its_own_vectors_only(opened):
    wrapper = wrappers.vector.TransformObservation
    opened.append(ours := gym.make_vec(BASIC, num_envs=2))
    with pytest.raises(ValueError, match="Expected autoreset_mode to be NEXT_STEP"):
        wrapper(ours, np.flip)
    opened.append(theirs := gym.make_vec(BASIC, num_envs=2, vectorization_mode="sync"))
    assert wrapper(theirs, np.flip).reset(seed=0)[0].shape == (2, 72, 128, 1)
