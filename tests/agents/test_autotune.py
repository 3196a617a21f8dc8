"""Tests of `agents.autotune`."""

from __future__ import annotations

import os
from dataclasses import fields, replace

import pytest
import torch

from agents import AGENTS, observation_specs
from agents import autotune as module
from agents.autotune import Setting, Trial, autotune
from tests.agents.synthetic import make_policy
from tests.agents.toy import LocalEnvs

FIRST = Setting(
    num_envs=4,
    num_workers=2,
    num_groups=1,
    rollout_length=64,
    num_threads=1,
    precision="float32",
)


class RecordedEnvs(LocalEnvs):
    """Environments that know whether they were closed."""

    def __init__(self, setting):
        super().__init__("tests.agents.toy:Counter-v0", setting.num_envs, setting.num_groups)
        self.worlds, self.is_closed = setting.worlds, False

    def close(self):
        self.is_closed = True


class Workshop:
    """Opens environments and makes agents as `autotune` asks for, and remembers them."""

    def __init__(self, memory="none"):
        self.opened, self.made, self.threads, self.memory = [], [], [], memory

    def open_envs(self, setting):
        # No two at a time: they would fight for the cores.
        assert all(envs.is_closed for envs in self.opened)
        self.opened.append(RecordedEnvs(setting))
        return self.opened[-1]

    def make_agent(self, envs, setting):
        assert envs is self.opened[-1]
        assert not envs.is_closed
        assert envs.worlds == setting.worlds
        self.made.append(setting)
        kind, learner = AGENTS["a2c"]
        specs = observation_specs(envs.single_observation_space, {})
        policy = make_policy(specs=specs, memory=self.memory)
        policy.register_forward_hook(lambda *_: self.threads.append(torch.get_num_threads()))
        config = kind(rollout_length=setting.rollout_length)
        return learner(policy, config, num_envs=setting.num_envs, total_updates=1)


@pytest.fixture(autouse=True)
def _one_update_a_trial_on_two_cores(monkeypatch):
    monkeypatch.setattr(module, "_MEASURE_S", 0.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_settings_are_tried_that_learn_the_same(memory):
    shop = Workshop(memory)
    threads = torch.get_num_threads()
    trials = autotune(FIRST, shop.open_envs, shop.make_agent)
    settings = [trial.setting for trial in trials]
    assert shop.made[0] == FIRST
    assert sorted(map(str, settings)) == sorted(map(str, shop.made))
    assert len(set(settings)) == len(settings)  # Nothing is tried twice.
    assert {(s.num_envs, s.rollout_length) for s in settings} == {(4, 64)}
    for field in ("precision", "num_threads", "num_groups"):
        assert len({getattr(s, field) for s in settings}) > 1, field
    assert all(envs.is_closed for envs in shop.opened)
    # Environments are opened only where others are needed.
    assert len(shop.opened) < len(trials)
    assert set(shop.threads) == {s.num_threads for s in settings}
    assert torch.get_num_threads() == threads


def test_the_best_comes_first_and_the_others_by_speed():
    shop = Workshop("lstm")
    best, *others = autotune(FIRST, shop.open_envs, shop.make_agent)
    speeds = [trial.env_steps_per_s for trial in others]
    assert best.env_steps_per_s > 0
    # Unless it is about as fast and was tried earlier.
    assert best.env_steps_per_s * module._WORTHWHILE >= max(speeds)
    assert speeds == sorted(speeds, reverse=True)


def test_when_time_is_up_no_other_trial_begins():
    shop = Workshop()
    (trial,) = autotune(FIRST, shop.open_envs, shop.make_agent, seconds=0.0)
    assert trial.setting == FIRST
    assert shop.made == [FIRST]
    assert [envs.is_closed for envs in shop.opened] == [True]


class BrokenWorldError(Exception):
    pass


@pytest.mark.parametrize("which", ["open_envs", "make_agent"])
@pytest.mark.parametrize("good", [0, 1, 2])
def test_environments_are_closed_when_something_breaks(monkeypatch, which, good):
    shop, calls = Workshop(), []
    original = getattr(shop, which)

    def breaking(*arguments):
        calls.append(arguments)
        if len(calls) > good:
            raise BrokenWorldError
        return original(*arguments)

    monkeypatch.setattr(shop, which, breaking)
    threads = torch.get_num_threads()
    with pytest.raises(BrokenWorldError):
        autotune(FIRST, shop.open_envs, shop.make_agent)
    assert len(shop.opened) == (max(1, good) if which == "make_agent" else good) or good == 2
    assert all(envs.is_closed for envs in shop.opened)
    assert torch.get_num_threads() == threads


def test_of_settings_about_as_fast_the_one_tried_first_is_best():
    def best(*speeds):
        trials = [Trial(replace(FIRST, num_threads=i), speed) for i, speed in enumerate(speeds)]
        return module._best(trials).setting.num_threads

    assert best(100) == 0
    assert best(100, 102) == 0
    assert best(100, 104) == 1
    assert best(100, 104, 106) == 1
    assert best(100, 90, 110, 95, 112) == 2
    assert best(100, 102, 104) == 2


def propose(speed, *, first=FIRST):
    """Go through the proposals with made-up speeds; give the trials."""
    trials = []
    # Each proposal depends on the trials before it.
    trials.extend(Trial(setting, speed(setting)) for setting in module._proposals(first, trials))
    return trials


def changes(one, other):
    return {f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name)}


def test_each_proposal_changes_one_thing_of_the_best_so_far(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    def speed(setting):
        faster = setting.num_groups * setting.num_workers
        return faster * (2 if setting.precision == "bfloat16" else 1) / setting.num_threads

    trials = propose(speed)
    for i, trial in enumerate(trials[1:], 1):
        changed = changes(module._best(trials[:i]).setting, trial.setting)
        assert len(changed) == 1
        assert changed.isdisjoint({"num_envs", "rollout_length"})
        assert trial.setting not in [other.setting for other in trials[:i]]
    assert module._best(trials).setting == Setting(
        num_envs=4,
        num_workers=7,
        num_groups=4,
        rollout_length=64,
        num_threads=1,
        precision="bfloat16",
    )


@pytest.mark.parametrize(("num_envs", "length"), [(16, 64), (4, 128), (6, 50)])
@pytest.mark.parametrize("more", [1, -1])
def test_rollouts_are_never_cut_however_much_faster_that_were(num_envs, length, more):
    first = replace(FIRST, num_envs=num_envs, rollout_length=length)
    trials = propose(lambda setting: setting.num_envs**more, first=first)
    assert len(trials) > 3
    assert {(t.setting.num_envs, t.setting.rollout_length) for t in trials} == {(num_envs, length)}


@pytest.mark.parametrize("cores", [1, 2, 3, 16, None])
def test_proposals_fit_the_machine_and_the_groups_the_environments(monkeypatch, cores):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    first = replace(FIRST, num_envs=6, num_workers=1)
    settings = [trial.setting for trial in propose(lambda setting: 1.0, first=first)]
    for setting in settings:
        assert setting.num_envs % setting.num_groups == 0
        assert 1 <= setting.num_threads <= (cores or 1)
        assert 1 <= setting.num_workers <= max(1, (cores or 1) - 1)
    assert {setting.num_groups for setting in settings} == {1, 2}
