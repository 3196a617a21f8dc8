"""Tests of `agents.presets`."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import train
from agents import AGENTS, Policy, observation_specs
from agents.commandline import with_fields
from agents.ppo import PPO
from agents.presets import _AGENTS, _WORLDS, preset
from envs import SCENARIOS, EnvConfig, make
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


# The defaults of the article's ppo_atari.py, and its wrappers, by our names; see `agents.presets`.
ARTICLE = {
    # Details of Atari: no-op starts, frames skipped and pooled, lives, FIRE, 84 x 84 in gray,
    # clipped rewards, four frames, the network of Mnih et al. (2015).
    **{"noop_max": 30, "frame_skip": 4, "max_pool": True, "terminal_on_life_loss": True},
    **{"fire_reset": True, "height": 84, "width": 84, "observation": "gray", "clip_rewards": True},
    **{"frame_stack": 4, "encoder": "nature", "conv_channels": (32, 64, 64)},
    **{"conv_strides": (4, 2, 1), "features": 512, "memory": "none"},
    # Hyper-parameters.
    **{"total_env_steps": 10_000_000, "num_envs": 8, "rollout_length": 128, "num_epochs": 4},
    **{"minibatch_size": 8 * 128 // 4, "learning_rate": 2.5e-4, "anneal_learning_rate": True},
    **{"gamma": 0.99, "gae_lambda": 0.95, "normalize_advantages": True, "clip_coef": 0.1},
    **{"value_clip_coef": 0.1, "entropy_coef": 0.01, "max_grad_norm": 0.5, "target_kl": None},
    # vf_coef is 0.5, of half the squared error; ours is of all of it.
    "value_coef": 0.5 * 0.5,
    # And what the article does not do.
    **{"normalize_returns": False, "normalize_obs": False, "reward_scale": 1.0, "vtrace": False},
    **{"num_groups": 1, "overlap": False},
}


def test_ataris_preset_is_the_articles():
    env = "ALE/Pong-v5"
    config = with_fields(default_config(env, "ppo"), preset(env, "ppo"))
    fields = train.flat(dataclasses.asdict(config))
    assert {name: fields[name] for name in ARTICLE} == ARTICLE
    # Whatever the preset says is in the table.
    assert preset(env, "ppo").keys() <= ARTICLE.keys()


def test_ataris_network_and_optimiser_are_the_articles():
    env = "ALE/Pong-v5"
    config = with_fields(default_config(env, "ppo"), preset(env, "ppo"))
    game = make(config.env)
    policy = Policy(
        observation_specs(game.observation_space, game.metadata),
        game.action_space,
        config.perception,
    )
    game.close()
    # Its layers by the shapes of their weights; Nature's CNN, and two heads on it.
    weights = {name: part for name, part in policy.named_parameters() if part.dim() > 1}
    shapes = [tuple(part.shape) for part in weights.values()]
    convolutions = [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3)]
    assert shapes == [*convolutions, (512, 64 * 7 * 7), (6, 512), (1, 512)]
    # Orthogonal: the rows, times the gain, have that length and are at right angles.
    for weight, gain in zip(weights.values(), [2**0.5] * 4 + [0.01, 1.0], strict=True):
        rows = weight.detach().flatten(1)
        expected = gain**2 * torch.eye(len(rows))
        torch.testing.assert_close(rows @ rows.T, expected, rtol=0, atol=1e-4 * gain**2)
    biases = [part for part in policy.parameters() if part.dim() == 1]
    assert not any(bias.any() for bias in biases)
    agent = PPO(policy, config.learning, num_envs=8, total_updates=10)
    assert isinstance(agent.optimizer, torch.optim.Adam)
    assert agent.optimizer.defaults["eps"] == 1e-5
    assert agent.optimizer.defaults["betas"] == (0.9, 0.999)
    # Pixels are scaled to 0 to 1.
    obs = {"obs": torch.full((1, 84, 84, 4), 255, dtype=torch.uint8)}
    decoder = policy.perception.encoders["obs"][0]
    assert (decoder(obs["obs"]) == 1.0).all()


def test_other_agents_play_the_same_atari():
    for agent in AGENTS:
        fields = preset("ALE/Breakout-v5", agent)
        for name in ("noop_max", "max_pool", "fire_reset", "terminal_on_life_loss", "clip_rewards"):
            assert fields[name] == ARTICLE[name]
