"""Tests of `envs.doom.env`: ends, rewards, pixels and counters are compared with the engine's."""

import hashlib
import json
import os
import signal
from pathlib import Path

import cv2
import gymnasium as gym
import numpy as np
import pytest
import vizdoom
from gymnasium import spaces

from envs import SCENARIOS, EnvConfig, EnvError, make
from envs.doom.env import COUNTERS, DoomEnv
from tests.envs import processes
from tests.envs.raw import NATIVE, doom, noop, press, random_actions, raw_game, start_episode

# Scenarios whose own .cfg ends an episode by time.
TIMED = [name for name in SCENARIOS if name not in ("defend_the_line", "take_cover")]
# These differ from basic in looks or difficulty only.
LIKE_BASIC = {"basic_audio", "basic_notifications", "simpler_basic", "learning"}
BASIC_KILL_SEED = 3  # of an episode in which random actions kill the monster


def play(env, seed, actions):
    """Take actions until the episode ends; return what reset and every step returned."""
    steps = [(*env.reset(seed=seed)[:1], 0.0, False, False, {})]
    for action in actions:
        steps.append(env.step(action))
        if steps[-1][2] or steps[-1][3]:
            break
    return steps


def play_on(env, actions):
    return [env.step(action) for action in actions]


def rewards(steps):
    return [step[1] for step in steps[1:]]


