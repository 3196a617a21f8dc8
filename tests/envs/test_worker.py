"""A worker process by itself: its two file descriptors, its messages, its end."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest

from envs import EnvConfig, make
from envs.shared import create_memory, map_arrays
from envs.worker import ACT, CLOSE, FAILED, FAULT, RESET, RESTORE, STEP, Job, as_json
from tests.envs import processes

ANSWER_TAKES_S = 30.0


class Worker:
    """The main process's side of one worker, written down from the protocol."""

    def __init__(self, config, groups):
        example = make(config)
        lanes = sum(map(len, groups))
        memory = create_memory(example, lanes)
        self.arrays = map_arrays(memory, example, lanes)
        example.close()
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(ANSWER_TAKES_S)
        code = "from envs.worker import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(theirs.fileno()), str(memory)],
            pass_fds=(theirs.fileno(), memory),
            env={**os.environ, "PYTHONPATH": str(processes.ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        os.close(memory)
        job = Job(asdict(config), lanes, groups)
        self.socket.sendall(json.dumps(asdict(job)).encode() + b"\n")

    def ask(self, command, group=0):
        self.socket.sendall(bytes((command, group)))
        return self.socket.recv(2, socket.MSG_WAITALL)

    def end(self):
        """Give the exit status and what was printed."""
        self.socket.close()
        try:
            _, printed = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, printed


@pytest.fixture
def start():
    started = []

    def start(config, groups=([0],)):
        started.append(Worker(config, [list(group) for group in groups]))
        return started[-1]

    yield start
    for worker in started:
        worker.end()


def test_answers_every_command_with_itself(start):
    worker = start(EnvConfig(), groups=([0], [1]))
    for command, group in ((RESET, 1), (RESET, 0), (STEP, 0), (ACT, 1), (STEP, 1), (ACT, 0)):
        assert worker.ask(command, group) == bytes((command, group))


def test_steps_only_the_group_it_is_told_to(start):
    worker = start(EnvConfig(frame_skip=2), groups=([0], [1]))
    worker.ask(RESET, 0)
    worker.ask(RESET, 1)
    worker.ask(STEP, 1)
    assert worker.arrays.rewards.tolist() == [0, -2]
    worker.ask(STEP, 0)
    assert worker.arrays.rewards.tolist() == [-2, -2]


def test_writes_what_the_environment_returns(start):
    config = EnvConfig(env="basic", variables=True, time_limit=8, extra_channels=("depth",))
    worker = start(config)
    arrays, env = worker.arrays, make(config)
    arrays.seeds[0] = 3
    worker.ask(RESET)
    obs, _ = env.reset(seed=3)
    for action in (3, 1):
        for part, value in obs.items():
            np.testing.assert_array_equal(arrays.obs[part][0], value)
        arrays.actions[0] = action
        worker.ask(STEP)
        obs, reward, terminated, truncated, info = env.step(action)
        assert arrays.rewards[0] == reward
        assert (arrays.terminated[0], arrays.truncated[0]) == (terminated, truncated)
    assert arrays.truncated[0]
    for part, value in obs.items():
        np.testing.assert_array_equal(arrays.final_obs[part][0], value)
    assert arrays.episode[0].tolist() == list(info["statistics"].values())
    assert arrays.final_info[0].tolist() == [info[key] for key in env.info_keys]
    # The next episode has begun, with the seed that is N further.
    assert arrays.seeds[0] == 3 + 1
    for part, value in env.reset(seed=4)[0].items():
        np.testing.assert_array_equal(arrays.obs[part][0], value)
    env.close()


def test_tells_the_info_of_a_step_only_when_asked_to_but_always_that_of_an_end(start):
    config = EnvConfig(env="defend_the_center", time_limit=24)
    worker = start(config)
    arrays, env = worker.arrays, make(config)
    ammo = env.info_keys.index("AMMO2")
    arrays.seeds[0] = 3
    worker.ask(RESET)
    _, info = env.reset(seed=3)
    told = [arrays.info[0].tolist()]
    attack = arrays.actions[0] = 1
    expected = [list(info.values())[:-1]]
    for command in (ACT, ACT, ACT, STEP, ACT, ACT):
        worker.ask(command)
        told.append(arrays.info[0].tolist())
        info = env.step(attack)[4]
        expected.append([info[key] for key in env.info_keys])
    assert arrays.truncated[0]
    env.close()
    # The gun has fired meanwhile.
    assert expected[4][ammo] < expected[0][ammo]
    assert told == [expected[0]] * 4 + [expected[4]] * 3
    assert arrays.final_info[0].tolist() == expected[-1]


def test_other_environments_are_told_by_the_same_rules(start):
    worker = start(EnvConfig(env="tests.envs.toy:Shifted-v0"))
    arrays = worker.arrays
    arrays.seeds[0] = 7
    worker.ask(RESET)
    shown = [arrays.obs["obs"][0].tolist()]
    arrays.actions[0] = 2
    for command in (ACT, STEP) * 3:
        worker.ask(command)
        shown.append(arrays.obs["obs"][0].tolist())
    # Odd seeds run out of time after 6 steps; then comes the first observation of the next seed.
    assert shown == [[0, 0, 7], *([7, step, 7] for step in range(1, 6)), [0, 0, 8]]
    assert arrays.final_obs["obs"][0].tolist() == [7, 6, 7]
    assert (arrays.rewards[0], arrays.terminated[0], arrays.truncated[0]) == (6, False, True)
    assert arrays.episode[0].tolist() == [1 + 2 + 3 + 4 + 5 + 6, 6]


@pytest.mark.parametrize("told", [True, False])
def test_ends_in_silence_when_told_or_left_alone(start, told):
    worker = start(EnvConfig())
    worker.ask(RESET)
    if told:
        worker.socket.sendall(bytes((CLOSE, 0)))
    assert worker.end() == (0, "")


def test_ends_with_its_engines_when_terminated(start):
    worker = start(EnvConfig())
    worker.ask(RESET)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == (0, "")


def test_goes_on_when_interrupted(start):
    worker = start(EnvConfig())
    worker.ask(RESET)
    worker.process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    assert worker.ask(STEP) == bytes((STEP, 0))


def test_tells_of_what_broke_and_goes_on(start):
    worker = start(EnvConfig(env="tests.envs.toy:Raising-v0"))
    assert worker.ask(RESET) == bytes((RESET, 0))
    assert [worker.ask(STEP) for _ in range(2)] == [bytes((STEP, 0))] * 2
    letter, length = worker.ask(STEP)
    said = worker.socket.recv(length, socket.MSG_WAITALL).decode()
    assert letter == FAULT
    assert said.startswith("ZeroDivisionError: the toy broke (toy.py:")
    assert worker.socket.recv(2, socket.MSG_WAITALL) == bytes((STEP, 0))
    assert (worker.arrays.rewards[0], worker.arrays.truncated[0]) == (0, True)
    assert worker.ask(STEP) == bytes((STEP, 0))
    assert worker.end() == (0, "")


def test_reports_that_it_cannot_go_on_and_ends(start):
    worker = start(EnvConfig(env="tests.envs.toy:Stillborn-v0"))
    worker.socket.sendall(bytes((RESET, 0)))
    with worker.socket.makefile("rb") as report:
        said = report.read()
    reason = b"RuntimeError: it was never alive (toy.py:"
    assert said.count(reason) == 3
    *_, last = said.split(bytes((FAILED, 0)))
    assert last.startswith(b"an episode could not be begun: " + reason)
    assert worker.end() == (0, "")


LIVES = EnvConfig(env="tests.envs.toy:Lives-v0", height=40, width=30, frame_skip=4)


def play(worker, steps):
    """Step two lanes, and give the rewards, ends, first statistics and seeds of each step."""
    arrays, rows = worker.arrays, []
    for _ in range(steps):
        worker.arrays.episode[:] = -1
        assert worker.ask(ACT) == bytes((ACT, 0))
        ends = (arrays.terminated, arrays.truncated, arrays.episode[:, 0], arrays.seeds)
        rows.append([np.array(part, float) for part in (arrays.rewards, *ends)])
    return [np.stack(part) for part in zip(*rows, strict=True)]


def test_a_lost_life_is_an_end_without_statistics_in_a_game_that_goes_on(start):
    whole, lives = (
        start(dataclasses.replace(LIVES, terminal_on_life_loss=ends), groups=([0, 1],))
        for ends in (False, True)
    )
    for worker in (whole, lives):
        worker.arrays.seeds[:] = 5, 6
        worker.ask(RESET)
    rewards, terminated, truncated, returns, seeds = play(whole, 12)
    our_rewards, our_terminated, our_truncated, our_returns, our_seeds = play(lives, 12)
    # Lives of 6 frames, of which env steps are 4; the third is the last one of a game.
    np.testing.assert_array_equal(terminated[:, 0], [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(our_terminated[:, 0], [0, 1, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(our_terminated[:, 0], our_terminated[:, 1])
    np.testing.assert_array_equal(our_rewards, rewards)
    np.testing.assert_array_equal(our_seeds, seeds)
    np.testing.assert_array_equal(lives.arrays.obs["obs"], whole.arrays.obs["obs"])
    assert not truncated.any()
    assert not our_truncated.any()
    ended, lost = terminated == 1, (our_terminated == 1) & (terminated == 0)
    assert (returns[ended] == our_returns[ended]).all()
    assert (our_returns[ended] == sum(range(1, 19))).all()
    assert np.isnan(our_returns[lost]).all()


def test_a_game_is_put_back_to_where_it_was_whatever_lives_it_cost(start):
    worker = start(dataclasses.replace(LIVES, terminal_on_life_loss=True))
    worker.arrays.seeds[:] = 5
    worker.ask(RESET)
    play(worker, 4)
    seen = worker.arrays.obs["obs"].copy()
    play(worker, 3)
    assert (worker.arrays.obs["obs"] != seen).any()
    worker.arrays.seeds[:] = 5
    worker.socket.sendall(bytes((RESTORE, 0)) + as_json({0: [0] * 4}))
    assert worker.socket.recv(2, socket.MSG_WAITALL) == bytes((RESTORE, 0))
    np.testing.assert_array_equal(worker.arrays.obs["obs"], seen)
    assert play(worker, 1)[1].all()


def test_a_game_without_lives_cannot_have_one_lost(start):
    worker = start(EnvConfig(env="CartPole-v1", terminal_on_life_loss=True))
    worker.ask(RESET)
    assert worker.ask(ACT)[0] == FAILED
    with worker.socket.makefile("rb") as report:
        said = report.read().decode()
    assert said == "terminal_on_life_loss needs a game that tells `lives`; CartPole-v1 does not"
