"""Tests of `envs.vector.vector`: compared with one environment after another, and with faults."""

import contextlib
import os
import re
import signal

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs import EnvConfig, EnvError, SharedVectorEnv, make
from tests.envs import processes
from tests.envs.vector.opened import TOY, opened, random_batches

DOOM = EnvConfig(env="defend_the_center", variables=True, enemy_in_view=True, time_limit=60)

open_envs = pytest.fixture(opened)


@pytest.fixture(scope="module")
def doom_envs():
    """Four environments in two groups and two workers; tests reset them first."""
    envs = SharedVectorEnv(DOOM, 4, num_workers=2, num_groups=2)
    envs.reset(seed=0)
    yield envs
    envs.close()


@pytest.fixture(scope="module")
def toy_envs():
    """Four toys in two groups and two workers; tests reset them first."""
    envs = SharedVectorEnv(EnvConfig(env=f"{TOY}:Shifted-v0"), 4, num_workers=2, num_groups=2)
    envs.reset(seed=0)
    yield envs
    envs.close()


class OneByOne:
    """What `SharedVectorEnv` does, written as plainly as possible."""

    def __init__(self, config, num_envs):
        self.envs = [make(config) for _ in range(num_envs)]

    def reset(self, seed):
        self.seeds = [seed + i for i in range(len(self.envs))]
        return [env.reset(seed=s) for env, s in zip(self.envs, self.seeds, strict=True)]

    def step(self, actions):
        """Return (obs, reward, terminated, truncated, info, final obs, final info) of each."""
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


@pytest.fixture(scope="module")
def one_by_one():
    reference = OneByOne(DOOM, 4)
    reference.reset(0)
    yield reference
    reference.close()


def equal(a, b):
    np.testing.assert_equal(a, b)


def unbatch(obs, lane):
    return {name: part[lane] for name, part in obs.items()} if isinstance(obs, dict) else obs[lane]


def test_equals_stepping_one_environment_after_another(doom_envs, one_by_one):
    envs = doom_envs
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
        running = np.ones(3, bool)  # After an episode's end they draw other seeds.
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


class TestSeeds:
    def test_seeds_of_all_episodes_are_known(self, toy_envs):
        obs, _ = toy_envs.reset(seed=10)
        assert obs[:, 2].tolist() == [10, 11, 12, 13]
        seen = [set() for _ in range(4)]
        for _ in range(6 * 5):
            obs = toy_envs.step(np.full(4, 0))[0]
            for lane in range(4):
                seen[lane].add(int(obs[lane, 2]))
        assert seen == [{10 + lane + 4 * k for k in range(6)} for lane in range(4)]
        assert toy_envs.episode_seeds.tolist() == [30, 31, 32, 33]

    def test_one_seed_for_each_environment_may_be_given(self, toy_envs):
        assert toy_envs.reset(seed=[5, 1, 9, 3])[0][:, 2].tolist() == [5, 1, 9, 3]
        with pytest.raises(EnvError, match="2 seeds were given for 4 environments"):
            toy_envs.reset(seed=[1, 2])

    def test_without_a_seed_the_generator_draws_one(self, toy_envs):
        toy_envs.reset(seed=1)
        first, second = (toy_envs.reset()[0][:, 2].tolist() for _ in range(2))
        assert first != second
        toy_envs.reset(seed=1)
        assert [toy_envs.reset()[0][:, 2].tolist() for _ in range(2)] == [first, second]


@pytest.mark.parametrize("kind", ["Bounded", "Groups", "Switches"])
def test_every_kind_of_action_arrives(open_envs, kind):
    envs = open_envs(f"{TOY}:{kind}-v0", 2, num_workers=1, num_groups=2)
    single = make(EnvConfig(env=f"{TOY}:{kind}-v0"))
    envs.reset(seed=0)
    single.reset(seed=0)
    for actions in random_batches(envs, 4):
        equal(envs.step(actions)[0][0], single.step(actions[0])[0])


