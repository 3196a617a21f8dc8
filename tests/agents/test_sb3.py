"""Tests of `agents.sb3` and `agents.sb3_sampler`: Stable-Baselines3's code on our modules."""

from __future__ import annotations

import contextlib
import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO

from agents import AGENTS, SB3_AGENTS, Policy, observation_specs
from agents.agent import NotFiniteError
from agents.commandline import UsageError
from agents.sb3 import perception_kwargs
from agents.sb3_sampler import SB3Sampler, _LearnedRewards
from agents.stopwatch import Stopwatch
from envs import EnvConfig, SharedVectorEnv
from envs.sb3 import SharedVecEnv, make_vec_env
from perception import PerceptionConfig
from tests.agents.synthetic import SMALL_LAYERS, assert_same, make_policy, weights
from tests.agents.toy import ACTION_SPACES, counter_length

STEPS, NUM_ENVS, SEED = 11, 4, 100
MEMORY = {"sb3-ppo": "none", "sb3-a2c": "none", "sb3-recurrent-ppo": "lstm"}
OPTIONS = {"sb3-ppo": {"minibatch_size": 22}, "sb3-recurrent-ppo": {"minibatch_size": 22}}
COUNTER = EnvConfig(env="tests.agents.toy:Counter-v0")
DOOM = EnvConfig(env="basic", height=36, width=40, variables=True)


@contextlib.contextmanager
def training(name, config=COUNTER, **options):
    """Open environments, an agent of Stable-Baselines3 and its sampler."""
    kind, learner = AGENTS[name]
    torch.manual_seed(0)
    with contextlib.closing(SharedVectorEnv(config, NUM_ENVS, 1)) as envs:
        policy = Policy(
            observation_specs(envs.single_observation_space, envs.metadata),
            envs.single_action_space,
            PerceptionConfig(memory=MEMORY[name], memory_size=6, layers=SMALL_LAYERS),
            options.get("normalize_obs", False),
        )
        learning = kind(rollout_length=STEPS, **{**OPTIONS.get(name, {}), **options})
        agent = learner(policy, learning, num_envs=NUM_ENVS, total_updates=10)
        yield agent, SB3Sampler(envs, SharedVecEnv(envs), agent, seed=SEED)