class TestEnds:
    @pytest.mark.parametrize(("name", "limit"), [("basic", 50), ("my_way_home", 7)])
    def test_a_timeout_is_truncated_and_observes_the_real_last_frame(self, name, limit):
        with doom(name, time_limit=limit, **NATIVE) as env, raw_game(name, timeout=False) as game:
            nothing = noop(env)
            steps = play(env, 5, [nothing] * 1000)
            start_episode(game, 5)
            # 12 times 4 tics and the remaining 2, or 4 and 3.
            for taken in range(0, limit, 4):
                game.make_action(press(env, game, nothing), min(4, limit - taken))
            obs, _, terminated, truncated, info = steps[-1]
            assert (terminated, truncated) == (False, True)
            assert not any(step[2] or step[3] for step in steps[:-1])
            assert info["statistics"]["frames"] == limit
            assert info["statistics"]["l"] == len(steps) - 1 == -(-limit // 4)
            assert not game.is_episode_finished()
            np.testing.assert_array_equal(obs[..., 0], game.get_state().screen_buffer)
            assert obs.any()

    def test_the_scenarios_own_time_limit_is_truncated_too(self):
        with doom("basic") as env:
            steps = play(env, 0, [noop(env)] * 1000)
            assert steps[-1][2:4] == (False, True)
            assert sum(rewards(steps)) == -300
            assert steps[-1][4]["statistics"]["frames"] == 300

    @pytest.mark.parametrize("name", ["take_cover", "defend_the_center"])
    def test_death_is_terminated_and_observes_the_last_frame_drawn(self, name):
        with doom(name, **NATIVE) as env, raw_game(name, timeout=False) as game:
            nothing = noop(env)
            steps = play(env, 1, [nothing] * 1000)
            start_episode(game, 1)
            drawn = None
            while not game.is_episode_finished():
                drawn = game.get_state().screen_buffer
                game.make_action(press(env, game, nothing), 4)
            assert game.is_player_dead()
            obs, _, terminated, truncated, _ = steps[-1]
            assert (terminated, truncated) == (True, False)
            np.testing.assert_array_equal(obs[..., 0], drawn)
            np.testing.assert_array_equal(obs, steps[-2][0])

    def test_death_at_the_very_last_tic_is_terminated(self):
        with doom("take_cover", frame_skip=1) as env:
            alive = len(play(env, 1, [0] * 2100)) - 1
        with doom("take_cover", frame_skip=1, time_limit=alive) as env:
            steps = play(env, 1, [0] * 2100)
            assert len(steps) - 1 == alive
            assert steps[-1][2:4] == (True, False)
        with doom("take_cover", frame_skip=1, time_limit=alive - 1) as env:
            assert play(env, 1, [0] * 2100)[-1][2:4] == (False, True)

    def test_reaching_the_goal_is_terminated(self):
        with doom("basic") as env:
            steps = play(env, BASIC_KILL_SEED, random_actions(env, 75))
            episode = steps[-1][4]["statistics"]
            assert steps[-1][2:4] == (True, False)
            assert episode["kills"] == 1
            assert episode["frames"] < 300
            assert rewards(steps)[-1] > 90

    def test_stepping_after_the_end_is_refused_until_reset(self):
        with doom("basic", time_limit=4) as env:
            with pytest.raises(EnvError, match=r"call reset\(\) before step\(\)"):
                env.step(0)
            env.reset(seed=0)
            assert env.step(0)[3]
            with pytest.raises(EnvError, match=r"the episode has ended; call reset\(\)"):
                env.step(0)
            env.reset(seed=0)
            assert env.step(0)[3]


class TestRewards:
    @pytest.mark.parametrize(
        "name", [pytest.param(n, marks=pytest.mark.slow) if n in LIKE_BASIC else n for n in TIMED]
    )
    def test_rewards_and_ends_are_the_engines_own(self, name):
        with doom(name) as env, raw_game(name) as game:
            for seed, actions in (
                (3, random_actions(env, 1100)),
                (4, [noop(env)] * 1100),
            ):
                steps = play(env, seed, actions)
                start_episode(game, seed)
                expected = []
                for action in actions:
                    expected.append(game.make_action(press(env, game, action), 4))
                    if game.is_episode_finished():
                        break
                assert rewards(steps) == expected
                assert sum(expected) == pytest.approx(game.get_total_reward())
                _, _, terminated, truncated, info = steps[-1]
                assert truncated == game.is_episode_timeout_reached()
                assert terminated != truncated
                assert info["statistics"]["r"] == pytest.approx(game.get_total_reward())

    @pytest.mark.parametrize("name", ["defend_the_line", "take_cover"])
    def test_rewards_are_the_engines_own_if_the_cfg_sets_no_time_limit(self, name):
        with doom(name, time_limit=200) as env, raw_game(name) as game:
            steps = play(env, 3, random_actions(env, 50))
            start_episode(game, 3)
            for action, reward in zip(random_actions(env, 50), rewards(steps), strict=True):
                assert game.make_action(press(env, game, action), 4) == reward
            assert steps[-1][2:4] == (False, True)
            assert not game.is_episode_finished()

    def test_the_episodes_return_is_the_sum_of_its_rewards(self):
        with doom("deadly_corridor") as env:
            steps = play(env, 0, random_actions(env, 600))
            assert steps[-1][2]
            assert steps[-1][4]["statistics"]["r"] == pytest.approx(sum(rewards(steps)))
            assert all("episode" not in step[4] for step in steps[:-1])

    def test_skipping_four_frames_is_four_steps_of_one(self):
        for name in ("deadly_corridor", "health_gathering"):
            with doom(name, frame_skip=4) as fast, doom(name, frame_skip=1) as slow:
                fast.reset(seed=2)
                slow.reset(seed=2)
                for action in random_actions(fast, 15):
                    obs, reward, terminated, truncated, info = fast.step(action)
                    steps = []
                    for _ in range(4):
                        steps.append(slow.step(action))
                        if steps[-1][2] or steps[-1][3]:
                            break
                    assert reward == pytest.approx(sum(step[1] for step in steps))
                    assert (terminated, truncated) == steps[-1][2:4]
                    if terminated:
                        break
                    np.testing.assert_array_equal(obs, steps[-1][0])
                    assert {k: v for k, v in info.items() if k != "episode"} == steps[-1][4]


DIGEST = """
import hashlib, json, sys
from envs import EnvConfig, make

NAMES = ("basic", "deadly_corridor", "my_way_home", "deathmatch")

def digest(name, seed, count):
    env = make(EnvConfig(env=name, variables=name != "my_way_home"))
    env.action_space.seed(0)
    sha = hashlib.sha256()
    def put(obs, *rest):
        for part in obs.values() if isinstance(obs, dict) else [obs]:
            sha.update(part.tobytes())
        sha.update(json.dumps(rest, sort_keys=True).encode())
    put(*env.reset(seed=seed))
    for _ in range(count):
        step = env.step(env.action_space.sample())
        put(*step)
        if step[2] or step[3]:
            put(*env.reset())
    env.close()
    return sha.hexdigest()
"""


class TestDeterminism:
    def test_the_same_seed_and_actions_give_the_same_results_in_any_process(self, tmp_path):
        scope = {}
        exec(DIGEST, scope)
        names = scope["NAMES"]
        here = [scope["digest"](name, 7, 40) for name in names]
        assert scope["digest"](names[0], 7, 40) == here[0]
        assert scope["digest"](names[0], 8, 40) != here[0]
        script = f"{DIGEST}\nprint(*[digest(name, 7, 40) for name in NAMES])"
        assert processes.run_script(script, tmp_path).split() == here

    @pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - LIKE_BASIC))
    def test_an_episode_does_not_depend_on_earlier_episodes(self, name):
        """It is equal, frame by frame, in a new engine and in two that played other episodes."""
        rng = np.random.default_rng(0)
        with doom(name) as used, doom(name) as other:
            used.action_space.seed(0)

            def draw(longest):
                # Actions are held for some steps, so that weapons swing and bodies fall at the end.
                held = [used.action_space.sample() for _ in range(8)]
                actions = [action for action in held for _ in range(int(rng.integers(1, 4)))]
                return actions[: int(rng.integers(1, longest))]

            for trial in range(10):
                for env in (used, other):
                    play(env, int(rng.integers(2**31)), draw(20))
                actions = draw(16)
                played = [play(env, trial, actions) for env in (used, other)]
                if trial == 0:
                    with doom(name) as new:
                        played.append(play(new, trial, actions))
                for steps in played[1:]:
                    assert rewards(steps) == rewards(played[0])
                    for step, expected in zip(steps, played[0], strict=True):
                        np.testing.assert_array_equal(step[0], expected[0])
                        assert step[2:] == expected[2:]

    def test_the_weapon_is_at_rest_when_an_episode_starts(self):
        """The picture after a shot would show a swing that remained from the last episode."""
        left, attack_left = 2, 3
        with doom("basic") as new, doom("basic") as used:
            assert new.action_names[0][left] == "move left"
            assert new.action_names[0][attack_left] == "move left + attack"
            for steps_before in range(1, 20, 3):
                play(used, 1, [left] * steps_before)
                for actions in ([left, attack_left, left], [attack_left, left], [left, 1, left]):
                    play(new, 1, [0] * 20)  # The player stands until the weapon rests.
                    for step, expected in zip(
                        play(used, 2, actions), play(new, 2, actions), strict=True
                    ):
                        np.testing.assert_array_equal(step[0], expected[0])
                    play(used, 1, [left] * steps_before)

    def test_without_a_seed_the_generator_draws_one(self):
        with doom("basic") as one, doom("basic") as two:
            seeds = []
            for env in (one, two):
                env.reset(seed=9)
                seeds.append([env.reset()[1]["episode_seed"] for _ in range(3)])
            assert seeds[0] == seeds[1]
            assert len(set(seeds[0])) == 3
            drawn = one.reset()[0]
            np.testing.assert_array_equal(drawn, two.reset(seed=one_seed(one, seeds[0]))[0])

    def test_seeds_may_be_of_any_size(self):
        with doom("basic") as env:
            for seed in (0, 2**31 - 1, 2**32 + 5, 2**63 - 1):
                assert env.reset(seed=seed)[1]["episode_seed"] == seed


