"""Environments of others, seen the way an agent here sees a world."""

import cv2
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from envs import EnvConfig, EnvError, make
from tests.envs.toy import LENGTH, Scene

TOY = "tests.envs.toy"


@pytest.fixture
def open_env():
    opened = []

    def open_env(env, **options):
        opened.append(make(EnvConfig(env=env, **options)))
        return opened[-1]

    yield open_env
    for env in opened:
        env.close()


def shown(env):
    """Give the images that a `Scene` has shown so far."""
    scene = env.unwrapped
    assert isinstance(scene, Scene)
    return scene.shown


@pytest.mark.parametrize("observation", ["palette", "gray", "rgb"])
@pytest.mark.parametrize("scene", ["Rgb", "Gray", "OneChannel"])
def test_images_are_resized_and_have_the_channels_asked_for(open_env, scene, observation):
    env = open_env(f"{TOY}:{scene}-v0", observation=observation, height=40, width=30)
    channels = 3 if observation == "rgb" else 1
    assert env.observation_space == spaces.Box(0, 255, (40, 30, channels), np.uint8)
    obs, _ = env.reset(seed=0)
    image = shown(env)[0]
    image = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if observation == "rgb" and image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if observation != "rgb" and image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    expected = cv2.resize(image, (30, 40), interpolation=cv2.INTER_AREA).reshape(40, 30, -1)
    assert env.observation_space.contains(obs)
    np.testing.assert_array_equal(obs, expected)
    assert env.observation_space.contains(env.step(0)[0])


def test_images_are_stacked_oldest_first(open_env):
    single = open_env(f"{TOY}:Rgb-v0")
    stacked = open_env(f"{TOY}:Rgb-v0", frame_stack=3)
    frames = [single.reset(seed=0)[0]] * 3
    obs = stacked.reset(seed=0)[0]
    for _ in range(4):
        np.testing.assert_array_equal(obs, np.concatenate(frames[-3:], -1))
        frames.append(single.step(0)[0])
        obs = stacked.step(0)[0]
    fresh = stacked.reset(seed=5)[0]
    np.testing.assert_array_equal(fresh[..., 0], fresh[..., 2])


def test_small_grids_and_nested_observations_become_vectors(open_env):
    grid = open_env(f"{TOY}:Grid-v0")
    assert grid.observation_space.shape == (7 * 7 * 3,)
    obs, _ = grid.reset(seed=0)
    assert obs.dtype == np.float32
    np.testing.assert_array_equal(obs, shown(grid)[0].ravel())

    family = open_env(f"{TOY}:Family-v0")
    obs, _ = family.reset(seed=0)
    # One of three, two bits, two of two, four numbers.
    assert family.observation_space.shape == obs.shape == (3 + 2 + 4 + 4,)
    assert obs.dtype == np.float32
    assert family.observation_space.contains(obs)


def test_an_image_among_numbers_is_the_screen_and_they_are_the_variables(open_env):
    robot = open_env(f"{TOY}:Robot-v0", height=40, width=30, frame_stack=2)
    stack = spaces.Box(0, 255, (40, 30, 2), np.uint8)
    assert robot.observation_space["screen"] == stack
    assert robot.observation_space["variables"].shape == (2 + 2,)
    obs, _ = robot.reset(seed=0)
    later = robot.step(0)[0]
    assert robot.observation_space.contains(obs)
    assert robot.observation_space.contains(later)
    for seen, then in zip(shown(robot), (obs, later), strict=True):
        gray = cv2.cvtColor(seen["camera"], cv2.COLOR_RGB2GRAY)
        small = cv2.resize(gray, (30, 40), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(then["screen"][..., 1], small)
        grip = [1 - seen["grip"], seen["grip"]]
        np.testing.assert_array_equal(then["variables"], [*seen["arm"], *grip])
    np.testing.assert_array_equal(later["screen"][..., 0], obs["screen"][..., 1])
    # Where there are no numbers, the image is all.
    camera = open_env(f"{TOY}:Camera-v0", height=40, width=30, frame_stack=2)
    assert camera.observation_space == stack
    assert camera.observation_space.contains(camera.reset(seed=0)[0])


@pytest.mark.parametrize("env", ["CartPole-v1", "MiniGrid-MemoryS7-v0", f"{TOY}:Family-v0"])
@pytest.mark.parametrize(
    ("option", "value"), [("observation", "rgb"), ("height", 84), ("width", 84), ("frame_stack", 4)]
)
def test_options_of_images_are_refused_where_there_is_none(env, option, value):
    with pytest.raises(EnvError, match=f"^{option} is an option for images; {env} observes numb"):
        make(EnvConfig(env=env, **{option: value}))


def test_statistics_that_an_environment_comes_with_are_no_hindrance(open_env):
    env = open_env(f"{TOY}:Counted-v0")
    env.reset(seed=0)
    for _ in range(LENGTH):
        *_, info = env.step(0)
    assert info["episode"]["r"] == info["statistics"]["r"] == sum(range(1, LENGTH + 1))


def test_bounded_actions_are_asked_for_between_minus_one_and_one_and_clipped(open_env):
    env = open_env(f"{TOY}:Bounded-v0")
    env.reset(seed=0)
    for given, taken in (
        ([-1.0, -1.0], [0.0, -2.0]),
        ([0.0, 0.5], [5.0, 1.0]),
        ([1.0, 1.0], [10.0, 2.0]),
        ([7.0, -9.0], [10.0, -2.0]),
    ):
        obs = env.step(np.array(given, np.float32))[0]
        np.testing.assert_allclose(obs[:2], taken, atol=1e-6)


def test_unbounded_actions_are_taken_as_they_are(open_env):
    env = open_env(f"{TOY}:Unbounded-v0")
    env.reset(seed=0)
    obs = env.step(np.array([3.5, -100.0], np.float32))[0]
    np.testing.assert_array_equal(obs[:2], [3.5, -100.0])


def test_discrete_actions_that_start_elsewhere_are_counted_from_0(open_env):
    env = open_env(f"{TOY}:Shifted-v0")
    assert env.action_space == spaces.Discrete(3)
    env.reset(seed=0)
    assert [env.step(action)[0][0] for action in (0, 1, 2)] == [5, 6, 7]


@pytest.mark.parametrize("kind", ["Groups", "Switches"])
def test_several_choices_at_once_are_taken(open_env, kind):
    env = open_env(f"{TOY}:{kind}-v0")
    env.reset(seed=0)
    env.action_space.seed(0)
    action = env.action_space.sample()
    np.testing.assert_array_equal(env.step(action)[0][: len(action)], action)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("Written-v0", "its actions are Text"),
        ("Matrix-v0", "its actions are Box"),
        ("Nested-v0", "its actions are Dict"),
        ("Story-v0", "observes Text"),
        ("Telling-v0", "observes Dict"),
        ("Stereo-v0", "observes Dict.* and one image$"),
        ("Mounted-v0", "observes Dict"),
        ("ChannelsFirst-v0", "observes Box.* 1 or 3 channels at its end"),
        ("Stacked-v0", "observes Box"),
    ],
)
def test_refuses_spaces_that_no_agent_here_supports(env, said):
    with pytest.raises(EnvError, match=said) as refusal:
        make(EnvConfig(env=f"{TOY}:{env}"))
    assert "is not supported" in str(refusal.value)


