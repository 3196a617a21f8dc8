"""Tests of `training.presets`."""

from __future__ import annotations

import pytest
import torch

from agents import AGENTS, Policy, observation_specs
from agents.ppo import PPO
from envs import SCENARIOS, make
from envs.doom.maps import MAPS
from envs.doom.players.kinds import KINDS
from envs.registry import needs_trust
from perception import ENCODERS, MEMORIES
from training.config import default_config, dotted, list_of
from training.presets import _AGENTS, _DOOM_OBJECTIVES, _ENVS, preset

ENVS = [
    *SCENARIOS,
    "freedoom1:E1M1",
    "freedoom2:MAP01",
    "maps/mine.cfg",
    "mine.wad",
    "CartPole-v1",
    "LunarLander-v3",
    "CarRacing-v3",
    "ALE/Pong-v5",
    "MiniGrid-Empty-5x5-v0",
    "tests.agents.toy:Recall-v0",
]
CHOICES = {"encoder", "memory"}


def names(*args, **kwargs):
    return dotted(default_config("basic", *args, **kwargs).as_dict()).keys()


def names_of_all():
    found = set(CHOICES)
    for agent in AGENTS:
        found |= names(agent)
    for encoder in ENCODERS:
        found |= names(encoder=encoder)
    for memory in MEMORIES:
        found |= names(memory=memory)
    return found


@pytest.mark.parametrize("agent", AGENTS)
def test_every_key_is_a_field_of_some_configuration(agent):
    known = names_of_all()
    for env in ENVS:
        assert preset(env, agent, tuple(_DOOM_OBJECTIVES)).keys() <= known, env


@pytest.mark.parametrize("agent", AGENTS)
def test_every_preset_makes_a_configuration_that_holds_it(agent):
    for env in ENVS:
        values = preset(env, agent)
        config = default_config(env, agent)
        found = dotted(config.as_dict())
        assert config.env.env == env
        assert config.agent_name == agent
        assert config.perception.memory_name == values.get("memory", "none")
        held = {name: list_of(value) for name, value in values.items() if name in found}
        assert {name: found[name] for name in held} == held
        # What is not held belongs to another encoder, memory or agent.
        missing = values.keys() - found.keys() - CHOICES
        assert all(name.startswith(("agent.", "perception.")) for name in missing)


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agents_own_preset_has_only_fields_it_has(agent):
    for (env, name), values in _AGENTS.items():
        if name == agent:
            assert values.keys() <= dotted(default_config(env, agent).as_dict()).keys()


def test_environments_with_presets_exist():
    maps, players = (f"maps:{kind}" for kind in MAPS), (f"players:{kind}" for kind in KINDS)
    named = {*SCENARIOS, *maps, *players}
    assert set(_ENVS) <= named
    for env, agent in _AGENTS:
        assert env in named or env == "CartPole-v1"
        assert agent in AGENTS


def test_a_preset_is_not_shared_between_callers():
    preset("basic", "ppo")["agent.learning_rate"] = 99.0
    assert preset("basic", "ppo")["agent.learning_rate"] != 99.0


def test_families_are_recognised():
    height = preset("basic", "ppo")["env.height"]
    assert preset("ALE/Pong-v5", "ppo")["env.frame_stack"] == 4
    assert preset("CartPole-v1", "a2c").get("env.height") is None
    assert preset("tests.agents.toy:Recall-v0", "ppo").get("env.height") is None
    for own in ("mine:space/Env-v0", "mine:env", "mine.deep:an-env-v12", "env-v3"):
        assert preset(own, "ppo") == preset("tests.agents.toy:Recall-v0", "ppo")
    for file in ("/a:b/mine-v1.cfg", "MINE.WAD", "mine.wad:MAP02", "freedoom2:MAP01"):
        assert preset(file, "ppo")["env.height"] == height
    assert preset("basic", "ppo")["agent.reward_scale"] == 0.01


def test_grids_are_one_hot_with_large_batches_and_memory_where_it_is_needed():
    for env, memory in (("MiniGrid-MemoryS11-v0", "attention"), ("MiniGrid-Empty-5x5-v0", "none")):
        config = default_config(env)
        assert config.env.wrappers == ("minigrid.wrappers:OneHotPartialObsWrapper",)
        assert not needs_trust(config.env)  # Its policies can be scored as others are.
        assert (config.num_envs, config.agent.rollout_length) == (64, 64)
        assert config.perception.as_dict()["memory"]["name"] == memory
    given = {"memory": "gru"}
    assert default_config("MiniGrid-Empty-5x5-v0", **given).agent.minibatch_size == 1024


@pytest.mark.parametrize("env", ["CartPole-v1", "mine:space/Env-v0"])
def test_memory_on_small_observations_has_many_short_sequences(env):
    for config in (default_config(env, memory="gru"), default_config(env, "sb3-recurrent-ppo")):
        assert (config.num_envs, config.agent.rollout_length) == (32, 32)
        assert config.agent.minibatch_size == 256
    assert default_config(env, "a2c", memory="lstm").num_envs == 32
    assert default_config(env, "a2c", memory="lstm").agent == default_config(env, "a2c").agent
    assert default_config(env).num_envs == default_config(env, memory="none").num_envs == 8