def one_seed(env, drawn):
    """Return the seed that an environment draws after those in `drawn`."""
    generator, _ = gym.utils.seeding.np_random(9)
    seeds = [int(generator.integers(2**31)) for _ in range(len(drawn) + 1)]
    assert seeds[:-1] == drawn
    return seeds[-1]


class TestObservations:
    @pytest.mark.parametrize(
        "name",
        ["basic", "health_gathering_supreme", "take_cover"],
    )
    def test_decoded_palette_is_the_engines_own_rgb(self, name):
        with doom(name, **NATIVE) as env, raw_game(name, screen_format="RGB24") as game:
            actions = random_actions(env, 60)
            obs, _ = env.reset(seed=6)
            start_episode(game, 6)
            assert env.channels == ("palette",)
            seen = 0
            for action in actions:
                np.testing.assert_array_equal(
                    env.palette[obs[..., 0]], game.get_state().screen_buffer
                )
                seen += 1
                obs, _, terminated, truncated, _ = env.step(action)
                game.make_action(press(env, game, action), 4)
                if terminated or truncated:
                    break
            assert seen > 20

    @pytest.mark.parametrize("size", [(120, 160), (72, 128), (240, 320)])
    def test_gray_and_rgb_are_computed_from_the_palette(self, size):
        height, width = size
        options = {"height": height, "width": width}
        with (
            doom("basic", "rgb_array", **options) as palette,
            doom("basic", observation="rgb", **options) as rgb,
            doom("basic", observation="gray", **options) as gray,
        ):
            for action in (None, 1, 3):
                steps = [
                    env.reset(seed=0)[0] if action is None else env.step(action)[0]
                    for env in (palette, rgb, gray)
                ]
                assert [step.shape for step in steps] == [(*size, 1), (*size, 3), (*size, 1)]
                assert all(step.dtype == np.uint8 for step in steps)
                drawn = palette.render()
                small = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
                np.testing.assert_array_equal(steps[1], small)
                shades = cv2.cvtColor(drawn, cv2.COLOR_RGB2GRAY)
                small = cv2.resize(shades, (width, height), interpolation=cv2.INTER_AREA)
                np.testing.assert_array_equal(steps[2][..., 0], small)

    def test_extra_channels_are_the_engines_buffers(self):
        names = ("depth", "labels", "automap")
        buffers = {f"{name}_buffer_enabled": True for name in names}
        with (
            doom("defend_the_center", extra_channels=names, **NATIVE) as env,
            raw_game("defend_the_center", **buffers) as game,
        ):
            assert env.channels == ("palette", "depth", "labels", "automap")
            obs, _ = env.reset(seed=0)
            start_episode(game, 0)
            for action in random_actions(env, 10):
                state = game.get_state()
                planes = [getattr(state, f"{name}_buffer") for name in ("screen", *names)]
                np.testing.assert_array_equal(obs, np.stack(planes, -1))
                obs = env.step(action)[0]
                game.make_action(press(env, game, action), 4)
            assert all(len(np.unique(obs[..., channel])) > 1 for channel in range(4))

    @pytest.mark.parametrize("observation", ["palette", "rgb"])
    def test_stacked_frames_are_the_last_ones_oldest_first(self, observation):
        options = {"observation": observation, "extra_channels": ("depth",), "variables": True}
        with doom(**options) as single, doom(frame_stack=3, **options) as stacked:
            channels = len(single.channels)
            assert stacked.channels == single.channels * 3
            frames = [single.reset(seed=0)[0]["screen"]] * 3
            obs = stacked.reset(seed=0)[0]
            for action in (3, 3, 5, 0):
                assert obs["screen"].shape == (72, 128, 3 * channels)
                np.testing.assert_array_equal(obs["screen"], np.concatenate(frames[-3:], -1))
                frames.append(single.step(action)[0]["screen"])
                obs = stacked.step(action)[0]
            # A new episode contains no frames of the last one.
            obs = stacked.reset(seed=1)[0]["screen"]
            np.testing.assert_array_equal(obs[..., :channels], obs[..., channels : 2 * channels])

    def test_variables_are_normalised_in_the_scenarios_order(self):
        with doom("defend_the_center", variables=True) as env:
            space = env.observation_space
            assert isinstance(space, spaces.Dict)
            assert space["variables"].shape == (2,)
            obs, info = env.reset(seed=0)
            for action in [1] * 20:
                assert env.observation_space.contains(obs)
                expected = [info["AMMO2"] / 50, info["HEALTH"] / 100]
                np.testing.assert_allclose(obs["variables"], expected, rtol=1e-6)
                obs, _, _, _, info = env.step(action)
            assert info["AMMO2"] < 26

    def test_variables_are_refused_if_a_scenario_has_none(self):
        with pytest.raises(EnvError, match="has no game variables to observe"):
            make(EnvConfig(env="my_way_home", variables=True))

    @pytest.mark.parametrize("name", ["basic", "deathmatch", "freedoom2:MAP01"])
    def test_observations_are_in_the_space_and_are_not_overwritten(self, name):
        with doom(name, frame_stack=2, variables=True) as env:
            first, _ = env.reset(seed=0)
            copy = first["screen"].copy()
            for action in random_actions(env, 10):
                obs = env.step(action)[0]
                assert env.observation_space.contains(obs)
            np.testing.assert_array_equal(first["screen"], copy)
            assert (obs["screen"] != copy).any()

    @pytest.mark.parametrize("size", [(60, 80), (30, 80), (84, 84)])
    def test_palette_screens_are_resized_by_nearest_pixels(self, size):
        options = {"height": size[0], "width": size[1], "extra_channels": ("depth",)}
        with (
            doom("basic", **options) as env,
            raw_game("basic", depth_buffer_enabled=True) as game,
        ):
            obs, _ = env.reset(seed=0)
            start_episode(game, 0)
            for action in (1, 3):
                state = game.get_state()
                for channel, layer in enumerate((state.screen_buffer, state.depth_buffer)):
                    small = cv2.resize(layer, size[::-1], interpolation=cv2.INTER_NEAREST)
                    np.testing.assert_array_equal(obs[..., channel], small)
                obs = env.step(action)[0]
                game.make_action(press(env, game, action), 4)

    def test_render_returns_the_whole_screen_as_drawn(self):
        with doom("basic", "rgb_array", height=300, width=300) as env:
            env.reset(seed=0)
            image = env.render()
            assert image.shape == (300, 400, 3)
            assert image.dtype == np.uint8
        with doom("basic") as env:
            env.reset(seed=0)
            assert env.render() is None
        with pytest.raises(EnvError, match="render_mode 'human' is not supported"):
            DoomEnv(EnvConfig(), "human")


