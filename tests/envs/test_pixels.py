"""Tests of `envs.pixels`: any Gymnasium environment, adapted to the agents here."""

import cv2
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import AtariPreprocessing
from stable_baselines3.common.atari_wrappers import AtariWrapper, EpisodicLifeEnv

from envs import EnvConfig, EnvError, make
from envs.pixels import lost_life
from processes.streams import say_once
from tests.envs.toy import LENGTH, Lives, Scene

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
    """Return the images that a `Scene` has returned so far."""
    scene = env.unwrapped
    assert isinstance(scene, Scene)
    return scene.shown


@pytest.mark.parametrize("observation", ["palette", "gray", "rgb"])
@pytest.mark.parametrize("scene", ["Rgb", "Gray", "OneChannel"])
def test_images_are_resized_and_have_the_requested_channels(open_env, scene, observation):
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


def test_of_an_image_and_numbers_they_become_screen_and_variables(open_env):
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
    # Without numbers, the image is the whole observation.
    camera = open_env(f"{TOY}:Camera-v0", height=40, width=30, frame_stack=2)
    assert camera.observation_space == stack
    assert camera.observation_space.contains(camera.reset(seed=0)[0])


@pytest.mark.parametrize("env", ["CartPole-v1", "MiniGrid-MemoryS7-v0", f"{TOY}:Family-v0"])
@pytest.mark.parametrize(
    ("option", "value"), [("observation", "rgb"), ("height", 84), ("width", 84), ("frame_stack", 4)]
)
def test_options_of_images_are_refused_if_there_is_no_image(env, option, value):
    with pytest.raises(EnvError, match=f"^{option} is an option for images; {env} observes numb"):
        make(EnvConfig(env=env, **{option: value}))


def test_an_environment_may_have_its_own_statistics(open_env):
    env = open_env(f"{TOY}:Counted-v0")
    env.reset(seed=0)
    for _ in range(LENGTH):
        *_, info = env.step(0)
    assert info["episode"]["r"] == info["statistics"]["r"] == sum(range(1, LENGTH + 1))


def test_bounded_actions_are_rescaled_to_minus_one_to_one_and_clipped(open_env):
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


def test_unbounded_actions_are_not_changed(open_env):
    env = open_env(f"{TOY}:Unbounded-v0")
    env.reset(seed=0)
    obs = env.step(np.array([3.5, -100.0], np.float32))[0]
    np.testing.assert_array_equal(obs[:2], [3.5, -100.0])


def test_discrete_actions_are_numbered_from_0(open_env):
    env = open_env(f"{TOY}:Shifted-v0")
    assert env.action_space == spaces.Discrete(3)
    env.reset(seed=0)
    assert [env.step(action)[0][0] for action in (0, 1, 2)] == [5, 6, 7]


@pytest.mark.parametrize("kind", ["Groups", "Switches"])
def test_several_choices_at_once_are_accepted(open_env, kind):
    env = open_env(f"{TOY}:{kind}-v0")
    env.reset(seed=0)
    env.action_space.seed(0)
    action = env.action_space.sample()
    np.testing.assert_array_equal(env.step(action)[0][: len(action)], action)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("Written-v0", "has the action space Text"),
        ("Nested-v0", "has the action space Dict"),
        ("Story-v0", "observes Text"),
        ("Stereo-v0", "observes Dict.* at most one such image$"),
    ],
)
def test_refuses_spaces_that_are_not_supported(env, message):
    with pytest.raises(EnvError, match=message) as refusal:
        make(EnvConfig(env=f"{TOY}:{env}"))
    assert "is not supported" in str(refusal.value)


