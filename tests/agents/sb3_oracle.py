"""Stable-Baselines3's agents with our weights and our data, as oracles of one update."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from gymnasium import Env, spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from perception import EncoderConfig
from perception.encoders import MLP
from tests.agents.synthetic import SMALL_LAYERS, make_rollout, weights


class OurEncoder(BaseFeaturesExtractor):
    """Our MLP as a features extractor of Stable-Baselines3."""

    def __init__(self, observation_space: spaces.Box, layers: EncoderConfig = SMALL_LAYERS) -> None:
        encoder = MLP(layers, observation_space.shape)
        super().__init__(observation_space, encoder.num_features)
        self.encoder = encoder

    def forward(self, observations):
        return self.encoder(observations)


class Nowhere(Env):
    """A world of given spaces that is never played; Stable-Baselines3 asks for one."""

    def __init__(self, actions: spaces.Space) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = actions


NAMES = {
    "features_extractor.encoder.": "perception.encoders.obs.",
    "action_net.": "actor.layer.",
    "value_net.": "critic.",
    "log_std": "actor.log_std",
}


def our_name(name: str) -> str:
    prefix = next(prefix for prefix in NAMES if name.startswith(prefix))
    return NAMES[prefix] + name.removeprefix(prefix)


def make_oracle(kind, policy, steps, num_envs, **options):
    """Make an agent of Stable-Baselines3 that has our policy's weights."""
    torch.manual_seed(1)
    with warnings.catch_warnings():
        # It takes the number of environments for 1, which is put right below.
        warnings.filterwarnings("ignore", "You have specified a mini-batch size")
        model = kind(
            ActorCriticPolicy,
            Nowhere(policy.action_space),
            n_steps=steps,
            policy_kwargs={"features_extractor_class": OurEncoder, "net_arch": []},
            device="cpu",
            **options,
        )
    model.set_logger(Logger(folder=None, output_formats=[]))
    spaces_of_both = model.observation_space, model.action_space
    options_of_both = "cpu", model.gae_lambda, model.gamma, num_envs
    model.rollout_buffer = model.rollout_buffer_class(steps, *spaces_of_both, *options_of_both)
    ours = policy.state_dict()
    with torch.no_grad():
        for name, parameter in model.policy.named_parameters():
            parameter.copy_(ours[our_name(name)])
    return model


def load_rollout(model, rollout):
    """Put a rollout into an oracle's buffer the way its own collection does."""
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
    """Compare parameter by parameter."""
    ours = policy.state_dict()
    theirs = {our_name(n): p for n, p in model.policy.named_parameters()}
    assert theirs.keys() == ours.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(
            ours[name], expected.data, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


def update_in_step(agent, model, *, updates, noise=0.0):
    """Update our agent and its oracle by the same rollouts, and give our last metrics."""
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
