"""Tests of `envs.vector.lanes`, in this process: what is written into the shared arrays."""

import dataclasses
import os
import signal
from dataclasses import asdict

import numpy as np
import pytest

from envs import EnvConfig, make
from envs.doom.env import DoomEnv
from envs.doom.players import single
from envs.doom.players.single import MatchEnv
from envs.vector.lanes import ArrayEnv, Lanes, UnrecoverableError, draws_targets
from envs.vector.memory import create_memory, map_arrays
from envs.vector.messages import Job
from envs.vector.pool import deal_lanes
from tests.envs import processes
from tests.envs.doom.players.fake import FakeMatch


class Opened:
    """A worker's lanes, and the shared arrays as the main process sees them."""

    def __init__(self, config, lanes, is_successor=False):
        example = make(config)
        memory = create_memory(example, len(lanes))
        self.arrays = map_arrays(memory, example, len(lanes))
        example.close()
        self.faults = []
        job = Job(asdict(config), len(lanes), [lanes], is_successor=is_successor)
        self.lanes = Lanes(job, memory, self.faults.append)
        os.close(memory)

    def close(self):
        self.lanes.close()


@pytest.fixture
def open_lanes():
    every = []

    def open_lanes(config, lanes=(0,), **options):
        config = EnvConfig(env=config) if isinstance(config, str) else config
        every.append(Opened(config, list(lanes), **options))
        return every[-1].lanes, every[-1].arrays, every[-1].faults

    yield open_lanes
    for opened in every:
        opened.close()


def test_only_the_given_lanes_are_stepped(open_lanes):
    lanes, arrays, _ = open_lanes("tests.envs.toy:Shifted-v0", (0, 1))
    lanes.reset([0, 1])
    lanes.act([1])
    assert arrays.rewards.tolist() == [0, 1]
    lanes.act([0])
    assert arrays.rewards.tolist() == [1, 1]


def test_writes_what_the_environment_returns(open_lanes):
    config = EnvConfig(
        env="basic", variables=True, enemy_in_view=True, time_limit=8, extra_channels=("depth",)
    )
    lanes, arrays, _ = open_lanes(config)
    env = make(config)
    arrays.seeds[0] = 3
    lanes.reset([0])
    obs, _ = env.reset(seed=3)
    for action in (3, 1):
        for part, value in obs.items():
            np.testing.assert_array_equal(arrays.obs[part][0], value)
        arrays.actions[0] = action
        lanes.step([0])
        obs, reward, terminated, truncated, info = env.step(action)
        assert arrays.rewards[0] == reward
        assert (arrays.terminated[0], arrays.truncated[0]) == (terminated, truncated)
    assert arrays.truncated[0]
    for part, value in obs.items():
        np.testing.assert_array_equal(arrays.final_obs[part][0], value)
    assert arrays.episode[0].tolist() == list(info["statistics"].values())
    assert arrays.final_info[0].tolist() == [info[key] for key in env.info_keys]
    # The next episode has started, with a seed that is N larger.
    assert arrays.seeds[0] == 3 + 1
    obs, info = env.reset(seed=4)
    for part, value in obs.items():
        np.testing.assert_array_equal(arrays.obs[part][0], value)
    assert arrays.info[0].tolist() == [info[key] for key in env.info_keys]
    env.close()


def test_infos_are_written_on_reset_step_and_restore_but_not_on_act(open_lanes):
    config = EnvConfig(env="defend_the_center", time_limit=24)
    lanes, arrays, _ = open_lanes(config)
    env = make(config)
    ammo = env.info_keys.index("AMMO2")
    arrays.seeds[0] = 3
    lanes.reset([0])
    _, info = env.reset(seed=3)
    written = [arrays.info[0].tolist()]
    attack = arrays.actions[0] = 1
    expected = [[info[key] for key in env.info_keys]]
    for method in (lanes.act, lanes.act, lanes.act, lanes.step, lanes.act, lanes.act):
        method([0])
        written.append(arrays.info[0].tolist())
        info = env.step(attack)[4]
        expected.append([info[key] for key in env.info_keys])
    assert arrays.truncated[0]
    env.close()
    # The gun has been fired in between.
    assert expected[4][ammo] < expected[0][ammo]
    assert written == [expected[0]] * 4 + [expected[4]] * 3
    assert arrays.final_info[0].tolist() == expected[-1]
    arrays.seeds[0] = 3
    lanes.restore([0], {"0": [attack] * 4})
    assert arrays.info[0].tolist() == expected[4]