@pytest.mark.parametrize(("scene", "channels"), [("Stacked", 4), ("Film", 9)])
def test_channels_that_are_no_colours_are_all_kept(open_env, scene, channels):
    env = open_env(f"{TOY}:{scene}-v0", height=40, width=30, frame_stack=2)
    assert env.observation_space == spaces.Box(0, 255, (40, 30, 2 * channels), np.uint8)
    obs, _ = env.reset(seed=0)
    for channel in range(channels):
        alone = np.ascontiguousarray(shown(env)[0][..., channel])
        small = cv2.resize(alone, (30, 40), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(obs[..., channel], small)
    with pytest.raises(EnvError, match=f"observation is an option for images .* have {channels}, "):
        make(EnvConfig(env=f"{TOY}:{scene}-v0", observation="rgb"))


def test_parts_that_are_left_out_are_in_the_metadata(open_env):
    assert open_env(f"{TOY}:Telling-v0").metadata["left_out"] == ("said (Text)",)
    assert open_env(f"{TOY}:Robot-v0").metadata["left_out"] == ()


def test_rewards_are_summed_while_an_action_is_held(open_env):
    env = open_env(f"{TOY}:Shifted-v0", frame_skip=4)
    env.reset(seed=1)
    obs, reward, terminated, truncated, info = env.step(1)
    assert (obs[1], reward, terminated, truncated) == (4, 1 + 2 + 3 + 4, False, False)
    obs, reward, terminated, truncated, info = env.step(1)
    assert (obs[1], reward, terminated, truncated) == (LENGTH, 5 + 6, False, True)
    assert info["statistics"]["r"] == sum(range(1, LENGTH + 1))
    assert info["statistics"]["l"] == 2


def test_cartpole_is_gymnasiums(open_env):
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


def test_car_racing_is_gray_and_has_three_numbers_as_actions(open_env):
    env = open_env("CarRacing-v3", height=84, width=84)
    assert env.observation_space == spaces.Box(0, 255, (84, 84, 1), np.uint8)
    assert env.action_space.shape == (3,)
    env.reset(seed=0)
    # -1 for gas and brake means neither.
    obs, reward, terminated, truncated, _ = env.step(np.array([0, -1, -1], np.float32))
    assert env.observation_space.contains(obs)
    assert not terminated
    assert not truncated
    assert np.isfinite(reward)


def test_minigrid_is_a_vector(open_env):
    env = open_env("MiniGrid-MemoryS7-v0")
    obs, _ = env.reset(seed=0)
    assert obs.shape == (4 + 7 * 7 * 3,)  # The direction is one of four.
    assert obs.dtype == np.float32
    assert env.metadata["left_out"] == ("mission (MissionSpace)",)
    turned = env.step(0)[0]
    assert env.observation_space.contains(turned)
    assert (turned != obs).any()


@pytest.mark.parametrize("frame_skip", [4, 7])
def test_an_atari_game_is_the_same_as_without_skipped_frames(open_env, frame_skip):
    env = open_env("ALE/Breakout-v5", height=84, width=84, frame_skip=frame_skip)
    plain = gym.make("ALE/Breakout-v5", frameskip=1)
    env.reset(seed=1)
    plain.reset(seed=1)
    env.action_space.seed(0)
    ended, lives = False, []
    while not ended:
        action, total = env.action_space.sample(), 0.0
        obs, reward, terminated, truncated, info = env.step(action)
        for _ in range(frame_skip):
            if not ended:
                image, more, ended, _, _ = plain.step(action)
                total += more
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        small = cv2.resize(gray, (84, 84), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(obs[..., 0], small)
        assert (reward, terminated, truncated) == (total, ended, False)
        lives.append(info["lives"])
    assert lives[0] == 5
    assert lives[-1] == 0
    plain.close()


@pytest.mark.parametrize(("options", "frames"), [({}, 4), ({"frame_skip": 1}, 1)])
def test_atari_skips_frames_only_once(open_env, options, frames):
    env = open_env("ALE/Pong-v5", height=84, width=84, **options)
    env.reset(seed=0)
    machine = env.unwrapped.ale
    before = machine.getEpisodeFrameNumber()
    for count in range(1, 6):
        obs = env.step(0)[0]
        assert machine.getEpisodeFrameNumber() == before + count * frames
    assert obs.shape == (84, 84, 1)
    assert len(np.unique(obs)) > 2


# As in the Atari preset, except for the frame stack.
ATARI = {"observation": "gray", "height": 84, "width": 84, "max_pool": True, "noop_max": 30}


def innermost(env, kind):
    while not isinstance(env, kind):
        env = env.env
    return env


# With FIRE and lives, with FIRE and without lives, with lives and without FIRE.
@pytest.mark.parametrize("game", ["Breakout", "Pong", "MsPacman"])
def test_atari_is_stable_baselines3s(open_env, game):
    """Both count lives and no-ops in the same way, and start each life in the same way."""
    env = open_env(f"ALE/{game}-v5", **ATARI, fire_reset=True)
    theirs = AtariWrapper(gym.make(f"ALE/{game}-v5", frameskip=1), clip_reward=False)
    episodic = innermost(theirs, EpisodicLifeEnv)
    env.action_space.seed(0)
    starts = []
    for seed in (4, 3):
        episodic.was_real_done = True
        obs = theirs.reset(seed=seed)[0]
        np.testing.assert_array_equal(env.reset(seed=seed)[0], obs)
        starts.append(env.unwrapped.ale.getEpisodeFrameNumber())
        if seed == 4:  # Only one game is played to its end.
            continue
        lives, total, over = env.unwrapped.ale.lives(), 0.0, False
        while not over:
            action = env.action_space.sample()
            obs, reward, over, truncated, info = env.step(action)
            expected, their_reward, terminated, their_truncated, _ = theirs.step(action)
            lost = terminated and not episodic.was_real_done
            assert lost == info["life_began"] == lost_life(lives, info)
            if lost:
                expected, terminated = theirs.reset()[0], False
            assert (reward, over, truncated) == (their_reward, terminated, their_truncated)
            if not over:  # Theirs then returns a frame of the previous env step.
                np.testing.assert_array_equal(obs, expected)
            lives, total = info["lives"], total + reward
        assert info["statistics"]["r"] == total
        assert lives == 0
    # Without FIRE, only the no-ops were taken.
    assert len(set(starts)) == 2
    assert all((8 if game != "MsPacman" else 0) < frames <= 38 for frames in starts)
    theirs.close()


@pytest.mark.parametrize("frame_skip", [2, 4])
def test_atari_is_gymnasiums(open_env, frame_skip):
    """In colour, because the emulator converts to gray by another formula than OpenCV."""
    options = {**ATARI, "observation": "rgb", "frame_skip": frame_skip}
    env = open_env("ALE/Breakout-v5", **options)
    theirs = AtariPreprocessing(
        gym.make("ALE/Breakout-v5", frameskip=1), frame_skip=frame_skip, grayscale_obs=False
    )
    env.action_space.seed(0)
    for seed in (0, 1):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], theirs.reset(seed=seed)[0])
        for _ in range(60):
            action = env.action_space.sample()
            obs, *results, info = env.step(action)
            expected, *their_results, their_info = theirs.step(action)
            assert results == their_results
            if results[1]:
                break
            np.testing.assert_array_equal(obs, expected)
            assert info["lives"] == their_info["lives"]
            assert info["episode_frame_number"] == their_info["episode_frame_number"]
    theirs.close()


