"""Tests of `training.autotune`."""

from __future__ import annotations

import functools
from dataclasses import fields, replace

import pytest
import torch

from agents import AGENTS, observation_specs
from storage.files import FileError
from tests.agents.synthetic import make_policy
from tests.agents.toy import LocalEnvs
from training import autotune as module
from training.autotune import (
    Measurement,
    Setting,
    autotune,
    fastest_setting,
    other_shapes,
    with_setting,
)
from training.config import default_config, with_values

FIRST = Setting(
    num_envs=4,
    num_workers=2,
    num_groups=1,
    rollout_length=16,
    num_threads=1,
    precision="float32",
)


class RecordedEnvs(LocalEnvs):
    """Environments that record whether they were closed."""

    def __init__(self, setting):
        super().__init__("tests.agents.toy:Counter-v0", setting.num_envs, setting.num_groups)
        self.env_counts, self.is_closed = setting.env_counts, False

    def close(self):
        self.is_closed = True


class Workshop:
    """Opens environments and makes agents for `autotune`, and records them."""

    def __init__(self, memory="none"):
        self.opened, self.made, self.threads, self.memory = [], [], [], memory

    def open_envs(self, setting):
        # Two at a time would compete for the cores.
        assert all(envs.is_closed for envs in self.opened)
        self.opened.append(RecordedEnvs(setting))
        return self.opened[-1]

    def make_agent(self, envs, setting):
        assert envs is self.opened[-1]
        assert not envs.is_closed
        assert envs.env_counts == setting.env_counts
        self.made.append(setting)
        kind, agent_class = AGENTS["a2c"]
        specs = observation_specs(envs.single_observation_space, {})
        policy = make_policy(specs=specs, memory=self.memory)
        policy.register_forward_hook(lambda *_: self.threads.append(torch.get_num_threads()))
        config = kind(rollout_length=setting.rollout_length)
        return agent_class(policy, config, num_envs=setting.num_envs, total_updates=1)


@pytest.fixture(autouse=True)
def _one_update_for_each_setting_on_two_cores(monkeypatch):
    monkeypatch.setattr(module, "_MEASURE_S", 0.0)
    monkeypatch.setattr(module, "usable_cores", lambda: [0, 1])


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_only_settings_that_do_not_change_the_results_are_measured(memory):
    shop = Workshop(memory)
    threads = torch.get_num_threads()
    measured = autotune(FIRST, shop.open_envs, shop.make_agent)
    settings = [measurement.setting for measurement in measured]
    assert shop.made[0] == FIRST
    assert sorted(map(str, settings)) == sorted(map(str, shop.made))
    assert len(set(settings)) == len(settings)  # No setting is measured twice.
    assert {(s.num_envs, s.rollout_length) for s in settings} == {(4, 16)}
    for field in ("precision", "num_threads", "num_groups"):
        assert len({getattr(s, field) for s in settings}) > 1, field
    assert all(envs.is_closed for envs in shop.opened)
    # New environments are opened only if a setting needs other ones.
    assert len(shop.opened) < len(measured)
    assert set(shop.threads) == {s.num_threads for s in settings}
    assert torch.get_num_threads() == threads


def test_the_best_setting_comes_first_and_the_others_by_speed():
    shop = Workshop("lstm")
    best, *others = autotune(FIRST, shop.open_envs, shop.make_agent)
    speeds = [measurement.env_steps_per_s for measurement in others]
    assert best.env_steps_per_s > 0
    # A later setting of similar speed is not preferred.
    assert best.env_steps_per_s * module._WORTHWHILE >= max(speeds)
    assert speeds == sorted(speeds, reverse=True)


def test_after_the_time_limit_no_measurement_is_started():
    shop = Workshop()
    (measurement,) = autotune(FIRST, shop.open_envs, shop.make_agent, seconds=0.0)
    assert measurement.setting == FIRST
    assert shop.made == [FIRST]
    assert [envs.is_closed for envs in shop.opened] == [True]


class BrokenEnvError(Exception):
    pass


@pytest.mark.parametrize("which", ["open_envs", "make_agent"])
@pytest.mark.parametrize("good", [0, 1, 2])
def test_environments_are_closed_after_an_error(monkeypatch, which, good):
    shop, calls = Workshop(), []
    original = getattr(shop, which)

    def breaking(*arguments):
        calls.append(arguments)
        if len(calls) > good:
            raise BrokenEnvError
        return original(*arguments)

    monkeypatch.setattr(shop, which, breaking)
    threads = torch.get_num_threads()
    with pytest.raises(BrokenEnvError):
        autotune(FIRST, shop.open_envs, shop.make_agent)
    assert len(shop.opened) == (max(1, good) if which == "make_agent" else good) or good == 2
    assert all(envs.is_closed for envs in shop.opened)
    assert torch.get_num_threads() == threads


def test_of_settings_of_similar_speed_the_earliest_is_best():
    def best(*speeds):
        measured = [
            Measurement(replace(FIRST, num_threads=i), speed) for i, speed in enumerate(speeds)
        ]
        return module._best(measured).setting.num_threads

    assert best(100) == 0
    assert best(100, 102) == 0
    assert best(100, 104) == 1
    assert best(100, 104, 106) == 1
    assert best(100, 90, 110, 95, 112) == 2
    assert best(100, 102, 104) == 2


def propose(speed, *, first=FIRST, shapes=()):
    """Return the measurements of all proposals, with the speeds that a function returns."""
    measured = []
    # Each proposal depends on the measurements before it.
    measured.extend(
        Measurement(setting, speed(setting))
        for setting in module._proposals(first, measured, shapes, (2, 4, 1))
    )
    return measured