def test_groups_are_sent_and_received_separately(doom_envs):
    envs = doom_envs
    assert [group.tolist() for group in envs.groups] == [[0, 1], [2, 3]]
    batches = random_batches(envs, 30)
    envs.reset(seed=3)
    steps = [envs.step(actions) for actions in batches]
    seeds = envs.episode_seeds
    first = envs.reset(seed=3)[0]
    for group in (0, 1):
        equal(envs.current_obs(group)["screen"], first["screen"][2 * group :][:2])
    envs.send(0, batches[0][:2])
    ends = 0
    for t, (obs, rewards, terminated, truncated, infos) in enumerate(steps):
        envs.send(1, batches[t][2:])
        for group, lanes in enumerate((slice(0, 2), slice(2, 4))):
            got = envs.receive(group)
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
                    episode[key][lanes][lane] for key in envs.episode_keys
                ]
            if group == 0 and t + 1 < len(batches):
                envs.send(0, batches[t + 1][:2])
    assert ends >= 4
    equal(envs.episode_seeds, seeds)


def infos_of_all(envs):
    """Return `current_info` of all groups, by key."""
    rows = np.concatenate([envs.current_info(group) for group in range(envs.num_groups)])
    return dict(zip(envs.info_keys, rows.T.copy(), strict=True))


class TestCurrentInfo:
    """`current_info` agrees with the infos that `reset` and `step` return."""

    def expect(self, envs, infos):
        equal(infos_of_all(envs), {key: infos[key] for key in envs.info_keys})

    def test_is_up_to_date_after_reset_and_step_and_send_with_info(self, doom_envs):
        envs, batches = doom_envs, random_batches(doom_envs, 20)
        self.expect(envs, envs.reset(seed=4)[1])
        expected = []
        for actions in batches:
            expected.append(envs.step(actions)[4])
            self.expect(envs, expected[-1])
        assert any("final_info" in infos for infos in expected)
        assert len({infos["AMMO2"].tobytes() for infos in expected}) > 1
        assert len({infos["ENEMY_IN_VIEW"].tobytes() for infos in expected}) > 1
        envs.reset(seed=4)
        for actions, infos in zip(batches, expected, strict=True):
            for group, lanes in enumerate(envs.groups):
                envs.send(group, actions[lanes], with_info=True)
            for group in range(2):
                envs.receive(group)
                assert envs.current_info(group).shape == (2, len(envs.info_keys))
            self.expect(envs, infos)

    def test_stays_as_it_was_without_the_option(self, doom_envs):
        envs, attack = doom_envs, np.ones(2, int)
        first = envs.reset(seed=4)[1]
        for _ in range(4):
            for group in (0, 1):
                envs.send(group, attack)
            for group in (0, 1):
                envs.receive(group)
        self.expect(envs, first)
        now = envs.step(np.ones(4, int))[4]
        assert (now["AMMO2"] < first["AMMO2"]).all()
        self.expect(envs, now)

    def test_is_up_to_date_after_restore_and_skip(self, doom_envs):
        envs, batches = doom_envs, random_batches(doom_envs, 6)
        envs.reset(seed=4)
        seeds = envs.episode_seeds
        infos = [envs.step(actions)[4] for actions in batches][-1]
        envs.reset(seed=50)
        envs.restore(seeds.tolist(), [np.array([b[lane] for b in batches]) for lane in range(4)])
        self.expect(envs, infos)
        envs.skip([1, 2])
        skipped = infos_of_all(envs)
        assert envs.episode_seeds.tolist() == [4, 9, 10, 7]
        expected = envs.reset(seed=[4, 9, 10, 7])[1]
        for key in envs.info_keys:
            equal(skipped[key][[1, 2]], expected[key][[1, 2]])
            equal(skipped[key][[0, 3]], infos[key][[0, 3]])


def test_returned_arrays_are_not_overwritten(doom_envs):
    first = doom_envs.reset(seed=0)[0]["screen"]
    copy = first.copy()
    _, rewards, terminated, *_ = doom_envs.step(np.array([1, 3, 1, 3]))
    kept = rewards.copy()
    doom_envs.step(np.array([3, 1, 3, 1]))
    equal(first, copy)
    equal(rewards, kept)
    assert not terminated.any()