@pytest.mark.parametrize("env", ["basic", "maps:maze", "ALE/Pong-v5", "CarRacing-v3", "a.wad:E1M1"])
def test_memory_on_images_changes_nothing(env):
    plain, recurrent = (dotted(default_config(env, memory=m).as_dict()) for m in ("none", "lstm"))
    differing = {name for name in plain.keys() & recurrent if plain[name] != recurrent[name]}
    assert differing == {"perception.memory.name"}


def test_an_objective_asks_doom_alone_for_what_it_needs():
    for env in ("basic", "freedoom2:MAP01", "mine.cfg"):
        assert preset(env, "ppo", ("contrastive", "variables"))["env.enemy_in_view"]
        assert "env.enemy_in_view" not in preset(env, "ppo", ("contrastive",))
    assert preset("CartPole-v1", "ppo", ("variables",)) == preset("CartPole-v1", "ppo")
    assert default_config("basic", objectives=("variables",)).env.enemy_in_view
    assert not default_config("basic").env.enemy_in_view
    both = default_config("basic", objectives=("depth", "labels")).env
    assert both.depth_targets
    assert both.kind_targets
    assert both.without_targets() == default_config("basic").env


# The defaults of the article's ppo_atari.py and of its wrappers, by our names.
ARTICLE = {
    # Details of Atari: no-op starts, frames skipped and pooled, lives, FIRE, 84 x 84 in gray,
    # clipped rewards, four frames.
    "env.noop_max": 30,
    "env.frame_skip": 4,
    "env.max_pool": True,
    "env.terminal_on_life_loss": True,
    "env.fire_reset": True,
    "env.height": 84,
    "env.width": 84,
    "env.observation": "gray",
    "env.frame_stack": 4,
    "agent.clip_rewards": True,
    # The network of Mnih et al. (2015).
    "perception.encoder.name": "nature",
    "perception.encoder.conv_channels": [32, 64, 64],
    "perception.encoder.conv_strides": [4, 2, 1],
    "perception.encoder.features": 512,
    "perception.memory.name": "none",
    # Hyper-parameters.
    "total_env_steps": 10_000_000,
    "num_envs": 8,
    "agent.rollout_length": 128,
    "agent.num_epochs": 4,
    "agent.minibatch_size": 8 * 128 // 4,
    "agent.learning_rate": 2.5e-4,
    "agent.anneal_learning_rate": True,
    "agent.gamma": 0.99,
    "agent.gae_lambda": 0.95,
    "agent.normalize_advantages": True,
    "agent.clip_coef": 0.1,
    "agent.value_clip_coef": 0.1,
    "agent.entropy_coef": 0.01,
    "agent.max_grad_norm": 0.5,
    "agent.target_kl": None,
    # vf_coef is 0.5, of half the squared error; ours is of all of it.
    "agent.value_coef": 0.5 * 0.5,
    # What the article does not do.
    "agent.normalize_returns": False,
    "agent.normalize_obs": False,
    "agent.reward_scale": 1.0,
    "agent.vtrace": False,
    "num_groups": 1,
    "overlap": False,
}


def test_ataris_preset_is_the_articles():
    values = dotted(default_config("ALE/Pong-v5").as_dict())
    assert {name: values[name] for name in ARTICLE} == ARTICLE
    # Whatever the preset says is in the table.
    assert preset("ALE/Pong-v5", "ppo").keys() <= ARTICLE.keys()


def test_ataris_network_and_optimiser_are_the_articles():
    config = default_config("ALE/Pong-v5")
    env = make(config.env)
    specs = observation_specs(env.observation_space, env.metadata)
    policy = Policy(specs, env.action_space, config.perception)
    env.close()
    # Its layers by the shapes of their weights: Nature's CNN, and two heads on it.
    weights = {name: part for name, part in policy.named_parameters() if part.dim() > 1}
    assert [tuple(part.shape) for part in weights.values()] == [
        (32, 4, 8, 8),
        (64, 32, 4, 4),
        (64, 64, 3, 3),
        (512, 64 * 7 * 7),
        (6, 512),
        (1, 512),
    ]
    # Orthogonal: the rows, times the gain, have that length and are at right angles.
    for weight, gain in zip(weights.values(), [2**0.5] * 4 + [0.01, 1.0], strict=True):
        rows = weight.detach().flatten(1)
        expected = gain**2 * torch.eye(len(rows))
        torch.testing.assert_close(rows @ rows.T, expected, rtol=0, atol=1e-4 * gain**2)
    biases = [part for part in policy.parameters() if part.dim() == 1]
    assert not any(bias.any() for bias in biases)
    agent = PPO(policy, config.agent, num_envs=8, total_updates=10)
    assert isinstance(agent.optimizer, torch.optim.Adam)
    assert agent.optimizer.defaults["eps"] == 1e-5
    assert agent.optimizer.defaults["betas"] == (0.9, 0.999)
    # Pixels are scaled to 0 to 1.
    frames = torch.full((1, 84, 84, 4), 255, dtype=torch.uint8)
    assert (policy.perception.encoders["obs"].decoder(frames) == 1.0).all()


def test_other_agents_act_in_the_same_atari():
    env = {name: value for name, value in ARTICLE.items() if name.startswith("env.")}
    for agent in AGENTS:
        values = preset("ALE/Breakout-v5", agent)
        assert env.items() <= values.items()
        assert values["agent.clip_rewards"]