def test_other_environments_are_written_in_the_same_way(open_lanes):
    lanes, arrays, _ = open_lanes("tests.envs.toy:Shifted-v0")
    arrays.seeds[0] = 7
    lanes.reset([0])
    seen = [arrays.obs["obs"][0].tolist()]
    arrays.actions[0] = 2
    for method in (lanes.act, lanes.step) * 3:
        method([0])
        seen.append(arrays.obs["obs"][0].tolist())
    # Odd seeds run out of time after 6 steps; then comes the first observation of the next seed.
    assert seen == [[0, 0, 7], *([7, step, 7] for step in range(1, 6)), [0, 0, 8]]
    assert arrays.final_obs["obs"][0].tolist() == [7, 6, 7]
    assert (arrays.rewards[0], arrays.terminated[0], arrays.truncated[0]) == (6, False, True)
    assert arrays.episode[0].tolist() == [1 + 2 + 3 + 4 + 5 + 6, 6]


def test_only_lanes_with_actions_are_restored(open_lanes):
    lanes, arrays, _ = open_lanes("tests.envs.toy:Shifted-v0", (0, 1))
    arrays.seeds[:] = 4, 5
    lanes.reset([0, 1])
    lanes.act([0, 1])
    arrays.seeds[1] = 9
    lanes.restore([0, 1], {"1": [0, 0]})
    assert arrays.obs["obs"].tolist() == [[5, 1, 4], [5, 2, 9]]


def test_faults_are_reported_and_episodes_restarted(open_lanes):
    lanes, arrays, faults = open_lanes("tests.envs.toy:Raising-v0")
    lanes.reset([0])
    for _ in range(3):
        assert faults == []
        lanes.step([0])
    (fault,) = faults
    assert fault.startswith("ZeroDivisionError: the toy broke (toy.py:")
    assert (arrays.rewards[0], arrays.truncated[0]) == (0, True)
    assert np.isnan(arrays.episode).all()
    lanes.step([0])
    assert (arrays.rewards[0], arrays.truncated[0]) == (1, False)


def test_an_environment_that_cannot_start_an_episode_is_an_error(open_lanes):
    lanes, _, faults = open_lanes("tests.envs.toy:Stillborn-v0")
    reason = r"RuntimeError: it was never alive \(toy.py:"
    with pytest.raises(UnrecoverableError, match=f"^an episode could not be started: {reason}"):
        lanes.reset([0])
    assert len(faults) == 2


def test_a_successor_reports_the_lost_episodes_as_truncated(open_lanes):
    lanes, arrays, _ = open_lanes("tests.envs.toy:Shifted-v0", (0, 1), is_successor=True)
    arrays.seeds[:] = 6, 7
    for ends in ([True, True], [False, False]):
        lanes.step([0, 1])
        assert arrays.truncated.tolist() == ends
    assert arrays.rewards.tolist() == [1, 1]
    assert arrays.seeds.tolist() == [6, 7]


def test_a_hanging_engine_is_killed_from_outside(open_lanes):
    lanes, arrays, faults = open_lanes(EnvConfig(time_limit=100))
    lanes.reset([0])
    env = lanes._envs[0]
    assert isinstance(env, DoomEnv)
    pid = int((env._scratch / "engine").read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)
    lanes.end_hanging()
    assert processes.wait_until(lambda: not processes.is_running(pid), 5.0)
    lanes.act([0])
    assert arrays.truncated[0]
    assert faults[0].startswith("the Doom engine died: ")


def test_the_engine_of_a_wrapped_doom_ends_too(open_lanes):
    config = EnvConfig(time_limit=100, wrappers=("tests.envs.toy:Tripled",))
    lanes, _, _ = open_lanes(config)
    lanes.reset([0])
    doom = lanes._envs[0].doom
    pid = int((doom._scratch / "engine").read_text().split()[0])
    lanes.end_hanging()
    assert processes.wait_until(lambda: not processes.is_running(pid), 5.0)


def test_names_of_ours_in_a_users_environment_have_no_effect(open_lanes):
    lanes, arrays, faults = open_lanes("tests.envs.toy:Claiming-v0")
    lanes.reset([0])
    for _ in range(6):
        lanes.step([0])
    assert not faults
    assert arrays.info.shape == (1, 0)
    assert arrays.episode.tolist() == [[21, 6]]


LIVES = EnvConfig(env="tests.envs.toy:Lives-v0", height=40, width=30, frame_skip=4)