def changes(one, other):
    return {f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name)}


def test_each_proposal_differs_in_one_value_from_the_best_so_far(monkeypatch):
    monkeypatch.setattr(module, "usable_cores", lambda: range(8))

    def speed(setting):
        faster = setting.num_groups * setting.num_workers
        return faster * (2 if setting.precision == "bfloat16" else 1) / setting.num_threads

    measured = propose(speed)
    for i, measurement in enumerate(measured[1:], 1):
        changed = changes(module._best(measured[:i]).setting, measurement.setting)
        assert len(changed) == 1
        assert changed.isdisjoint({"num_envs", "rollout_length"})
        assert measurement.setting not in [other.setting for other in measured[:i]]
    assert module._best(measured).setting == Setting(
        num_envs=4,
        num_workers=7,
        num_groups=4,
        rollout_length=16,
        num_threads=1,
        precision="bfloat16",
    )


@pytest.mark.parametrize(("num_envs", "length"), [(16, 64), (4, 128), (6, 50)])
@pytest.mark.parametrize("more", [1, -1])
def test_the_number_of_environments_and_the_rollout_length_never_change(num_envs, length, more):
    first = replace(FIRST, num_envs=num_envs, rollout_length=length)
    settings = [m.setting for m in propose(lambda s: s.num_envs**more, first=first)]
    assert len(settings) > 3
    assert {(s.num_envs, s.rollout_length) for s in settings} == {(num_envs, length)}


def test_the_shape_of_a_rollout_is_varied_only_for_memory_on_small_observations():
    def shapes(env, given=(), **choices):
        return other_shapes(default_config(env, **choices), given)

    small = {"CartPole-v1": [(64, 16)], "MiniGrid-MemoryS7-v0": [(128, 32), (256, 16)]}
    for env, others in small.items():
        assert shapes(env, memory="lstm") == shapes(env, memory="gru") == others
        assert (
            shapes(env, memory="none")
            == shapes(env, memory="lstm", given={"num_envs", "seed"})
            == []
        )
        assert shapes(env, memory="lstm", given={"rollout_length"}) == []
    for env in ("basic", "ALE/Pong-v5", "CarRacing-v3", "freedoom2:MAP01", "mine.wad:MAP02"):
        assert shapes(env, memory="lstm") == []
    settings = [m.setting for m in propose(lambda s: s.num_envs, shapes=[(8, 8)])]
    assert settings[:2] == [FIRST, replace(FIRST, num_envs=8, rollout_length=8)]
    assert {s.num_envs * s.rollout_length for s in settings} == {4 * 16}
    assert all(s.num_envs == 8 for s in settings[1:])


@pytest.mark.parametrize("cores", [1, 2, 3, 16])
def test_proposals_fit_the_machine_and_the_groups_the_environments(monkeypatch, cores):
    monkeypatch.setattr(module, "usable_cores", lambda: range(cores))
    first = replace(FIRST, num_envs=6, num_workers=1)
    settings = [m.setting for m in propose(lambda setting: 1.0, first=first)]
    for setting in settings:
        assert setting.num_envs % setting.num_groups == 0
        assert 1 <= setting.num_threads <= cores
        assert 1 <= setting.num_workers <= max(1, cores - 1)
    assert {setting.num_groups for setting in settings} == {1, 2}


FIELDS = {
    "num_envs": 4,
    "num_workers": 2,
    "num_groups": 2,
    "rollout_length": 32,
    "num_threads": 1,
    "precision": "float32",
}


def test_a_setting_replaces_fields_wherever_they_are():
    config = with_setting(default_config("CartPole-v1"), FIELDS)
    assert config.agent.rollout_length == 32
    assert (config.num_envs, config.num_groups, config.precision) == (4, 2, "float32")


def test_a_run_that_was_tuned_before_keeps_its_setting():
    tuned = with_setting(default_config("CartPole-v1"), FIELDS)
    assert with_setting(default_config("CartPole-v1"), tuned.as_dict()) == tuned


@pytest.mark.parametrize(
    "values",
    [
        {"num_envs": "x"},
        {"num_envs": -1},
        {"num_envs": 1.5},
        {"precision": 7},
        {"precision": "float8"},
        {"agent": 7},
        {"agent": {"rollout_length": []}},
    ],
    ids=str,
)
def test_a_setting_that_no_run_can_have_is_refused(values):
    with pytest.raises(FileError, match="the configuration of the run is damaged"):
        with_setting(default_config("CartPole-v1"), values)


@pytest.mark.parametrize("objective", ["variables", "depth", "labels", "next_latent", "rnd"])
def test_trainings_with_objectives_are_measured(monkeypatch, objective):
    monkeypatch.setattr(module, "autotune", functools.partial(autotune, seconds=0.0))
    config = default_config("basic", objectives=(objective,))
    changes = {"num_envs": 2, "num_groups": 1, "agent.rollout_length": 8, "num_threads": 2}
    best = fastest_setting(with_values(config, changes))
    assert best["num_envs"] == 2


def test_an_agent_is_made_for_the_threads_that_are_measured():
    made = []

    def make_agent(envs, setting):
        made.append((setting.num_threads, torch.get_num_threads()))
        return shop.make_agent(envs, setting)

    shop = Workshop()
    autotune(FIRST, shop.open_envs, make_agent)
    assert len({threads for threads, _ in made}) == 2
    assert all(ours == threads for ours, threads in made)