def test_holding_an_action_adds_up_rewards_until_the_end(open_env):
    env = open_env(f"{TOY}:Shifted-v0", frame_skip=4)
    env.reset(seed=1)
    obs, reward, terminated, truncated, info = env.step(1)
    assert (obs[1], reward, terminated, truncated) == (4, 1 + 2 + 3 + 4, False, False)
    obs, reward, terminated, truncated, info = env.step(1)
    assert (obs[1], reward, terminated, truncated) == (LENGTH, 5 + 6, False, True)
    assert info["statistics"]["r"] == sum(range(1, LENGTH + 1))
    assert info["statistics"]["l"] == 2


def test_cartpole_is_played_as_gymnasium_plays_it(open_env):
    env, plain = open_env("CartPole-v1"), gym.make("CartPole-v1")
    assert env.action_space == plain.action_space
    np.testing.assert_array_equal(env.reset(seed=3)[0], plain.reset(seed=3)[0])
    total, ended = 0.0, False
    while not ended:
        step, expected = env.step(1), plain.step(1)
        np.testing.assert_array_equal(step[0], expected[0])
        assert step[1:4] == expected[1:4]
        total, ended = total + step[1], step[2]
    assert step[4]["statistics"]["r"] == total
    plain.close()


def test_car_racing_is_seen_in_gray_and_driven_with_three_numbers(open_env):
    env = open_env("CarRacing-v3", height=84, width=84)
    assert env.observation_space == spaces.Box(0, 255, (84, 84, 1), np.uint8)
    assert env.action_space.shape == (3,)
    env.reset(seed=0)
    # -1 on gas and brake is none of either.
    obs, reward, terminated, truncated, _ = env.step(np.array([0, -1, -1], np.float32))
    assert env.observation_space.contains(obs)
    assert not terminated
    assert not truncated
    assert np.isfinite(reward)


def test_minigrid_is_seen_as_a_vector(open_env):
    env = open_env("MiniGrid-MemoryS7-v0")
    obs, _ = env.reset(seed=0)
    assert obs.shape == (7 * 7 * 3,)
    assert obs.dtype == np.float32
    turned = env.step(0)[0]
    assert env.observation_space.contains(turned)
    assert (turned != obs).any()


@pytest.mark.parametrize("frame_skip", [1, 4, 7])
def test_an_atari_game_is_the_same_whoever_skips_its_frames(open_env, frame_skip):
    env = open_env("ALE/Breakout-v5", height=84, width=84, frame_skip=frame_skip)
    plain = gym.make("ALE/Breakout-v5", frameskip=1)
    env.reset(seed=1)
    plain.reset(seed=1)
    env.action_space.seed(0)
    ended, lives = False, []
    while not ended:
        action, paid = env.action_space.sample(), 0.0
        obs, reward, terminated, truncated, info = env.step(action)
        for _ in range(frame_skip):
            if not ended:
                image, more, ended, _, _ = plain.step(action)
                paid += more
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        small = cv2.resize(gray, (84, 84), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(obs[..., 0], small)
        assert (reward, terminated, truncated) == (paid, ended, False)
        lives.append(info["lives"])
    assert lives[0] == 5
    assert lives[-1] == 0
    plain.close()


@pytest.mark.parametrize(("options", "frames"), [({}, 4), ({"frame_skip": 1}, 1)])
def test_atari_skips_frames_once(open_env, options, frames):
    env = open_env("ALE/Pong-v5", height=84, width=84, **options)
    env.reset(seed=0)
    machine = env.unwrapped.ale
    before = machine.getEpisodeFrameNumber()
    for count in range(1, 6):
        obs = env.step(0)[0]
        assert machine.getEpisodeFrameNumber() == before + count * frames
    assert obs.shape == (84, 84, 1)
    assert len(np.unique(obs)) > 2
