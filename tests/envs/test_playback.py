"""Tests of `envs.playback`: repeated episodes have the same rewards, and more pictures."""

import os
import signal

import numpy as np
import pytest

from envs import EnvConfig, EnvError, make
from envs.doom.env import DoomEnv
from envs.playback import ActionNames, fitted, picture, playback_fps, resimulate, resized
from tests.envs import processes
from tests.envs.raw import NATIVE, doom, random_actions

LARGE = (640, 480)


def record(config, seed, count=40):
    """Play random actions; return them, their rewards and the number of frames that they took."""
    env = make(config)
    env.action_space.seed(0)
    env.reset(seed=seed)
    actions, rewards, frames = [], [], 0
    for _ in range(count):
        actions.append(env.action_space.sample())
        _, reward, terminated, truncated, info = env.step(actions[-1])
        rewards.append(reward)
        if terminated or truncated:
            frames = info["statistics"].get("frames", len(actions))
            break
    env.close()
    return actions, rewards, frames


@pytest.mark.parametrize(
    "config",
    [
        EnvConfig(
            env="basic",
            frame_stack=2,
            variables=True,
            enemy_in_view=True,
            extra_channels=("depth",),
        ),
        EnvConfig(env="deadly_corridor", time_limit=90),
        EnvConfig(env="health_gathering", time_limit=50, observation="gray", frame_skip=3),
        EnvConfig(env="deathmatch", time_limit=30),
    ],
    ids=lambda config: config.env,
)
def test_there_is_a_picture_of_every_tic_and_rewards_are_those_recorded(config):
    actions, rewards, frames = record(config, 3)
    moments = list(resimulate(config, 3, np.array(actions), LARGE))
    assert {moment.image.shape for moment in moments} == {(480, 640, 3)}
    assert {moment.image.dtype for moment in moments} == {np.dtype(np.uint8)}
    assert len(moments) == 1 + frames
    assert moments[0].reward == 0
    by_step = [sum(m.reward for m in moments[1:] if m.step == s) for s in range(len(actions))]
    assert by_step == pytest.approx(rewards)
    assert sum(moment.reward for moment in moments) == pytest.approx(sum(rewards))


def test_doom_in_a_users_wrappers_has_a_picture_of_every_env_step():
    config = EnvConfig(time_limit=40, wrappers=("tests.envs.toy:Tripled",))
    actions, rewards, _ = record(config, 3)
    moments = list(resimulate(config, 3, np.array(actions), (160, 120)))
    assert len(moments) == 1 + len(actions)
    assert [moment.reward for moment in moments[1:]] == rewards
    assert "HEALTH" in moments[-1].variables
    assert playback_fps(config) == 35 / 4
    assert ActionNames(config).choices == ActionNames(EnvConfig()).choices


def test_pictures_are_those_of_the_episode():
    with doom("basic", "rgb_array", **NATIVE) as env:
        actions = random_actions(env, 12)
        env.reset(seed=5)
        seen = [env.render()]
        for action in actions:
            env.step(action)
            seen.append(env.render())
    shown = [moment.image for moment in resimulate(EnvConfig(), 5, actions, (160, 120))]
    np.testing.assert_array_equal(shown[::4], seen)