def game_of(env):
    assert isinstance(env.unwrapped, Lives)
    return env.unwrapped


def small(image):
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (30, 40), interpolation=cv2.INTER_AREA)


SMALL = {"height": 40, "width": 30}


def test_the_last_two_frames_of_an_env_step_are_merged(open_env):
    env = open_env(f"{TOY}:Lives-v0", **SMALL, frame_skip=4, max_pool=True)
    robot = open_env(f"{TOY}:RobotLives-v0", **SMALL, frame_skip=4, max_pool=True)
    first = env.reset(seed=0)[0]
    np.testing.assert_array_equal(first[..., 0], small(game_of(env).shown[0]))
    robot.reset(seed=0)
    for step in range(1, 4):
        obs, reward, terminated, _, info = env.step(step)
        shown = game_of(env).shown
        brighter = np.maximum(shown[4 * step - 1], shown[4 * step])
        np.testing.assert_array_equal(obs[..., 0], small(brighter))
        assert reward == sum(range(4 * step - 3, 4 * step + 1))
        seen, shown = robot.step(step)[0], game_of(robot).shown
        cameras = [shown[4 * step - i]["camera"] for i in (0, 1)]
        np.testing.assert_array_equal(seen["screen"][..., 0], small(np.maximum(*cameras)))
        np.testing.assert_allclose(seen["variables"][:2], shown[4 * step]["arm"])
    assert not terminated
    # The game ends within an env step.
    *_, (obs, reward, terminated, _, info) = env.step(1), env.step(1)
    assert terminated
    assert len(game_of(env).taken) == 3 * LENGTH
    assert reward == 17 + 18
    np.testing.assert_array_equal(obs[..., 0], small(game_of(env).shown[-1]))
    assert info["statistics"]["r"] == sum(range(1, 3 * LENGTH + 1))