def arrays_for(env):
    """Return arrays for one observation, filled with a value that differs from observations."""
    space = env.observation_space
    parts = space.spaces if isinstance(space, spaces.Dict) else {"obs": space}
    return {name: np.full(part.shape, 99, part.dtype) for name, part in parts.items()}


def parts_of(obs):
    """Return copies of an observation's parts."""
    obs = obs if isinstance(obs, dict) else {"obs": obs}
    return {name: part.copy() for name, part in obs.items()}


class TestWriteTo:
    """With `write_to`, the given arrays contain the observations that are otherwise returned."""

    def play(self, env, actions):
        """Return (parts of the observation, result, info) of each step of two short episodes."""
        steps = []
        for seed in (4, 5):
            obs, info = env.reset(seed=seed)
            steps.append((parts_of(obs), info))
            for action in actions:
                obs, *result, info = env.step(action)
                steps.append((parts_of(obs), result, info))
        return steps

    def play_in(self, arrays, env, actions):
        """Do the same with `advance`, and read observations from the arrays only."""
        steps = []
        for seed in (4, 5):
            _, info = env.reset(seed=seed)
            steps.append((parts_of(arrays), info))
            for action in actions:
                result = list(env.advance(action))
                info = env.info()
                if result[1] or result[2]:
                    info["statistics"] = env.episode_statistics()
                steps.append((parts_of(arrays), result, info))
        return steps

    @pytest.mark.parametrize(
        "options",
        [
            {"observation": "palette", "height": 60, "width": 80},
            {"observation": "palette", "frame_stack": 3, "extra_channels": ("depth", "labels")},
            {"observation": "gray", "variables": True},
            {"observation": "rgb", "frame_stack": 3, "variables": True, "enemy_in_view": True},
        ],
        ids=["palette", "palette stacked", "gray", "rgb stacked"],
    )
    def test_episodes_are_the_same(self, options):
        with doom(time_limit=18, **options) as env:
            actions = [1, 3, 3, 5, 0]
            expected = self.play(env, actions)
            assert expected[-1][1][2]
            arrays = arrays_for(env)
            env.write_to(arrays)
            np.testing.assert_equal(self.play_in(arrays, env, actions), expected)
            np.testing.assert_equal(self.play(env, actions), expected)

    def test_after_death_the_last_frame_drawn_remains(self):
        with doom("take_cover", variables=False, **NATIVE) as env:
            expected = play(env, 1, [noop(env)] * 1000)
            assert expected[-1][2]
            arrays = arrays_for(env)
            env.write_to(arrays)
            play(env, 1, [noop(env)] * 1000)
            np.testing.assert_array_equal(arrays["obs"], expected[-1][0])

    def test_may_be_called_within_an_episode(self):
        with doom(frame_stack=3) as env:
            expected = [step[0] for step in play(env, 0, [3, 3, 5, 0])]
            before = [step[0] for step in play(env, 0, [3, 3])]
            copies = [obs.copy() for obs in before]
            for action, obs in zip([5, 0], expected[3:], strict=True):
                arrays = arrays_for(env)
                env.write_to(arrays)
                env.step(action)
                np.testing.assert_array_equal(arrays["obs"], obs)
            np.testing.assert_equal(before, copies)

    @pytest.mark.parametrize("frame_stack", [1, 3])
    def test_without_it_every_observation_is_a_new_array(self, frame_stack):
        with doom(variables=True, frame_stack=frame_stack, time_limit=16) as env:
            seen = [step[0] for seed in (0, 1) for step in play(env, seed, [3, 5, 1, 4])]
            copies = [parts_of(obs) for obs in seen]
            play(env, 2, [1, 1])
            np.testing.assert_equal(seen, copies)
            for name in ("screen", "variables"):
                addresses = {obs[name].ctypes.data for obs in seen}
                assert len(addresses) == len(seen) == 10


