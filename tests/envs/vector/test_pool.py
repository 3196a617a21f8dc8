"""Tests of `envs.vector.pool`: who gets which environments, teams, and workers that die or hang."""

import itertools
import os
import signal
import socket

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import EnvError, StoppedError
from envs.vector.pool import deal_lanes
from envs.vector.pool import usable_cores as stand_in
from tests.envs import processes
from tests.envs.vector.opened import TOY, opened, random_batches

open_envs = pytest.fixture(opened)


@st.composite
def fitting_numbers(draw):
    num_groups, size = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    return num_groups, size, draw(st.integers(1, min(24, num_groups * size)))


@settings(max_examples=200, deadline=None)
@given(fitting_numbers())
def test_every_environment_is_dealt_once_and_evenly(numbers):
    num_groups, size, num_workers = numbers
    groups = np.split(np.arange(num_groups * size), num_groups)
    hands = deal_lanes(groups, num_workers)
    assert [len(hand) for hand in hands] == [num_groups] * num_workers
    for g, group in enumerate(groups):
        assert sorted(env for hand in hands for env in hand[g]) == group.tolist()
    held = [sum(map(len, hand)) for hand in hands]
    assert min(held) >= 1
    assert max(held) - min(held) <= 1


@settings(max_examples=200, deadline=None)
@given(fitting_numbers())
def test_there_are_as_many_teams_as_can_have_two_groups_each(numbers):
    num_groups, size, num_workers = numbers
    hands = deal_lanes(np.split(np.arange(num_groups * size), num_groups), num_workers)
    fitting = [t for t in range(2, num_workers + 1) if num_workers % t == num_groups % t == 0]
    num_teams = max([1, *(t for t in fitting if num_groups // t >= 2)])
    members = num_workers // num_teams
    for g in range(num_groups):
        holding = [w for w, hand in enumerate(hands) if hand[g]]
        assert {w % num_teams for w in holding} == {g % num_teams}
        assert len(holding) == min(size, members)
        counts = [len(hands[w][g]) for w in holding]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("num_workers", "num_groups", "expected"),
    [
        (2, 2, [{0, 1}, {0, 1}]),
        (2, 4, [{0}, {1}, {0}, {1}]),
        (4, 4, [{0, 2}, {1, 3}, {0, 2}, {1, 3}]),
        (4, 2, [{0, 1, 2, 3}] * 2),
        (3, 4, [{0, 1, 2}] * 4),
        (1, 4, [{0}] * 4),
    ],
)
def test_groups_are_held_by_teams_of_workers(num_workers, num_groups, expected):
    hands = deal_lanes(np.split(np.arange(16 * num_groups), num_groups), num_workers)
    holding = [{w for w, hand in enumerate(hands) if hand[g]} for g in range(num_groups)]
    assert holding == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinities")
def test_only_the_cores_of_this_process_are_usable():
    usable_cores = stand_in.__wrapped__  # See tests/conftest.py.
    before = os.sched_getaffinity(0)
    assert usable_cores() == sorted(before)
    try:
        os.sched_setaffinity(0, {max(before)})
        assert usable_cores() == [max(before)]
    finally:
        os.sched_setaffinity(0, before)


def test_there_are_at_most_as_many_workers_as_environments_and_none_is_idle(open_envs):
    assert open_envs(f"{TOY}:Shifted-v0", 2, num_workers=9).num_workers == 2
    envs = open_envs(f"{TOY}:Shifted-v0", 4, num_workers=3, num_groups=2)
    envs.reset(seed=0)
    envs.step(np.full(4, 0))
    assert envs.num_workers == len(envs._workers) == 3
    assert all(worker.process.poll() is None for worker in envs._workers)


def test_teams_play_the_same_as_one_worker(open_envs):
    one = open_envs(f"{TOY}:Shifted-v0", 8, num_workers=1)
    for num_workers in (2, 8):
        teams = open_envs(f"{TOY}:Shifted-v0", 8, num_workers=num_workers, num_groups=4)
        np.testing.assert_equal(one.reset(seed=3)[0], teams.reset(seed=3)[0])
        for actions in random_batches(one, 20):
            for a, b in zip(one.step(actions)[:4], teams.step(actions)[:4], strict=True):
                np.testing.assert_equal(a, b)
        np.testing.assert_equal(one.episode_seeds, teams.episode_seeds)


def test_the_group_that_was_sent_first_is_ready_first(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 6, num_workers=1, num_groups=3)
    envs.reset(seed=0)
    for group in (2, 0, 1):
        envs.send(group, np.array([0, 1]))
    order = []
    for _ in range(3):
        order.append(envs.wait())
        assert envs.wait() == order[-1]  # until it is received
        envs.receive(order[-1])
    assert order == [2, 0, 1]
    # A worker replies in order: after the second reply, the first is there too.
    for group in (1, 2):
        envs.send(group, np.array([0, 1]))
    envs.receive(2)
    envs.send(2, np.array([0, 1]))
    assert envs.wait() == 1
    assert envs.receive(1).obs["obs"][:, 0].tolist() == [5, 6]
    assert envs.wait() == 2
    envs.receive(2)


def test_a_slow_team_delays_only_its_own_groups(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 4, num_workers=2, num_groups=4)
    envs.reset(seed=0)
    slow = envs._workers[0].process
    slow.send_signal(signal.SIGSTOP)
    for group in range(4):
        envs.send(group, np.array([0]))
    assert envs.teams == [[0, 2], [1, 3]]
    for expected in (1, 3, 1):
        assert envs.wait(1) == expected
        envs.receive(expected)
        if expected == 1:
            envs.send(1, np.array([0]))
    slow.send_signal(signal.SIGCONT)
    for expected in (0, 2):
        assert envs.wait(0) == expected
        envs.receive(expected)


def test_a_worker_that_dies_again_and_again_is_an_error(open_envs, monkeypatch):
    # As if a package were missing where workers run.
    envs = open_envs(f"{TOY}:Shifted-v0", 2, num_workers=1)
    monkeypatch.setattr("envs.vector.pool._START_WORKER", "raise SystemExit(5)")
    envs._workers[0].process.kill()
    with pytest.raises(EnvError, match="a worker process died 3 times in a row: exit status 5"):
        envs.reset(seed=0)


@pytest.mark.parametrize(
    ("when", "how"),
    [("idle", "step"), ("at work", "receive"), ("at work", "wait"), ("with more to do", "wait")],
)
def test_a_worker_that_is_killed_is_replaced(open_envs, when, how):
    envs = open_envs(f"{TOY}:Shifted-v0", 4, num_workers=2, num_groups=2)
    envs.reset(seed=20)
    process = envs._workers[0].process
    if when != "idle":
        process.send_signal(signal.SIGSTOP)
        envs.send(0, np.array([0, 0]))
        if when == "with more to do":
            envs.send(1, np.array([0, 0]))
    process.send_signal(signal.SIGKILL)
    process.wait()
    if how == "step":
        _, rewards, terminated, truncated, _ = envs.step(np.full(4, 0))
        assert (rewards.tolist(), truncated.tolist()) == ([0, 1, 0, 1], [True, False, True, False])
        assert not terminated.any()
    else:
        if how == "wait":
            assert envs.wait() == 0
        for group in (0, 1) if when == "with more to do" else (0,):
            transition = envs.receive(group)
            assert transition.rewards.tolist() == [0, 1]
            assert transition.truncated.tolist() == [True, False]
            assert np.isnan(transition.episode[0]).all()
    assert envs.num_restarts == 1
    assert envs.last_restart == "a worker process died: signal 9"
    if when == "at work":  # The other group reports its loss when it is sent actions.
        envs.send(1, np.array([0, 0]))
        assert envs.receive(1).truncated.tolist() == [True, False]
    assert envs.step(np.full(4, 0))[1].tolist() == [1, 2, 1, 2]
    assert envs.episode_seeds.tolist() == [20, 21, 22, 23]


def test_an_end_that_a_dying_worker_did_not_report_is_repeated(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 2, num_workers=1, num_groups=2)
    envs.reset(seed=20)
    for _ in range(5):
        envs.step(np.full(2, 0))
    process = envs._workers[0].process
    envs.send(0, np.array([0]))
    # The worker has started the next episode, but its reply is discarded here.
    assert processes.wait_until(lambda: envs.episode_seeds[0] == 22, 10.0)
    envs._workers[0].connection.recv(2, socket.MSG_WAITALL)
    process.kill()
    process.wait()
    assert envs.receive(0).truncated.tolist() == [True]
    assert envs.episode_seeds.tolist() == [20, 21]
    for step in range(6):
        envs.send(0, np.array([0]))
        assert envs.receive(0).rewards.tolist() == [step + 1]
    assert envs.episode_seeds.tolist() == [22, 21]


def test_a_worker_that_hangs_is_replaced(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 2, num_workers=1)
    envs.reset(seed=0)
    envs._teams[0]._patience_s = 1.5
    process = envs._workers[0].process
    process.send_signal(signal.SIGSTOP)
    assert envs.step(np.full(2, 0))[3].all()
    assert envs.last_restart == "a worker did not answer for 1.5 s"
    assert process.poll() == -signal.SIGKILL
    assert envs.step(np.full(2, 0))[1].tolist() == [1, 1]


def test_taking_many_actions_again_takes_its_time(open_envs):
    envs = open_envs(f"{TOY}:Slow-v0", 1)
    envs.reset(seed=0)
    patience = envs._teams[0]._patience_s
    envs._teams[0]._patience_s = 0.2
    envs.restore([0], [np.zeros(5, np.int64)])  # Each takes 0.1 s.
    assert envs.num_restarts == 0
    envs._teams[0]._patience_s = patience
    assert envs.step(np.zeros(1, np.int64))[1].tolist() == [6]


def test_the_engines_of_a_killed_worker_die_with_it(open_envs):
    before = set(processes.command_lines(os.environ[processes.MARKER]))
    envs = open_envs("basic", 2, num_workers=1)
    envs.reset(seed=0)
    running = processes.command_lines(os.environ[processes.MARKER])
    engines = {p: c for p, c in running.items() if processes.is_engine(c) and p not in before}
    assert len(engines) == 2
    for worker in envs._workers:
        worker.process.send_signal(signal.SIGKILL)
    died = processes.wait_until(lambda: not any(map(processes.is_running, engines)), 30.0)
    processes.remove_traces(engines.values())
    assert died


def test_closing_ends_every_worker_and_may_be_done_twice(open_envs, monkeypatch):
    monkeypatch.setattr("envs.vector.pool.CLOSE_WITHIN_S", 60.0)
    envs = open_envs("basic", 2, num_workers=2)
    envs.reset(seed=0)
    envs.send(0, np.zeros(2, int))
    workers = [worker.process for worker in envs._workers]
    envs.close()
    # They exited in time: none was killed.
    assert [worker.poll() for worker in workers] == [0, 0]
    envs.close()


def test_closing_kills_a_worker_that_hangs(open_envs, monkeypatch):
    monkeypatch.setattr("envs.vector.pool.CLOSE_WITHIN_S", 5.0)
    envs = open_envs(f"{TOY}:Shifted-v0", 2, num_workers=2)
    envs.reset(seed=0)
    hanging = envs._workers[0].process
    hanging.send_signal(signal.SIGSTOP)
    envs.close()
    assert hanging.poll() == -signal.SIGKILL
    assert envs._workers[1].process.poll() == 0


def test_a_failure_is_reported_although_commands_of_other_groups_are_not_read(
    open_envs, tmp_path, monkeypatch
):
    monkeypatch.setenv("DOOMGRAD_SOUR", str(tmp_path / "sour"))
    envs = open_envs(f"{TOY}:Souring-v0", 2, num_workers=1, num_groups=2)
    envs.reset(seed=0)

    def step(times):
        for _ in range(times):
            for group in (0, 1):
                envs.send(group, np.array([0]))
            for group in (0, 1):
                envs.receive(group)

    step(1)
    (tmp_path / "sour").touch()

    with pytest.raises(EnvError, match="the episode with seed 0 failed 20 times: Assert"):
        step(20)


def test_environments_that_are_slow_are_not_waited_for_after_a_signal(open_envs):
    times = itertools.repeat(0)
    envs = open_envs(
        f"{TOY}:Shifted-v0", 2, num_workers=2, num_groups=2, stops=lambda: next(times) > 3
    )
    envs.reset(seed=0)
    process = envs._workers[0].process
    process.send_signal(signal.SIGSTOP)
    envs.send(0, np.array([0]))
    times = itertools.count()
    with pytest.raises(StoppedError):
        envs.receive(0)
    assert next(times) > 4
    envs.close()
    assert process.poll() == -signal.SIGKILL


def test_environments_that_are_fast_are_not_waited_for_after_a_signal(open_envs, monkeypatch):
    monkeypatch.setattr("envs.vector.pool.HURRY_S", 60.0)
    told = []
    envs = open_envs(f"{TOY}:Shifted-v0", 1, stops=lambda: bool(told))
    envs.reset(seed=0)
    envs.step(np.zeros(1, int))
    told.append(True)
    with pytest.raises(StoppedError):
        envs.step(np.zeros(1, int))
    envs.close()
    assert [worker.process.poll() for worker in envs._workers] == [0]


WAITING = """
import json, sys
from envs import EnvConfig, SharedVectorEnv
envs = SharedVectorEnv(EnvConfig(env="tests.envs.toy:Shifted-v0"), 1)
envs.reset(seed=0)
print(envs._workers[0].process.pid, flush=True)
sys.stdin.read()
"""


def test_a_worker_that_is_stopped_does_not_outlive_the_main_process(tmp_path):
    owner = processes.start_script(f"import time\n{WAITING}\ntime.sleep(99)", "x", tmp_path)
    pid = int(owner.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    owner.kill()
    owner.communicate()
    assert processes.wait_until(lambda: not processes.is_running(pid), 5.0)