def expect_our_own_judgement(agent, rollout, *, rtol=1e-4, atol=1e-5):
    """Compare what SB3 noted while it played with what our policy and our GAE say of it."""
    with torch.no_grad():
        distribution, values, _ = agent.policy(
            rollout.obs, rollout.memory_state, rollout.episode_starts
        )
    advantages, returns = agent.estimate(rollout, agent.scale(rollout.rewards, rollout.dones))
    buffer = agent.model.rollout_buffer
    for ours, theirs in (
        (distribution.log_prob(rollout.actions), rollout.logprobs),
        (values, rollout.values),
        (distribution.probabilities(), rollout.probabilities),
        (advantages, torch.from_numpy(buffer.advantages)),
        (returns, torch.from_numpy(buffer.returns)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", SB3_AGENTS)
def test_what_it_collects_is_a_rollout_of_ours(name):
    with training(name, reward_scale=0.1) as (agent, sampler):
        episodes = []
        for _ in range(3):
            collected = sampler.collect()
            rollout = collected.rollout
            episodes += collected.episodes
            expect_our_own_judgement(agent, rollout, rtol=1e-3, atol=1e-3)
            # What the world pays is told, not what is learned from.
            expected = 10 * rollout.obs["obs"][..., 1] + rollout.actions
            assert torch.equal(rollout.rewards, expected)
            assert rollout.first_not_finite() is None
            agent.update(rollout)
        assert len(episodes) > 10
        for episode in episodes:
            arrays = episode.arrays()
            length = counter_length(episode.seed)
            assert episode.terminated == (episode.seed % 2 == 0)
            assert len(arrays["actions"]) == episode.statistics["l"] == length
            returned = arrays["rewards"].sum()
            assert returned == 10 * sum(range(length)) + arrays["actions"].sum()
            assert episode.statistics["r"] == pytest.approx(returned)
        assert len({episode.seed for episode in episodes}) == len(episodes)
        assert collected.next_episode_seed > max(episode.seed for episode in episodes)
    shares = sampler.stopwatch.shares()
    assert shares["games"] > 0
    assert shares["inference"] > 0


@pytest.mark.parametrize(
    ("name", "actions"),
    # RecurrentPPO of sb3-contrib 2.9.2 raises where actions are MultiBinary.
    sorted({*product(SB3_AGENTS, ACTION_SPACES)} - {("sb3-recurrent-ppo", "MultiBinary")}),
)
def test_every_kind_of_action_is_judged_alike(name, actions):
    config = EnvConfig(env=f"tests.agents.toy:Identity{actions}-v0")
    with training(name, config, normalize_obs=True) as (agent, sampler):
        for _ in range(2):
            rollout = sampler.collect().rollout
            expect_our_own_judgement(agent, rollout)
            metrics = agent.update(rollout)
        assert metrics["explained_variance"] <= 1
        assert "value_loss" in metrics


@pytest.mark.parametrize("name", SB3_AGENTS)
def test_doom_is_seen_and_learned_from(name):
    with training(name, DOOM, normalize_obs=True) as (agent, sampler):
        before = weights(agent.policy)
        for _ in range(2):
            rollout = sampler.collect().rollout
            expect_our_own_judgement(agent, rollout)
            agent.update(rollout)
        for key, tensor in agent.policy.state_dict().items():
            assert torch.isfinite(tensor).all(), key
            assert torch.equal(tensor, before[key]) == ("palette" in key), key


def test_the_learning_rate_falls_and_returns_are_normalised():
    with training("sb3-ppo", anneal_learning_rate=True, normalize_returns=True) as (agent, sampler):
        rates = []
        for _ in range(3):
            agent.update(sampler.collect().rollout)
            rates.append(agent.optimizer.param_groups[0]["lr"])
        initial = agent.config.learning_rate
        assert rates == pytest.approx([0.9 * initial, 0.8 * initial, 0.7 * initial])
        assert agent.value_unit > 1


class ElsewhereAgent:
    """Scales rewards on a device without memory, as an agent on a GPU does on its own."""

    policy = SimpleNamespace(device=torch.device("meta"))

    def scale(self, rewards, dones):
        assert rewards.device == dones.device == self.policy.device
        assert (rewards.shape, rewards.dtype) == ((1, NUM_ENVS), torch.float32)
        assert (dones.shape, dones.dtype) == ((1, NUM_ENVS), torch.bool)
        # "meta" tensors hold no numbers; what `cpu` makes of them is given instead.
        return [SimpleNamespace(cpu=lambda: torch.full((NUM_ENVS,), 0.5))]


def test_rewards_are_scaled_on_the_device_of_the_policy():
    with contextlib.closing(SharedVectorEnv(COUNTER, NUM_ENVS, 1)) as envs:
        vec_env = _LearnedRewards(SharedVecEnv(envs), ElsewhereAgent(), Stopwatch())
        vec_env.reset()
        _, learned, dones, _ = vec_env.step(np.zeros(NUM_ENVS, np.int64))
        assert isinstance(learned, np.ndarray)
        assert learned.tolist() == [0.5] * NUM_ENVS
        learned += 1.0  # SB3 adds to them what it bootstraps: they are nobody else's.
        assert vec_env.native.tolist() == [0.0] * NUM_ENVS
        assert not dones.any()


def test_an_update_that_is_not_finite_is_undone():
    with training("sb3-ppo", learning_rate=math.inf) as (agent, sampler):
        rollout, before = sampler.collect().rollout, weights(agent.policy)
        with pytest.raises(NotFiniteError, match="the weights after the update"):
            agent.update(rollout)
        assert_same(weights(agent.policy), before)


@pytest.mark.parametrize(
    ("name", "memory", "options", "message"),
    [
        ("sb3-ppo", "lstm", {}, "sb3-ppo has --memory none, not lstm"),
        ("sb3-recurrent-ppo", "gru", {}, "sb3-recurrent-ppo has --memory lstm, not gru"),
        ("sb3-ppo", "none", {"vtrace": True}, "sb3-ppo has no --vtrace"),
        ("sb3-a2c", "none", {"num_epochs": 2}, "sb3-a2c learns once from a whole rollout"),
    ],
)
def test_what_it_cannot_is_one_line(name, memory, options, message):
    kind, learner = AGENTS[name]
    with pytest.raises(UsageError, match=message):
        learner(make_policy(memory=memory), kind(**options), num_envs=4, total_updates=1)


@pytest.mark.parametrize(("observation", "encoder"), [("palette", "nature"), ("rgb", "impala")])
def test_perception_is_a_features_extractor(observation, encoder):
    options = {"width": 40, "height": 36, "observation": observation}
    with contextlib.closing(make_vec_env("basic", 2, seed=0, num_workers=1, **options)) as vec_env:
        kwargs = perception_kwargs(vec_env, encoder=encoder, layers=SMALL_LAYERS)
        model = PPO("CnnPolicy", vec_env, n_steps=16, batch_size=16, policy_kwargs=kwargs)
        extractor = model.policy.features_extractor
        before = [parameter.clone() for parameter in extractor.parameters()]
        model.learn(32)
        assert all(
            not torch.equal(old, new)
            for old, new in zip(before, extractor.parameters(), strict=True)
        )
        # SB3 moves the channels, and makes floats of bytes; both are undone.
        frames = torch.as_tensor(np.asarray(model.env.venv.reset()))
        seen = extractor(frames.permute(0, 3, 1, 2).float())
        assert torch.equal(seen, extractor.perception.encode({"obs": frames}))


def test_each_network_of_an_algorithm_has_a_perception_of_its_own():
    with contextlib.closing(make_vec_env("CartPole-v1", 2, num_workers=1)) as vec_env:
        kwargs = perception_kwargs(vec_env)
        model = DQN("MlpPolicy", vec_env, policy_kwargs=kwargs, buffer_size=100)
        assert not {id(p) for p in model.q_net.parameters()} & {
            id(p) for p in model.q_net_target.parameters()
        }
