"""Tests of `agents.presets`."""

from __future__ import annotations

import dataclasses

import pytest

import train
from agents import AGENTS
from agents.commandline import with_fields
from agents.presets import _AGENTS, _WORLDS, preset
from envs import SCENARIOS, EnvConfig
from perception import EncoderConfig, PerceptionConfig

WORLDS = [
    *SCENARIOS,
    *("freedoom1:E1M1", "freedoom2:MAP01", "maps/mine.cfg", "mine.wad"),
    *("CartPole-v1", "LunarLander-v3", "CarRacing-v3", "ALE/Pong-v5", "MiniGrid-Empty-5x5-v0"),
    "tests.agents.toy:Recall-v0",
]
KINDS = [train.TrainConfig, EnvConfig, PerceptionConfig, EncoderConfig]
KINDS += [kind for kind, _ in AGENTS.values()]


def names(*kinds):
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}


def default_config(env, agent):
    return train.TrainConfig(env=train.World(env=env), learning=AGENTS[agent][0](), agent=agent)


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("env", WORLDS)
def test_every_key_is_a_field_of_some_configuration(env, agent):
    assert preset(env, agent).keys() <= names(*KINDS)


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("env", WORLDS)
def test_every_preset_makes_a_valid_configuration_that_holds_it(env, agent):
    fields = preset(env, agent)
    config = train.flat(dataclasses.asdict(with_fields(default_config(env, agent), fields)))
    assert config["env"] == env
    assert {name: config[name] for name in fields if name in config} == {
        name: value for name, value in fields.items() if name in config
    }
    # What an agent lacks is a field of another agent, not of the world.
    missing = fields.keys() - config.keys()
    assert missing <= names(*(kind for kind, _ in AGENTS.values()))


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agents_own_preset_has_only_fields_it_has(agent):
    for (_, name), fields in _AGENTS.items():
        if name == agent:
            assert fields.keys() <= names(*KINDS[:4], AGENTS[agent][0])


def test_worlds_with_presets_exist():
    assert set(_WORLDS) <= set(SCENARIOS)
    for env, agent in _AGENTS:
        assert env in SCENARIOS or env == "CartPole-v1"
        assert agent in AGENTS


@pytest.mark.parametrize("agent", AGENTS)
def test_names_of_all_fields_differ(agent):
    """Flags carry no prefix, and config.json is compared flat."""

    def leaves(config):
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if dataclasses.is_dataclass(value):
                yield from leaves(value)
            else:
                yield field.name

    found = list(leaves(train.Command(training=default_config("basic", agent))))
    assert len(found) == len(set(found))


def test_a_preset_is_not_shared_between_callers():
    preset("basic", "ppo")["learning_rate"] = 99.0
    assert preset("basic", "ppo")["learning_rate"] != 99.0


def test_families_are_recognised():
    assert preset("ALE/Pong-v5", "ppo")["frame_stack"] == 4
    assert preset("CartPole-v1", "a2c").get("height") is None
    assert preset("tests.agents.toy:Recall-v0", "ppo").get("height") is None
    for own in ("mine:space/Env-v0", "mine:env", "mine.deep:an-env-v12", "env-v3"):
        assert preset(own, "ppo") == preset("tests.agents.toy:Recall-v0", "ppo")
    for file in ("/a:b/mine-v1.cfg", "MINE.WAD"):
        assert preset(file, "ppo")["height"] == preset("basic", "ppo")["height"]
    assert preset("freedoom2:MAP01", "ppo")["height"] == preset("basic", "ppo")["height"]
    assert preset("basic", "ppo")["reward_scale"] == 0.01