def play(lanes, arrays, steps):
    """Step two lanes; return the rewards, ends, first statistics and seeds of each step."""
    rows = []
    for _ in range(steps):
        arrays.episode[:] = -1
        lanes.act(list(range(len(arrays.seeds))))
        ends = (arrays.terminated, arrays.truncated, arrays.episode[:, 0], arrays.seeds)
        rows.append([np.array(part, float) for part in (arrays.rewards, *ends)])
    return [np.stack(part) for part in zip(*rows, strict=True)]


def test_a_lost_life_is_an_end_without_statistics_in_a_game_that_continues(open_lanes):
    played, arrays = [], []
    for ends in (False, True):
        config = dataclasses.replace(LIVES, terminal_on_life_loss=ends)
        lanes, shared, _ = open_lanes(config, (0, 1))
        shared.seeds[:] = 5, 6
        lanes.reset([0, 1])
        played.append(play(lanes, shared, 12))
        arrays.append(shared)
    rewards, terminated, truncated, returns, seeds = played[0]
    our_rewards, our_terminated, our_truncated, our_returns, our_seeds = played[1]
    # A life has 6 frames and an env step 4; a game has three lives.
    np.testing.assert_array_equal(terminated[:, 0], [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(our_terminated[:, 0], [0, 1, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(our_terminated[:, 0], our_terminated[:, 1])
    np.testing.assert_array_equal(our_rewards, rewards)
    np.testing.assert_array_equal(our_seeds, seeds)
    np.testing.assert_array_equal(arrays[1].obs["obs"], arrays[0].obs["obs"])
    assert not truncated.any()
    assert not our_truncated.any()
    ended, lost = terminated == 1, (our_terminated == 1) & (terminated == 0)
    assert (returns[ended] == our_returns[ended]).all()
    assert (our_returns[ended] == sum(range(1, 19))).all()
    assert np.isnan(our_returns[lost]).all()


def test_a_game_is_restored_regardless_of_lost_lives(open_lanes):
    lanes, arrays, _ = open_lanes(dataclasses.replace(LIVES, terminal_on_life_loss=True))
    arrays.seeds[:] = 5
    lanes.reset([0])
    play(lanes, arrays, 4)
    seen = arrays.obs["obs"].copy()
    play(lanes, arrays, 3)
    assert (arrays.obs["obs"] != seen).any()
    arrays.seeds[:] = 5
    lanes.restore([0], {"0": [0] * 4})
    np.testing.assert_array_equal(arrays.obs["obs"], seen)
    assert play(lanes, arrays, 1)[1].all()


def test_terminal_on_life_loss_is_refused_if_lives_are_not_reported(open_lanes):
    lanes, _, _ = open_lanes(EnvConfig(env="CartPole-v1", terminal_on_life_loss=True))
    lanes.reset([0])
    message = "terminal_on_life_loss needs an environment that reports `lives` in its info; CartP"
    with pytest.raises(UnrecoverableError, match=message):
        lanes.act([0])


def test_questions_are_answered_by_the_lanes_that_were_asked(open_lanes):
    lanes, arrays, _ = open_lanes("tests.envs.toy:Shifted-v0", (0, 1))
    arrays.seeds[:] = 4, 5
    lanes.reset([0, 1])
    question = {"lanes": [1, 7], "name": "seed", "args": [], "kwargs": {}}
    assert lanes.ask([0, 1], question)[8:] == b'{"1": 5}'
    assert b"AttributeError" in lanes.ask([0, 1], {**question, "name": "nothing"})


@pytest.mark.parametrize(
    ("num_envs", "num_groups", "num_workers"), [(16, 2, 2), (16, 1, 2), (32, 1, 4), (64, 2, 8)]
)
def test_lanes_that_draw_targets_are_one_of_several_in_different_workers(
    num_envs, num_groups, num_workers
):
    groups = np.split(np.arange(num_envs), num_groups)
    drawn = [
        sum(draws_targets(lane, 8) for group in lanes for lane in group)
        for lanes in deal_lanes(groups, num_workers)
    ]
    assert sum(drawn) == num_envs // 8
    assert max(drawn) == max(1, num_envs // 8 // num_workers)
    assert all(draws_targets(lane, 1) for lane in range(num_envs))
    assert draws_targets(0, 1_000)


def test_engines_of_a_match_that_hangs_are_killed(monkeypatch):
    killed = []
    monkeypatch.setattr(single, "Match", FakeMatch)
    match = MatchEnv(EnvConfig(env="players:duel"))
    monkeypatch.setattr(match.match, "kill", lambda: killed.append(True))
    worker = Lanes.__new__(Lanes)
    worker._envs, worker._current = {3: ArrayEnv(match)}, 3
    worker.end_hanging()  # It would exit if there were nothing to kill.
    assert killed == [True]
