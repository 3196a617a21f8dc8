"""Many environments at once against one after another, and what happens when one goes wrong."""

import os
import re
import signal
import socket

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import EnvConfig, EnvError, SharedVectorEnv, make
from envs.vector import _deal
from tests.envs import processes

DOOM = EnvConfig(env="defend_the_center", variables=True, time_limit=60)
TOY = "tests.envs.toy"


@pytest.fixture
def open_envs():
    opened = []

    def open_envs(config, *numbers, **options):
        config = EnvConfig(env=config) if isinstance(config, str) else config
        opened.append(SharedVectorEnv(config, *numbers, **options))
        return opened[-1]

    yield open_envs
    for envs in opened:
        envs.close()


def random_batches(envs, steps):
    envs.action_space.seed(0)
    return [envs.action_space.sample() for _ in range(steps)]


def equal(a, b):
    np.testing.assert_equal(a, b)


class OneByOne:
    """What `SharedVectorEnv` promises, written as plainly as can be."""

    def __init__(self, config, num_envs):
        self.envs = [make(config) for _ in range(num_envs)]

    def reset(self, seed):
        self.seeds = [seed + i for i in range(len(self.envs))]
        return [env.reset(seed=s) for env, s in zip(self.envs, self.seeds, strict=True)]

    def step(self, actions):
        """Give (obs, reward, terminated, truncated, info, final obs, final info) of each."""
        results = []
        for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            obs, reward, terminated, truncated, info = env.step(action)
            final = (None, None)
            if terminated or truncated:
                self.seeds[i] += len(self.envs)
                final = (obs, info)
                obs, info = env.reset(seed=self.seeds[i])
            results.append((obs, reward, terminated, truncated, info, *final))
        return results

    def close(self):
        for env in self.envs:
            env.close()


@pytest.fixture
def one_by_one():
    reference = OneByOne(DOOM, 4)
    yield reference
    reference.close()


def unbatch(obs, lane):
    return {name: part[lane] for name, part in obs.items()} if isinstance(obs, dict) else obs[lane]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_equals_stepping_one_environment_after_another(open_envs, one_by_one, workers):
    envs = open_envs(DOOM, 4, num_workers=workers, num_groups=2)
    obs, infos = envs.reset(seed=7)
    for lane, (expected, info) in enumerate(one_by_one.reset(7)):
        equal(unbatch(obs, lane), expected)
        assert {key: infos[key][lane] for key in envs.info_keys} == {
            key: info[key] for key in envs.info_keys
        }
    ends = 0
    for actions in random_batches(envs, 40):
        obs, rewards, terminated, truncated, infos = envs.step(actions)
        for lane, expected in enumerate(one_by_one.step(actions)):
            equal(unbatch(obs, lane), expected[0])
            assert (rewards[lane], terminated[lane], truncated[lane]) == expected[1:4]
            info, final_obs, final_info = expected[4:]
            assert {k: infos[k][lane] for k in envs.info_keys} == {
                k: info[k] for k in envs.info_keys
            }
            ended = final_obs is not None
            assert ended == (terminated[lane] or truncated[lane])
            if not ended:
                assert "final_obs" not in infos or infos["final_obs"][lane] is None
                continue
            ends += 1
            equal(infos["final_obs"][lane], final_obs)
            finals = infos["final_info"]
            assert {k: finals[k][lane] for k in envs.info_keys} == {
                k: final_info[k] for k in envs.info_keys
            }
            assert {k: finals["episode"][k][lane] for k in envs.episode_keys} == (
                final_info["statistics"]
            )
            for mask in (infos["_final_obs"], infos["_final_info"], finals["_episode"]):
                assert mask[lane]
        assert envs.episode_seeds.tolist() == one_by_one.seeds
    assert ends >= 8


