"""Stable-Baselines3's algorithms with the weights and data of our agents, as oracles of updates."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from gymnasium import Env, spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from perception.encoders import MLP
from tests.agents.synthetic import make_rollout, small_config, weights


class OurEncoder(BaseFeaturesExtractor):
    """Our MLP as a features extractor of Stable-Baselines3."""

    def __init__(self, observation_space: spaces.Box) -> None:
        encoder = MLP(small_config().vectors, observation_space.shape)
        super().__init__(observation_space, encoder.num_features)
        self.encoder = encoder

    def forward(self, observations):
        return self.encoder(observations)


class Unused(Env):
    """An environment of given spaces that is never stepped; Stable-Baselines3 requires one."""

    def __init__(self, actions: spaces.Space) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = actions


NAMES = {
    "features_extractor.encoder.": "perception.encoders.obs.encoder.",
    "action_net.": "actor.layer.",
    "value_net.": "critic.",
    "log_std": "actor.log_std",
}


def our_name(name: str) -> str:
    prefix = next(prefix for prefix in NAMES if name.startswith(prefix))
    return NAMES[prefix] + name.removeprefix(prefix)


def make_oracle(kind, policy, steps, num_envs, **options):
    """Return an algorithm of Stable-Baselines3 with the weights of our policy."""
    torch.manual_seed(1)
    with warnings.catch_warnings():
        # It assumes one environment; the buffer is replaced below.
        warnings.filterwarnings("ignore", "You have specified a mini-batch size")
        model = kind(
            ActorCriticPolicy,
            Unused(policy.action_space),
            n_steps=steps,
            policy_kwargs={"features_extractor_class": OurEncoder, "net_arch": []},
            device="cpu",
            **options,
        )
    model.set_logger(Logger(folder=None, output_formats=[]))
    model.rollout_buffer = model.rollout_buffer_class(
        steps,
        model.observation_space,
        model.action_space,
        device="cpu",
        gae_lambda=model.gae_lambda,
        gamma=model.gamma,
        n_envs=num_envs,
    )
    ours = policy.state_dict()
    with torch.no_grad():
        for name, parameter in model.policy.named_parameters():
            parameter.copy_(ours[our_name(name)])
    return model


def load_rollout(model, rollout):
    """Write a rollout to an oracle's buffer in the same way as `collect_rollouts`."""
    steps, num_envs = rollout.rewards.shape
    buffer = model.rollout_buffer
    buffer.reset()
    only_cut = rollout.truncated & ~rollout.terminated
    rewards = rollout.rewards + model.gamma * rollout.final_values * only_cut
    for t in range(steps):
        buffer.add(
            rollout.obs["obs"][t].numpy(),
            rollout.actions[t].numpy().reshape(num_envs, -1),
            rewards[t].numpy(),
            rollout.episode_starts[t].numpy(),
            rollout.values[t],
            rollout.logprobs[t],
        )
    buffer.compute_returns_and_advantage(rollout.last_values, rollout.dones[-1].numpy())


def assert_same_weights(policy, model, *, rtol=1e-4, atol=1e-6):
    """Check that all parameters are equal."""
    ours = policy.state_dict()
    theirs = {our_name(n): p for n, p in model.policy.named_parameters()}
    assert theirs.keys() == ours.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(
            ours[name], expected.data, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


def update_in_step(agent, model, *, updates, noise=0.0):
    """Update our agent and its oracle with the same rollouts, and return our last metrics."""
    policy, buffer = agent.policy, model.rollout_buffer
    before = weights(policy)
    for update in range(updates):
        rollout = make_rollout(policy, buffer.buffer_size, buffer.n_envs, seed=update, noise=noise)
        load_rollout(model, rollout)
        metrics = agent.update(rollout)
        model.train()
    moved = max((policy.state_dict()[name] - before[name]).abs().max() for name in before)
    assert moved > 1e-3
    return metrics