def test_every_picture_belongs_to_an_env_step():
    moments = list(resimulate(EnvConfig(), 0, [0, 3, 5], (160, 120)))
    assert [moment.step for moment in moments] == [0] + [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize(
    ("config", "actions", "words", "num_choices"),
    [
        (EnvConfig(), [0, 3, 5], ["-", "move left + attack", "move right + attack"], 6),
        (EnvConfig(actions="groups"), [[0, 1], [2, 0]], ["attack", "move right"], 5),
        (EnvConfig(env="CartPole-v1"), [0, 1], ["0", "1"], 2),
        (EnvConfig(env="ALE/Pong-v5"), [0, 1], ["noop", "fire"], 6),
        (EnvConfig(env="Pendulum-v1"), [np.array([0.5], np.float32)], ["[0.5]"], 0),
    ],
    ids=lambda value: value.env if isinstance(value, EnvConfig) else "",
)
def test_actions_and_choices_are_named(config, actions, words, num_choices):
    names = ActionNames(config)
    assert [names.describe(np.asarray(action)) for action in actions] == words
    assert len(names.choices) == num_choices


@pytest.mark.parametrize("action", [6, -1, 0.5, [1, 0]])
def test_actions_outside_the_space_are_refused(action):
    with pytest.raises(EnvError, match=r"is not in Discrete\(6\)"):
        ActionNames(EnvConfig()).describe(np.asarray(action))


def test_game_variables_and_death_are_reported():
    config = EnvConfig(env="defend_the_center")
    *_, last = resimulate(config, 1, [0] * 525, (160, 120))
    assert (last.terminated, last.died) == (True, True)
    assert last.variables["AMMO2"] == 26
    (first, *_) = resimulate(config, 1, [0], (160, 120))
    assert (first.variables["HEALTH"], first.died) == (100, False)


@pytest.mark.parametrize("size", [(300, 200), (64, 64), (2000, 1500)])
def test_pictures_have_the_requested_size(size):
    images = resimulate(EnvConfig(), 0, [0], size)
    assert next(images).image.shape == (size[1], size[0], 3)
    images.close()


def test_other_environments_than_doom_are_repeated_too():
    config = EnvConfig(env="CartPole-v1")
    actions, rewards, _ = record(config, 1, count=500)
    moments = list(resimulate(config, 1, actions, (320, 240)))
    assert len(moments) == 1 + len(actions)
    assert sum(moment.reward for moment in moments) == sum(rewards)
    assert moments[-1].image.shape == (240, 320, 3)
    assert (moments[0].image != moments[-1].image).any()


@pytest.mark.parametrize(
    ("env", "fps"), [("basic", 35), ("CartPole-v1", 50), ("MiniGrid-MemoryS7-v0", 10)]
)
def test_pictures_per_second_are_those_of_normal_speed(env, fps):
    assert playback_fps(EnvConfig(env=env)) == fps


def test_an_engine_that_hangs_is_killed_and_reported(monkeypatch):
    monkeypatch.setattr("envs.playback._HANG_AFTER_S", 0.5)
    mark = os.environ[processes.MARKER]
    before = set(processes.command_lines(mark))
    moments = resimulate(EnvConfig(), 0, [0] * 10, (160, 120))
    next(moments)
    lines = processes.command_lines(mark)
    (engine,) = (p for p, c in lines.items() if processes.is_engine(c) and p not in before)
    os.kill(engine, signal.SIGSTOP)
    with pytest.raises(EnvError, match="the Doom engine died"):
        next(moments)


class Drawn:
    def __init__(self, image):
        self.image = image

    def render(self):
        return self.image


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "returned NoneType"),
        ([np.zeros((4, 4, 3), np.uint8)], r"returned uint8 of shape \(1, 4, 4, 3\)"),
        (np.zeros((4, 4), np.uint8), r"returned uint8 of shape \(4, 4\)"),
        (np.zeros((4, 4, 3)), r"returned float64 of shape \(4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"returned uint8 of shape \(0, 4, 3\)"),
    ],
)
def test_what_is_no_picture_is_refused(image, said):
    with pytest.raises(EnvError, match=rf"^render\(\) {said}; a picture is \(height, width, 3\)"):
        picture(Drawn(image), (8, 8))


def test_where_the_player_is_on_a_generated_map_is_told():
    config = EnvConfig(env="maps:maze", height=60, width=80)
    env = DoomEnv(config)
    assert env.maps is not None
    level = env.maps.level(5)
    moments = list(resimulate(config, 5, [1, 1, 1, 1], (160, 120)))
    assert len(moments) == 1 + 4 * 4
    assert moments[0].position == pytest.approx(level.position(level.start))
    assert moments[-1].position != moments[0].position
    assert all(level.is_open(level.cell_at(*moment.position)) for moment in moments)
    first = next(iter(resimulate(EnvConfig(), 0, [], (160, 120))))
    assert first.position is None


def test_actions_of_a_match_are_those_of_its_first_player():
    for opponent in ("self", "bot"):
        actions = ActionNames(EnvConfig(env="players:duel", opponent=opponent))
        assert actions.describe(np.array([1, 0, 2, 1])) == "turn left + move right + attack"
        assert "attack" in actions.choices


def test_players_side_by_side_keep_their_proportions():
    image = np.full((120, 322, 3), 255, np.uint8)
    shown = fitted(image, (640, 480))
    rows = np.flatnonzero(shown[:, 0, 0])
    assert shown.shape == (480, 640, 3)
    assert (rows[0], rows[-1] - rows[0] + 1) == (120, round(640 * 120 / 322))
    assert (fitted(image[:, :160], (64, 48)) == resized(image[:, :160], (64, 48))).all()