def test_agrees_with_gymnasiums_vector_environment(open_envs):
    ours = open_envs("CartPole-v1", 3, num_workers=2)
    wrapped = gym.wrappers.RecordEpisodeStatistics
    theirs = SyncVectorEnv(
        [lambda: wrapped(gym.make("CartPole-v1"))] * 3, autoreset_mode=AutoresetMode.SAME_STEP
    )
    try:
        assert ours.single_observation_space == theirs.single_observation_space
        assert ours.observation_space == theirs.observation_space
        assert ours.action_space == theirs.action_space
        assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
        equal(ours.reset(seed=5)[0], theirs.reset(seed=5)[0])
        running = np.ones(3, bool)  # After an end they draw seeds of their own.
        ends = 0
        for actions in random_batches(ours, 60):
            one, other = ours.step(actions), theirs.step(actions)
            ended = (one[2] | one[3]) & running
            for a, b in zip(one[1:4], other[1:4], strict=True):
                assert a.dtype == b.dtype
                equal(a[running], b[running])
            for lane in np.flatnonzero(ended):
                ends += 1
                equal(one[4]["final_obs"][lane], other[4]["final_obs"][lane])
                for key in ("r", "l"):
                    episodes = [
                        infos["final_info"]["episode"][key][lane] for infos in (one[4], other[4])
                    ]
                    assert episodes[0] == episodes[1]
            running &= ~ended
            equal(one[0][running], other[0][running])
        assert ends == 3
    finally:
        theirs.close()


def test_seeds_of_the_episodes_are_known(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 4, num_workers=2)
    obs, _ = envs.reset(seed=10)
    assert obs[:, 2].tolist() == [10, 11, 12, 13]
    seen = [set() for _ in range(4)]
    for _ in range(6 * 5):
        obs = envs.step(np.full(4, 0))[0]
        for lane in range(4):
            seen[lane].add(int(obs[lane, 2]))
    assert seen == [{10 + lane + 4 * k for k in range(6)} for lane in range(4)]
    assert envs.episode_seeds.tolist() == [30, 31, 32, 33]


def test_one_seed_for_each_environment_may_be_given(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 3, num_workers=1)
    assert envs.reset(seed=[5, 1, 9])[0][:, 2].tolist() == [5, 1, 9]
    with pytest.raises(EnvError, match="2 seeds were given for 3 environments"):
        envs.reset(seed=[1, 2])


def test_without_a_seed_the_next_of_the_generator_is_drawn(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 2, num_workers=1)
    envs.reset(seed=1)
    first, second = (envs.reset()[0][:, 2].tolist() for _ in range(2))
    assert first != second
    envs.reset(seed=1)
    assert [envs.reset()[0][:, 2].tolist() for _ in range(2)] == [first, second]


@pytest.mark.parametrize("kind", ["Shifted", "Bounded", "Groups", "Switches"])
def test_every_kind_of_action_arrives(open_envs, kind):
    envs = open_envs(f"{TOY}:{kind}-v0", 4, num_workers=2, num_groups=2)
    single = make(EnvConfig(env=f"{TOY}:{kind}-v0"))
    envs.reset(seed=0)
    single.reset(seed=0)
    for actions in random_batches(envs, 4):
        equal(envs.step(actions)[0][0], single.step(actions[0])[0])


def test_groups_are_sent_and_received_apart(open_envs):
    whole = open_envs(DOOM, 4, num_workers=2)
    halves = open_envs(DOOM, 4, num_workers=2, num_groups=2)
    assert [group.tolist() for group in halves.groups] == [[0, 1], [2, 3]]
    whole.reset(seed=3)
    halves.reset(seed=3)
    for group in (0, 1):
        equal(
            halves.current_obs(group)["screen"], halves.reset(seed=3)[0]["screen"][2 * group :][:2]
        )
    batches = random_batches(whole, 30)
    halves.send(0, batches[0][:2])
    ends = 0
    for now, later in zip(batches, [*batches[1:], None], strict=True):
        halves.send(1, now[2:])
        obs, rewards, terminated, truncated, infos = whole.step(now)
        for group, lanes in enumerate((slice(0, 2), slice(2, 4))):
            got = halves.receive(group)
            for part, value in got.obs.items():
                equal(value, obs[part][lanes])
            equal(got.rewards, rewards[lanes])
            equal(got.terminated, terminated[lanes])
            equal(got.truncated, truncated[lanes])
            for lane in np.flatnonzero(got.terminated | got.truncated):
                ends += 1
                final = infos["final_obs"][lanes][lane]
                for part, value in got.final_obs.items():
                    equal(value[lane], final[part])
                episode = infos["final_info"]["episode"]
                assert got.episode[lane].tolist() == [
                    episode[key][lanes][lane] for key in halves.episode_keys
                ]
            if group == 0 and later is not None:
                halves.send(0, later[:2])
    assert ends >= 4
    equal(whole.episode_seeds, halves.episode_seeds)