class TestEnemyInView:
    def test_reports_monsters_without_changing_anything_else(self):
        name = "defend_the_center"
        with (
            doom(name, variables=True) as plain,
            doom(name, variables=True, enemy_in_view=True) as env,
            raw_game(name, labels_buffer_enabled=True) as game,
        ):
            assert env.info_keys == (*plain.info_keys, "ENEMY_IN_VIEW")
            assert env.observation_space == plain.observation_space
            assert env.episode_keys == plain.episode_keys
            # Turning right, and shooting now and then.
            actions = [5 if step % 4 == 0 else 4 for step in range(600)]
            steps, expected = play(env, 4, actions), play(plain, 4, actions)
            assert steps[-1][2]
            assert rewards(steps) == rewards(expected)
            seen = []
            start_episode(game, 4)
            env.reset(seed=4)
            for action, step, other in zip(actions, steps[1:], expected[1:], strict=False):
                np.testing.assert_equal(step[0], other[0])
                assert step[1:4] == other[1:4]
                info = dict(step[4])
                seen.append(info.pop("ENEMY_IN_VIEW"))
                assert info == other[4]
                game.make_action(press(env, game, action), 4)
                if not game.is_episode_finished():
                    categories = {label.object_category for label in game.get_state().labels}
                    assert seen[-1] == ("Monster" in categories)
            assert set(seen) == {0.0, 1.0}

    def test_is_reported_from_the_first_observation(self):
        with doom("basic", enemy_in_view=True) as env:
            assert env.reset(seed=0)[1]["ENEMY_IN_VIEW"] == 1
        with doom("my_way_home", enemy_in_view=True, extra_channels=("labels",)) as env:
            obs, info = env.reset(seed=0)
            assert obs.shape == (72, 128, 2)
            assert info["ENEMY_IN_VIEW"] == 0