@pytest.mark.parametrize(
    ("numbers", "message"),
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
def test_refuses_numbers_that_do_not_fit(numbers, message):
    with pytest.raises(EnvError, match=message):
        SharedVectorEnv(EnvConfig(), **numbers)


def test_refuses_an_unknown_environment_before_starting_anything():
    with pytest.raises(EnvError, match="did you mean basic"):
        SharedVectorEnv(EnvConfig(env="basci"), 2)


class TestSendAndReceive:
    def test_waiting_without_actions_in_flight_is_refused(self, toy_envs):
        toy_envs.reset(seed=0)
        with pytest.raises(EnvError, match=r"no group was sent actions; call send\(\) first"):
            toy_envs.wait()
        toy_envs.send(1, np.array([0, 0]))
        assert toy_envs.wait() == 1
        toy_envs.receive(1)
        with pytest.raises(EnvError, match="no group was sent actions"):
            toy_envs.wait()

    def test_take_turns(self, toy_envs):
        toy_envs.reset(seed=0)
        with pytest.raises(EnvError, match=r"group 0 was not sent actions; call send\(\) first"):
            toy_envs.receive(0)
        toy_envs.send(1, np.array([0, 1]))
        with pytest.raises(EnvError, match=r"group 1 has not been received .*; call receive\(\)"):
            toy_envs.send(1, np.array([2, 2]))
        # The refused actions have not replaced those that were sent.
        assert toy_envs.receive(1).obs["obs"][:, 0].tolist() == [5, 6]
        with pytest.raises(EnvError, match="group 1 was not sent actions"):
            toy_envs.receive(1)

    def test_actions_of_another_shape_are_refused(self, toy_envs):
        toy_envs.reset(seed=0)
        with pytest.raises(EnvError, match=r"actions have shape \(4,\), not \(2,\)"):
            toy_envs.send(0, np.zeros(4, int))

    def test_reset_waits_for_groups_in_flight(self, toy_envs):
        toy_envs.reset(seed=0)
        toy_envs.send(0, np.array([0, 0]))
        assert toy_envs.reset(seed=20)[0][:, 1:].tolist() == [[0, 20 + i] for i in range(4)]
        assert toy_envs.step(np.full(4, 1))[1].tolist() == [1, 1, 1, 1]


FAULTS = {
    "Raising": r"ZeroDivisionError: the toy broke \(toy.py:\d+\)",
    "Blind": "its observation contains NaN or infinity",
    "Generous": "its reward is inf",
    "Dying": "a worker process died: exit status 7",
    "Hanging": "a worker process died: an environment did not respond for 1 s",
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_episode_that_fails_is_truncated_and_restarted(open_envs, name):
    envs = open_envs(f"{TOY}:{name}-v0", 1, hang_after_s=1.0)
    envs.reset(seed=20)
    for _ in range(2):
        envs.step(np.array([1]))
    obs, rewards, terminated, truncated, infos = envs.step(np.array([1]))
    # The episode ends with the last observation before the fault, and is restarted.
    assert obs.tolist() == [[0, 0, 20]]
    assert infos["final_obs"][0].tolist() == [1, 2, 20]
    assert (rewards.tolist(), terminated.tolist(), truncated.tolist()) == ([0], [False], [True])
    assert np.isnan(infos["final_info"]["episode"]["r"]).tolist() == [True]
    assert envs.episode_seeds.tolist() == [20]
    assert envs.num_restarts == 1
    assert re.fullmatch(FAULTS[name], envs.last_restart)
    assert envs.step(np.array([0]))[1].tolist() == [1]


BREACHES = {
    "ShapeBreach": r"observes shape \(1,\), its space says \(3,\)",
    "DtypeBreach": "observes <U32, its space says float64",
    "PayingBreach": r"returns the reward array\(\[0., 0.\]\), which is not a number",
}


@pytest.mark.parametrize("name", BREACHES)
def test_what_breaks_its_own_contract_is_refused_at_once(open_envs, name):
    envs = open_envs(EnvConfig(env=f"{TOY}:{name}-v0"), 1, num_workers=1)

    def play():
        envs.reset(seed=0)
        envs.step(np.zeros(1, np.int64))

    with pytest.raises(EnvError, match=f"^{TOY}:{name}-v0 {BREACHES[name]}$"):
        play()
    assert envs.num_restarts == 0


def test_doom_in_a_users_wrappers_is_stepped_in_workers_with_all_its_infos(open_envs):
    options = {"env": "basic", "time_limit": 20, "height": 40, "width": 40}
    plain = open_envs(EnvConfig(**options), 2, num_workers=1)
    given = open_envs(EnvConfig(**options, wrappers=("tests.envs.toy:Tripled",)), 2, num_workers=1)
    assert (given.info_keys, given.episode_keys) == (plain.info_keys, plain.episode_keys)
    results = []
    for envs in (plain, given):
        envs.reset(seed=0)
        results.append([envs.step(np.zeros(2, np.int64)) for _ in range(5)])
    for (obs, paid, *_, infos), (same, more, *_, again) in zip(*results, strict=True):
        np.testing.assert_array_equal(obs, same)
        np.testing.assert_array_equal(3 * paid, more)
        np.testing.assert_array_equal(infos["HEALTH"], again["HEALTH"])
    for name, column in infos["final_info"]["episode"].items():
        np.testing.assert_array_equal(column, again["final_info"]["episode"][name])


def test_too_many_restarts_within_a_minute_are_an_error(open_envs):
    envs = open_envs(f"{TOY}:Raising-v0", 2, num_workers=1, max_restarts=5)
    envs.reset(seed=0)
    for _ in range(8):
        envs.step(np.zeros(2, int))
    message = (
        r"environments were restarted 6 times within a minute; at most 5 times \(max_restarts\) "
        "are allowed; the last time because Zero"
    )
    with pytest.raises(EnvError, match=message):
        envs.step(np.zeros(2, int))
    assert envs.num_restarts == 6


def test_an_episode_that_always_fails_is_an_error(open_envs):
    envs = open_envs(f"{TOY}:Raising-v0", 1)
    envs.reset(seed=7)
    for _ in range(3 * 20 - 1):
        envs.step(np.zeros(1, int))
    with pytest.raises(EnvError, match="episode with seed 7 failed 20 times: ZeroDivisionError"):
        envs.step(np.zeros(1, int))


def test_an_action_outside_the_space_is_an_error_in_the_main_process(open_envs):
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
def test_an_engine_that_dies_or_hangs_does_not_affect_others(open_envs, one_by_one, how):
    envs = open_envs(DOOM, 2, num_workers=1, hang_after_s=4.0)
    envs.reset(seed=20)
    one_by_one.reset(seed=20)
    for step, actions in enumerate(random_batches(envs, 8)):
        if step == 4:
            victim = engines_of(envs._workers[0])[0]
            os.kill(victim, how)
        obs, rewards, _, truncated, _ = envs.step(actions)
        expected = one_by_one.step([*actions, 0, 0])
        if step == 4:
            assert truncated.sum() == 1
            failed = {int(np.flatnonzero(truncated)[0])}
        for lane in {0, 1} - (failed if step >= 4 else set()):
            equal(unbatch(obs, lane), expected[lane][0])
            assert rewards[lane] == expected[lane][1]
    assert not processes.is_running(victim)
    assert envs.num_restarts == 1
    assert envs.last_restart.startswith("the Doom engine died: ")


@pytest.mark.parametrize("dies", ["worker", "engine"])
def test_an_environment_that_replaces_another_has_the_same_attributes(open_envs, dies):
    envs = open_envs(DOOM, 2, num_workers=1)
    envs.reset(seed=0)
    envs.set_attr("time_limit", [np.int64(48), 52])
    worker = envs._workers[0]
    if dies == "worker":
        worker.process.kill()
    else:
        os.kill(engines_of(worker)[0], signal.SIGKILL)
    for _ in range(2):
        envs.step(np.zeros(2, int))
    assert envs.num_restarts >= 1
    assert envs.get_attr("time_limit") == (48, 52)


@pytest.mark.parametrize("num_groups", [1, 4])  # in one team, and in two
def test_attributes_and_methods_are_available_in_every_process(open_envs, num_groups):
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
    assert envs.get_attr("fault") == ("",) * 8  # The restarted worker answers.


def test_episodes_can_be_restored_and_skipped(doom_envs):
    envs = doom_envs
    envs.reset(seed=20)
    batches = random_batches(envs, 12)
    seeds = envs.episode_seeds
    before = [envs.step(actions)[0] for actions in batches[:6]][-1]
    after = [envs.step(actions)[0] for actions in batches[6:]]
    taken = [np.array([batch[lane] for batch in batches[:6]]) for lane in range(4)]
    envs.restore(seeds.tolist(), taken)
    equal(envs._batch(envs._arrays.obs), before)
    equal([envs.step(actions)[0] for actions in batches[6:]], after)
    envs.restore(seeds.tolist(), taken)
    envs.skip([1])
    assert envs.episode_seeds.tolist() == [20, 25, 22, 23]
    equal(unbatch(envs.current_obs(0), 0), unbatch(before, 0))
    skipped = unbatch(envs.current_obs(0), 1)["screen"].copy()
    equal(envs.reset(seed=[25, 1, 2, 3])[0]["screen"][0], skipped)


def test_an_episode_that_ends_while_it_is_restored_is_restarted(toy_envs):
    toy_envs.restore([20, 21, 22, 23], [np.zeros(n, int) for n in (9, 3, 0, 5)])
    obs = [toy_envs.current_obs(group)["obs"].tolist() for group in (0, 1)]
    assert obs == [[[0, 0, 20], [5, 3, 21]], [[0, 0, 22], [5, 5, 23]]]


SCRIPT = """
import numpy as np
from envs import EnvConfig, SharedVectorEnv
envs = SharedVectorEnv(EnvConfig(), 2, num_workers=2)
envs.reset(seed=0)
print(envs.step(np.zeros(2, int))[1].tolist())
{end}
"""
WAITING = SCRIPT.format(end="import sys, time\nsys.stdout.flush()\ntime.sleep(60)")


@pytest.mark.parametrize("end", ["envs.close()", "", "del envs"])
def test_a_script_needs_neither_a_main_guard_nor_close(tmp_path, end):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(end=end))
    output = processes.run_file(script, tmp_path)
    assert output == "[-4.0, -4.0]\n"
    assert list(tmp_path.iterdir()) == [script]


def test_an_environment_that_hangs_as_it_is_closed_is_left_alone(open_envs, capsys):
    envs = open_envs(f"{TOY}:Lingering-v0", 2, num_workers=1, hang_after_s=0.2)
    envs.reset(seed=0)
    assert "an environment was not closed within 0.2 s; it is left alone" in capsys.readouterr().err


def test_environments_that_fail_in_their_first_env_step_are_reported_at_once(open_envs):
    envs = open_envs(f"{TOY}:Broken-v0", 4, num_workers=1)
    envs.reset(seed=0)
    # The third of four environments that fail ends it.
    with pytest.raises(EnvError, match=r"Broken-v0 fails in its first env step: KeyError: 'HELTH'"):
        envs.step(np.zeros(4, int))


def test_one_environment_of_several_reports_targets():
    """All play the same as without targets, and the others do not draw the buffers."""
    targets = {"depth_targets": True, "kind_targets": True, "targets_every": 2}
    reported = []
    for options in ({}, targets):
        config = EnvConfig(env="take_cover", time_limit=16, **options)
        with contextlib.closing(SharedVectorEnv(config, 4, num_workers=2, num_groups=2)) as envs:
            actions = [np.full(4, action) for action in (0, 1, 2, 0, 1)]
            reported.append([envs.reset(seed=0), *map(envs.step, actions)])
            keys = envs.info_keys
    new = [key for key in keys if key.startswith("DEPTH_") or "_IN_VIEW_" in key]
    assert len(new) == 4 * 16 + 3 * 16
    for plain, step in zip(*reported, strict=True):
        np.testing.assert_array_equal(step[0], plain[0])
        np.testing.assert_equal(step[1:-1], plain[1:-1])
        drawn = np.array([step[-1][key] for key in new])
        assert (drawn[:, 1:3] == -1).all()
        assert (drawn[:, [0, 3]] >= 0).all()