def test_the_seed_determines_the_number_of_no_ops(open_env):
    env = open_env(f"{TOY}:Lives-v0", **SMALL, noop_max=5)
    again = open_env(f"{TOY}:Lives-v0", **SMALL, noop_max=5)
    numbers = []
    for seed in range(40):
        obs = env.reset(seed=seed)[0]
        taken = game_of(env).taken
        assert not any(taken)
        np.testing.assert_array_equal(obs[..., 0], small(game_of(env).shown[-1]))
        numbers.append(len(taken))
        # Rewards of no-ops are added to that of the first env step.
        assert env.step(1)[1] == sum(range(1, len(taken) + 1))
        assert env.step(1)[1] == len(taken)
    assert set(numbers) == {1, 2, 3, 4, 5}
    for seed in (7, 3, 7):
        again.reset(seed=seed)
        assert len(game_of(again).taken) == numbers[seed]
    again.reset(seed=0)
    ended = False
    while not ended:
        _, _, ended, _, info = again.step(1)
    assert info["statistics"]["r"] == sum(range(1, 3 * LENGTH + 1))


def test_a_game_that_ends_during_its_start_is_reset(open_env):
    env = open_env(f"{TOY}:Lives-v0", **SMALL, noop_max=200, fire_reset=True)
    for seed in range(5):
        env.reset(seed=seed)
        assert 0 <= len(game_of(env).taken) < 3 * LENGTH
        assert not env.step(3)[2] or len(game_of(env).taken) == 3 * LENGTH


@pytest.mark.parametrize(
    ("game", "first", "further"), [("Lives", [1, 2], [0, 1, 2]), ("FirelessLives", [], [0])]
)
def test_lives_start_with_fire_if_the_game_has_it_and_with_a_new_stack(
    open_env, game, first, further
):
    env = open_env(f"{TOY}:{game}-v0", **SMALL, fire_reset=True, frame_stack=2)
    env.reset(seed=0)
    assert game_of(env).taken == first
    expected, total, ended = list(first), 0.0, False
    while not ended:
        obs, reward, ended, _, info = env.step(3)
        expected.append(3)
        lost = len(expected) % LENGTH == 0 and not ended
        if lost:
            expected += further
        assert game_of(env).taken == expected
        assert info["life_began"] == lost
        assert (obs[..., 0] == obs[..., 1]).all() == lost
        np.testing.assert_array_equal(obs[..., 1], small(game_of(env).shown[-1]))
        total += reward
    assert len(expected) == 3 * LENGTH
    assert total == info["statistics"]["r"] == sum(range(1, 3 * LENGTH + 1))


def test_zero_lives_are_the_end_of_the_game_not_a_lost_life():
    assert lost_life(3, {"lives": 2})
    assert not lost_life(1, {"lives": 0})
    assert not lost_life(2, {"lives": 3})
    assert not lost_life(0, {})


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ("Lives", {"max_pool": True}, "max_pool needs two frames per env step; set frame_skip to"),
        ("Family", {"max_pool": True}, "max_pool is an option for images; .* observes numbers"),
        ("Shifted", {"noop_max": 1}, "noop_max needs Discrete actions, of which 0 .*start=5"),
        ("Bounded", {"noop_max": 1}, "noop_max needs Discrete actions, of which 0 .* has Box"),
        ("Rgb", {"fire_reset": True}, "fire_reset is an option for Atari games; .* is not one"),
    ],
)
def test_options_of_atari_are_refused_if_they_do_not_apply(env, options, message):
    with pytest.raises(EnvError, match=message) as refusal:
        make(EnvConfig(env=f"{TOY}:{env}-v0", **options))
    assert "\n" not in str(refusal.value)


def test_max_pool_is_refused_with_one_frame_per_env_step():
    with pytest.raises(EnvError, match="max_pool needs two frames"):
        make(EnvConfig(env="ALE/Pong-v5", frame_skip=1, max_pool=True))


def test_an_environment_that_cannot_be_closed_is_reported_once(capsys):
    say_once.cache_clear()
    for _ in range(2):
        make(EnvConfig(env="tests.envs.toy:Unseen-v0")).close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tests.envs.toy:Unseen-v0 was not closed: RuntimeError: it ")