class TestOptions:
    def test_skill_changes_the_game(self):
        bullets = {}
        for skill in (1, 3, None):
            with doom("defend_the_center", skill=skill) as env:
                bullets[skill] = env.reset(seed=0)[1]["AMMO2"]
        assert bullets == {1: 52, 3: 26, None: 26}

    @pytest.mark.parametrize("limit", [1, 4, 5])
    def test_time_limit_is_counted_in_tics(self, limit):
        with doom("basic", time_limit=limit) as env:
            steps = play(env, 0, [0] * 10)
            assert len(steps) - 1 == -(-limit // 4)
            assert steps[-1][4]["statistics"]["frames"] == limit
            assert sum(rewards(steps)) == -limit

    def test_a_time_limit_may_be_longer_than_the_scenarios(self):
        with doom("basic", time_limit=320) as env:
            assert sum(rewards(play(env, 0, [0] * 100))) == -320

    def test_render_fps_is_that_of_env_steps(self):
        assert make(EnvConfig(frame_skip=5)).metadata["render_fps"] == 7
        assert make(EnvConfig()).metadata["render_fps"] == 35 / 4


class TestCounters:
    def test_counters_count_what_the_player_did(self):
        with doom("basic") as env:
            actions = random_actions(env, 75)
            first = play(env, BASIC_KILL_SEED, actions)[-1][4]["statistics"]
            assert (first["kills"], first["hits"]) == (1, 1)
            assert first["damage"] > 0
            assert play(env, BASIC_KILL_SEED, actions)[-1][4]["statistics"] == first

    def test_counters_that_the_engine_carries_over_start_at_zero(self):
        attack = 1
        with doom("defend_the_line", time_limit=12) as fresh:
            expected = play(fresh, 123, [0, 0, 0])
        with doom("defend_the_line", time_limit=12) as env:
            play(env, 123, [attack, attack])  # The second shot hits while the engine restarts.
            _, info = env.reset(seed=123)
            game = env._game
            assert game.get_game_variable(vizdoom.GameVariable.DAMAGECOUNT) > 0
            assert info["DAMAGECOUNT"] == info["HITCOUNT"] == 0
            assert [step[4] for step in play_on(env, [0, 0, 0])] == [s[4] for s in expected[1:]]

    def test_observed_counters_start_at_zero_too(self, tmp_path):
        folder = Path(vizdoom.scenarios_path)
        cfg = (folder / "defend_the_line.cfg").read_text()
        wad = folder / "defend_the_line.wad"
        cfg = cfg.replace("defend_the_line.wad", str(wad)).replace("AMMO2 HEALTH", "DAMAGECOUNT")
        (tmp_path / "line.cfg").write_text(cfg)
        attack = 1
        with doom(str(tmp_path / "line.cfg"), variables=True, time_limit=12) as env:
            play(env, 123, [attack, attack])  # As above.
            obs, info = env.reset(seed=123)
            assert env._game.get_game_variable(vizdoom.GameVariable.DAMAGECOUNT) > 0
            assert (obs["variables"].tolist(), info["DAMAGECOUNT"]) == ([0.0], 0.0)
            assert env.step(0)[0]["variables"].tolist() == [0.0]

    def test_an_episode_reports_every_counter(self):
        with doom("health_gathering") as env:
            episode = play(env, 0, [noop(env)] * 1000)[-1][4]["statistics"]
            assert tuple(episode) == env.episode_keys == ("r", "l", "frames", *COUNTERS)
            # The episode's last tic is not counted by the engine.
            assert 90 <= episode["damage_taken"] <= 110
            assert episode["kills"] == 0

    def test_info_has_the_variables_of_every_step(self):
        with doom("defend_the_center") as env, raw_game("defend_the_center") as game:
            _, info = env.reset(seed=0)
            start_episode(game, 0)
            assert tuple(info) == (*env.info_keys, "episode_seed")
            for action in random_actions(env, 20):
                _, _, _, _, info = env.step(action)
                game.make_action(press(env, game, action), 4)
                for name in env.info_keys:
                    variable = vizdoom.GameVariable.__members__[name]
                    assert info[name] == game.get_game_variable(variable)


class TestLife:
    def test_close_may_be_called_twice_and_reset_afterwards(self):
        env = make(EnvConfig())
        env.close()
        first = env.reset(seed=0)[0]
        env.close()
        env.close()
        with pytest.raises(EnvError, match="call reset"):
            env.step(0)
        np.testing.assert_array_equal(env.reset(seed=0)[0], first)
        assert env.step(0)[1] == -4
        env.close()

    def test_an_environment_that_is_deleted_ends_its_engine(self):
        env = make(EnvConfig())
        env.reset(seed=0)
        del env

    def test_no_engine_starts_before_the_first_reset(self):
        mark = os.environ[processes.MARKER]
        before = set(processes.command_lines(mark))
        env = make(EnvConfig())
        env.action_space.sample()
        assert not [
            command
            for pid, command in processes.command_lines(mark).items()
            if pid not in before and processes.is_engine(command)
        ]

    def test_the_working_directory_is_not_changed_and_its_files_are_ignored(
        self, tmp_path, monkeypatch
    ):
        with doom("basic") as env:
            expected = play(env, 0, [1, 3, 5] * 5)
        hostile = "living_reward = 1000\navailable_buttons = { SPEED }\nepisode_timeout = 3\n"
        (tmp_path / "_vizdoom.cfg").write_text(hostile)
        (tmp_path / "_vizdoom.ini").write_text("[GlobalSettings]\nscreenblocks=3\n")
        (tmp_path / "doom2.wad").write_bytes(b"not a WAD")
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        monkeypatch.chdir(tmp_path)
        with doom("basic") as env:
            steps = play(env, 0, [1, 3, 5] * 5)
            assert os.getcwd() == str(tmp_path)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
        assert rewards(steps) == rewards(expected)
        np.testing.assert_array_equal(steps[-1][0], expected[-1][0])

    def test_an_engine_dies_with_the_process_that_owns_it(self, tmp_path):
        script = (
            "import sys, time\nfrom envs import EnvConfig, make\n"
            "env = make(EnvConfig())\nenv.reset(seed=0)\nprint('ready', flush=True)\n"
            "time.sleep(60)\n"
        )
        mark = hashlib.sha256(str(tmp_path).encode()).hexdigest()
        owner = processes.start_script(script, mark, tmp_path)
        try:
            assert owner.stdout.readline() == "ready\n"
            running = processes.command_lines(mark)
            engines = {pid: c for pid, c in running.items() if processes.is_engine(c)}
            assert len(engines) == 1
        finally:
            owner.send_signal(signal.SIGKILL)
            owner.communicate()
        (pid,) = engines
        died = processes.wait_until(lambda: not processes.is_running(pid), 30.0)
        processes.remove_traces(engines.values())
        assert died


def test_gymnasium_makes_an_environment_with_options():
    env = gym.make("doomgrad/Basic-v0", frame_skip=2, observation="gray", render_mode="rgb_array")
    try:
        assert env.reset(seed=0)[0].shape == (72, 128, 1)
        assert env.step(0)[1] == -2
        assert env.render().shape == (120, 160, 3)
        assert json.loads(env.spec.to_json())["id"] == "doomgrad/Basic-v0"
    finally:
        env.close()