def test_what_was_returned_stays_as_it_was(open_envs):
    envs = open_envs("basic", 2, num_workers=1)
    first = envs.reset(seed=0)[0]
    copy = first.copy()
    _, rewards, terminated, *_ = envs.step(np.array([1, 3]))
    kept = rewards.copy()
    envs.step(np.array([3, 1]))
    equal(first, copy)
    equal(rewards, kept)
    assert not terminated.any()


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"num_envs": -3}, "num_envs must be at least 1"),
        ({"num_envs": 2, "num_workers": 0}, "num_workers must be at least 1, got 0"),
        (
            {"num_envs": 4, "num_groups": 3},
            r"num_envs \(4\) must be a multiple of num_groups \(3\)",
        ),
        ({"num_envs": 4, "num_groups": 0}, "must be a multiple of num_groups"),
        ({"num_envs": 2, "num_groups": 4}, "must be a multiple of num_groups"),
    ],
)
def test_refuses_numbers_that_do_not_fit(numbers, said):
    with pytest.raises(EnvError, match=said):
        SharedVectorEnv(EnvConfig(), **numbers)


def test_refuses_a_world_that_does_not_exist_before_starting_anything():
    with pytest.raises(EnvError, match="did you mean basic"):
        SharedVectorEnv(EnvConfig(env="basci"), 2)


def test_there_are_never_more_workers_than_environments_and_none_is_idle(open_envs):
    assert open_envs(f"{TOY}:Shifted-v0", 2, num_workers=9).num_workers == 2
    envs = open_envs(f"{TOY}:Shifted-v0", 4, num_workers=3, num_groups=2)
    envs.reset(seed=0)
    envs.step(np.full(4, 0))
    assert envs.num_workers == len(envs._workers) == 3
    assert all(worker.process.poll() is None for worker in envs._workers)


@st.composite
def numbers_that_fit(draw):
    num_groups, size = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    return num_groups, size, draw(st.integers(1, min(24, num_groups * size)))


@settings(max_examples=200, deadline=None)
@given(numbers_that_fit())
def test_every_environment_is_dealt_once_and_evenly(numbers):
    num_groups, size, num_workers = numbers
    groups = np.split(np.arange(num_groups * size), num_groups)
    hands = _deal(groups, num_workers)
    assert [len(hand) for hand in hands] == [num_groups] * num_workers
    for g, group in enumerate(groups):
        assert sorted(env for hand in hands for env in hand[g]) == group.tolist()
    held = [sum(map(len, hand)) for hand in hands]
    assert min(held) >= 1
    assert max(held) - min(held) <= 1


@settings(max_examples=200, deadline=None)
@given(numbers_that_fit())
def test_teams_are_as_many_as_have_two_groups_each(numbers):
    num_groups, size, num_workers = numbers
    hands = _deal(np.split(np.arange(num_groups * size), num_groups), num_workers)
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
    hands = _deal(np.split(np.arange(16 * num_groups), num_groups), num_workers)
    holding = [{w for w, hand in enumerate(hands) if hand[g]} for g in range(num_groups)]
    assert holding == expected


def test_there_may_be_as_many_workers_as_environments(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 4, num_workers=4, num_groups=2)
    envs.reset(seed=0)
    assert envs.step(np.full(4, 0))[1].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_teams_play_the_same_as_one_worker(open_envs, num_workers):
    one = open_envs(f"{TOY}:Shifted-v0", 8, num_workers=1)
    teams = open_envs(f"{TOY}:Shifted-v0", 8, num_workers=num_workers, num_groups=4)
    equal(one.reset(seed=3)[0], teams.reset(seed=3)[0])
    for actions in random_batches(one, 20):
        for mine, theirs in zip(one.step(actions)[:4], teams.step(actions)[:4], strict=True):
            equal(mine, theirs)
    equal(one.episode_seeds, teams.episode_seeds)


def test_the_group_that_was_sent_first_is_ready_first(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 6, num_workers=1, num_groups=3)
    envs.reset(seed=0)
    for group in (2, 0, 1):
        envs.send(group, np.array([0, 1]))
    order = []
    for _ in range(3):
        order.append(envs.wait())
        assert envs.wait() == order[-1]  # Until it is received.
        envs.receive(order[-1])
    assert order == [2, 0, 1]
    # The worker obeys in turn: who has the second answer has the first.
    for group in (1, 2):
        envs.send(group, np.array([0, 1]))
    envs.receive(2)
    envs.send(2, np.array([0, 1]))
    assert envs.wait() == 1
    assert envs.receive(1).obs["obs"][:, 0].tolist() == [5, 6]
    assert envs.wait() == 2
    envs.receive(2)


def test_a_slow_team_keeps_only_its_own_groups_waiting(open_envs):
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


def test_waiting_for_nothing_is_refused(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 4, num_workers=2, num_groups=2)
    envs.reset(seed=0)
    with pytest.raises(EnvError, match=r"no group was sent actions; call send\(\) first"):
        envs.wait()
    envs.send(1, np.array([0, 0]))
    assert envs.wait() == 1
    envs.receive(1)
    with pytest.raises(EnvError, match="no group was sent actions"):
        envs.wait()


def test_steps_tell_their_info_whatever_was_sent_before(open_envs):
    config = EnvConfig(env="defend_the_center", time_limit=40)
    envs = open_envs(config, 2, num_workers=1, num_groups=2)
    one = make(config)
    envs.reset(seed=[5, 6])
    infos = [one.reset(seed=5)[1]]
    for step in range(8):
        attack = np.ones(2, int)
        infos.append(one.step(1)[4])
        if step % 3 == 2:
            told = envs.step(attack)[4]
            assert {key: told[key][0] for key in envs.info_keys} == infos[-1]
            assert all(told[f"_{key}"].all() for key in envs.info_keys)
        else:
            for group in (0, 1):
                envs.send(group, attack[:1])
            for group in (0, 1):
                envs.receive(group)
    one.close()
    assert len({info["AMMO2"] for info in infos}) > 1


def test_send_and_receive_take_turns(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 4, num_workers=1, num_groups=2)
    envs.reset(seed=0)
    with pytest.raises(EnvError, match=r"group 0 was not sent actions; call send\(\) first"):
        envs.receive(0)
    envs.send(1, np.array([0, 1]))
    with pytest.raises(EnvError, match="group 1 has not been received"):
        envs.send(1, np.array([2, 2]))
    # What was refused has not touched what was sent.
    assert envs.receive(1).obs["obs"][:, 0].tolist() == [5, 6]
    with pytest.raises(EnvError, match="group 1 was not sent actions"):
        envs.receive(1)


def test_reset_takes_in_what_is_still_under_way(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 4, num_workers=2, num_groups=2)
    envs.reset(seed=0)
    envs.send(0, np.array([0, 0]))
    assert envs.reset(seed=20)[0][:, 1:].tolist() == [[0, 20 + i] for i in range(4)]
    assert envs.step(np.full(4, 1))[1].tolist() == [1, 1, 1, 1]


FAULTS = {
    "Raising": r"ZeroDivisionError: the toy broke \(toy.py:\d+\)",
    "Blind": "its observation is not finite",
    "Generous": "its reward is inf",
    "Dying": "a worker process died: exit status 7",
    "Hanging": "a worker process died: a game did not come back for 1 s",
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_episode_that_broke_is_cut_off_and_begun_again(open_envs, name):
    envs = open_envs(f"{TOY}:{name}-v0", 1, hang_after_s=1.0)
    envs.reset(seed=20)
    for _ in range(2):
        envs.step(np.array([1]))
    obs, rewards, terminated, truncated, infos = envs.step(np.array([1]))
    # The last observation is the last one that there was; the episode begins again.
    assert obs.tolist() == [[0, 0, 20]]
    assert infos["final_obs"][0].tolist() == [1, 2, 20]
    assert (rewards.tolist(), terminated.tolist(), truncated.tolist()) == ([0], [False], [True])
    assert np.isnan(infos["final_info"]["episode"]["r"]).tolist() == [True]
    assert envs.episode_seeds.tolist() == [20]
    assert envs.num_restarts == 1
    assert re.fullmatch(FAULTS[name], envs.last_restart)
    assert envs.step(np.array([0]))[1].tolist() == [1]


def test_environments_that_break_again_and_again_are_given_up(open_envs):
    envs = open_envs(f"{TOY}:Raising-v0", 2, max_restarts=5)
    envs.reset(seed=0)
    for _ in range(8):
        envs.step(np.zeros(2, int))
    with pytest.raises(EnvError, match="6 times within a minute; the last time because Zero"):
        envs.step(np.zeros(2, int))
    assert envs.num_restarts == 6


def test_an_episode_that_never_comes_to_its_end_is_given_up(open_envs):
    envs = open_envs(f"{TOY}:Raising-v0", 1)
    envs.reset(seed=7)
    for _ in range(3 * 20 - 1):
        envs.step(np.zeros(1, int))
    with pytest.raises(EnvError, match="the episode with seed 7 broke 20 times: ZeroDivisionError"):
        envs.step(np.zeros(1, int))


def test_an_environment_that_cannot_even_begin_is_given_up(open_envs, monkeypatch):
    # As a package that is missing where workers run.
    envs = open_envs(f"{TOY}:Shifted-v0", 2, num_workers=1)
    monkeypatch.setattr("envs.vector._START_WORKER", "raise SystemExit(5)")
    envs._workers[0].process.kill()
    with pytest.raises(EnvError, match="a worker process died 3 times in a row: exit status 5"):
        envs.reset(seed=0)


def test_an_action_outside_the_space_is_raised_here(open_envs):
    envs = open_envs("basic", 2, num_workers=1)
    envs.reset(seed=0)
    with pytest.raises(EnvError, match=r"^action 6 is not in Discrete\(6\)$"):
        envs.step(np.array([0, 6]))


def engines_of(worker):
    lines = processes.command_lines(os.environ[processes.MARKER])
    return [
        pid
        for pid, line in lines.items()
        if processes.is_engine(line) and parent(pid) == worker.process.pid
    ]


def parent(pid):
    return int((processes.PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_other_games_do_not_notice_an_engine_that_dies_or_hangs(open_envs, one_by_one, how):
    envs = open_envs(DOOM, 4, num_workers=2, hang_after_s=1.0)
    envs.reset(seed=20)
    one_by_one.reset(seed=20)
    batches = random_batches(envs, 8)
    for step, actions in enumerate(batches):
        if step == 4:
            victim = engines_of(envs._workers[1])[0]
            os.kill(victim, how)
        obs, rewards, _, truncated, _ = envs.step(actions)
        expected = one_by_one.step(actions)
        lost = int(np.flatnonzero(truncated)[0]) if step == 4 else None
        if step == 4:
            assert truncated.sum() == 1
            assert lost in (1, 3)
            broken = lost
        for lane in set(range(4)) - ({broken} if step >= 4 else set()):
            equal(unbatch(obs, lane), expected[lane][0])
            assert rewards[lane] == expected[lane][1]
    assert not processes.is_running(victim)
    assert envs.num_restarts == 1
    assert envs.last_restart.startswith("the Doom engine died: ")


@pytest.mark.parametrize(
    ("when", "how"),
    [("idle", "step")]
    + [(when, how) for when in ("at work", "with more to do") for how in ("receive", "wait")],
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
    if when == "at work":  # The other group has not been sent anything since.
        envs.send(1, np.array([0, 0]))
        assert envs.receive(1).truncated.tolist() == [True, False]
    assert envs.step(np.full(4, 0))[1].tolist() == [1, 2, 1, 2]
    assert envs.episode_seeds.tolist() == [20, 21, 22, 23]


@pytest.mark.parametrize("num_groups", [1, 4])  # in one team, and in two
def test_attributes_and_methods_are_reached_in_every_process(open_envs, num_groups):
    envs = open_envs(f"{TOY}:Shifted-v0", 8, num_workers=2, num_groups=num_groups)
    envs.reset(seed=20)
    assert envs.get_attr("seed") == tuple(range(20, 28))
    envs.set_attr("count", [0, 1, 2, 3, 4, 0, 1, 2])
    assert envs.step(np.zeros(8, int))[1].tolist() == [1, 2, 3, 4, 5, 1, 2, 3]
    envs.set_attr("count", 3)
    assert envs.call("has_wrapper_attr", "count") == (True,) * 8
    assert envs.ask([6, 1], "count") == [3, 3]
    with pytest.raises(EnvError, match="no attribute 'nothing_of_the_kind'"):
        envs.get_attr("nothing_of_the_kind")
    envs._workers[0].process.kill()
    assert envs.get_attr("fault") == ("",) * 8  # It was begun anew to answer.


def test_an_end_that_a_worker_did_not_live_to_tell_of_is_played_again(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 2, num_workers=1, num_groups=2)
    envs.reset(seed=20)
    for _ in range(5):
        envs.step(np.full(2, 0))
    process = envs._workers[0].process
    envs.send(0, np.array([0]))
    # It has begun the next episode, but what it said of it is thrown away.
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


def test_episodes_are_restored_by_their_actions_and_skipped(open_envs):
    envs = open_envs(DOOM, 4, num_workers=2, num_groups=2)
    envs.reset(seed=20)
    batches = random_batches(envs, 12)
    for actions in batches[:3]:
        envs.step(actions)
    taken = [[] for _ in range(4)]
    seeds = envs.episode_seeds
    for actions in batches[3:6]:
        before = envs.step(actions)[0]
    after = [envs.step(actions)[0] for actions in batches[6:]]
    taken = [np.array([batch[lane] for batch in batches[:6]]) for lane in range(4)]
    envs.restore(seeds.tolist(), taken)
    equal(envs._batch(envs._arrays.obs), before)
    equal([envs.step(actions)[0] for actions in batches[6:]], after)
    envs.restore(seeds.tolist(), taken)
    envs.skip([1])
    assert envs.episode_seeds.tolist() == [20, 25, 22, 23]
    equal(unbatch(envs.current_obs(0), 0), unbatch(before, 0))
    other = make(DOOM)
    equal(unbatch(envs.current_obs(0), 1), other.reset(seed=25)[0])
    other.close()


def test_an_episode_that_ends_while_it_is_restored_is_begun_again(open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 2, num_workers=1)
    envs.restore([20, 21], [np.zeros(9, int), np.zeros(3, int)])
    assert envs.current_obs(0)["obs"].tolist() == [[0, 0, 20], [5, 3, 21]]


def test_a_killed_workers_engines_die_with_it(open_envs):
    before = set(processes.command_lines(os.environ[processes.MARKER]))
    envs = open_envs("basic", 4, num_workers=2)
    envs.reset(seed=0)
    running = processes.command_lines(os.environ[processes.MARKER])
    engines = {p: c for p, c in running.items() if processes.is_engine(c) and p not in before}
    assert len(engines) == 4
    for worker in envs._workers:
        worker.process.send_signal(signal.SIGKILL)
    died = processes.wait_until(lambda: not any(map(processes.is_running, engines)), 2.0)
    processes.remove_traces(engines.values())
    assert died


def test_closing_ends_every_worker_and_may_be_done_twice(open_envs, monkeypatch):
    monkeypatch.setattr("envs.vector._CLOSE_WITHIN_S", 3.0)
    envs = open_envs("basic", 4, num_workers=2)
    envs.reset(seed=0)
    envs.send(0, np.zeros(4, int))
    workers = [worker.process for worker in envs._workers]
    envs.close()
    # They ended of themselves: none was killed for being late.
    assert [worker.poll() for worker in workers] == [0, 0]
    envs.close()


def test_closing_kills_a_worker_that_hangs(open_envs, monkeypatch):
    monkeypatch.setattr("envs.vector._CLOSE_WITHIN_S", 0.3)
    envs = open_envs(f"{TOY}:Shifted-v0", 2, num_workers=2)
    envs.reset(seed=0)
    hanging = envs._workers[0].process
    hanging.send_signal(signal.SIGSTOP)
    envs.close()
    assert hanging.poll() == -signal.SIGKILL
    assert envs._workers[1].process.poll() == 0


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


PLAIN = """
import numpy as np
from envs import EnvConfig, SharedVectorEnv
envs = SharedVectorEnv(EnvConfig(), 2, num_workers=2)
envs.reset(seed=0)
print(envs.step(np.zeros(2, int))[1].tolist())
{end}
"""


@pytest.mark.parametrize("end", ["envs.close()", "", "del envs", "raise SystemExit"])
def test_a_script_needs_no_main_guard_nor_even_close(tmp_path, end):
    script = tmp_path / "script.py"
    script.write_text(PLAIN.format(end=end))
    said = processes.run_script(f"import runpy; runpy.run_path({str(script)!r})", tmp_path)
    assert said == "[-4.0, -4.0]\n"
    assert list(tmp_path.iterdir()) == [script]


def test_a_script_is_run_as_a_file(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PLAIN.format(end="envs.close()"))
    code = f"import subprocess, sys; subprocess.run([sys.executable, {str(script)!r}], check=True)"
    assert processes.run_script(code, tmp_path) == "[-4.0, -4.0]\n"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_and_engines_die_with_the_main_process(tmp_path, how):
    script = PLAIN.format(end="import sys, time\nsys.stdout.flush()\ntime.sleep(60)")
    mark = f"{tmp_path}"
    owner = processes.start_script(script, mark, tmp_path)
    try:
        assert owner.stdout.readline() == "[-4.0, -4.0]\n"
        running = processes.command_lines(mark)
        running.pop(owner.pid)
        kinds = [(processes.is_engine(c), processes.is_worker(c)) for c in running.values()]
        assert sorted(kinds) == [(False, True)] * 2 + [(True, False)] * 2
    finally:
        owner.send_signal(how)
        owner.communicate()
    gone = processes.wait_until(lambda: not any(map(processes.is_running, running)), 2.0)
    left = processes.shared_memory(running.values())
    assert gone
    # Workers are not killed: they notice, and clear up.
    assert left == []
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_does_not_answer_keeps_no_worker_from_clearing_up(tmp_path):
    script = PLAIN.format(end="import sys, time\nsys.stdout.flush()\ntime.sleep(60)")
    mark = f"{tmp_path}"
    owner = processes.start_script(script, mark, tmp_path)
    try:
        assert owner.stdout.readline() == "[-4.0, -4.0]\n"
        running = processes.command_lines(mark)
        running.pop(owner.pid)
        for pid, line in running.items():
            if processes.is_engine(line):
                os.kill(pid, signal.SIGSTOP)
    finally:
        owner.kill()
        owner.communicate()
    assert processes.wait_until(lambda: not any(map(processes.is_running, running)), 10.0)
    assert processes.shared_memory(running.values()) == []
    assert list(tmp_path.iterdir()) == []
