"""Policies and rollouts made of random numbers, for tests that need no world."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from gymnasium import spaces

from agents import Policy
from agents.distributions import num_draws
from agents.rollout import Rollout
from perception import EncoderConfig, ImageSpec, PerceptionConfig, VectorSpec

SMALL_LAYERS = EncoderConfig(
    hidden_sizes=(8,), conv_channels=(4, 4, 4), impala_channels=(4, 4), features=16
)
PALETTE = tuple((i, 255 - i, i // 2) for i in range(256))
IMAGE = ImageSpec(shape=(36, 40, 2), channels=("palette", "depth"), palette=PALETTE)
VECTOR = VectorSpec(size=3)


def make_policy(
    *,
    specs=None,
    actions=None,
    encoder="nature",
    memory="none",
    memory_size=6,
    layers=SMALL_LAYERS,
    normalize_obs=False,
    seed=0,
):
    """Make a small policy; by default it sees a vector of 3 and chooses one of 3."""
    torch.manual_seed(seed)
    config = PerceptionConfig(
        encoder=encoder, memory=memory, memory_size=memory_size, layers=layers
    )
    return Policy(specs or {"obs": VECTOR}, actions or spaces.Discrete(3), config, normalize_obs)


def make_obs(specs, *leading, seed=0):
    """Draw observations with given leading axes."""
    rng = np.random.default_rng(seed)
    obs = {}
    for name, spec in specs.items():
        if isinstance(spec, ImageSpec):
            pixels = rng.integers(256, size=(*leading, *spec.shape), dtype=np.uint8)
            obs[name] = torch.from_numpy(pixels)
        else:
            numbers = rng.standard_normal((*leading, spec.size), dtype=np.float32)
            obs[name] = torch.from_numpy(numbers)
    return obs


def make_draws(space, *leading, seed=0):
    """Draw the uniform numbers that choose actions in a space, with given leading axes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*leading, num_draws(space), generator=generator)


def make_rollout(policy, steps, num_envs, *, seed=0, noise=0.0, truncations=True):
    """Let a policy act on random observations in which episodes end at random.

    Args:
        policy: who acts.
        steps: T.
        num_envs: N.
        seed: draws everything.
        noise: deviation of noise on logprobs and values, as if an older policy had acted.
        truncations: whether some of the episodes that end are truncated.
    """
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    obs = make_obs(policy.specs, steps, num_envs, seed=seed)
    ends = rng.integers(8, size=(steps, num_envs))
    terminated, truncated = torch.from_numpy(ends == 0), torch.from_numpy(ends == 1)
    truncated &= truncations
    starts = torch.ones(steps, num_envs, dtype=torch.bool)
    starts[1:] = (terminated | truncated)[:-1]
    state = policy.initial_state(num_envs)
    draws = torch.rand(steps, num_envs, num_draws(policy.action_space), generator=generator)
    with torch.no_grad():
        distribution, values, last_state = policy(obs, state, starts)
        actions = distribution.sample(draws)
        logprobs = distribution.log_prob(actions)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    last_obs = make_obs(policy.specs, num_envs, seed=seed + 1)
    last_starts = (terminated | truncated)[-1]
    final_steps, final_lanes = truncated.nonzero().unbind(1)
    final_obs = make_obs(policy.specs, len(final_steps), seed=seed + 2)
    # Of each truncated episode: the state after its last step.
    states = [state[:, :0]]
    with torch.no_grad():
        for t, lane in zip(final_steps.tolist(), final_lanes.tolist(), strict=True):
            before = {name: part[: t + 1, lane : lane + 1] for name, part in obs.items()}
            whence = state[:, lane : lane + 1], starts[: t + 1, lane : lane + 1]
            states.append(policy(before, *whence)[2])
        final_state = torch.cat(states, 1)
        last_values = policy.value(last_obs, last_state, last_starts)
        final_values = torch.zeros(steps, num_envs)
        going_on = torch.zeros(len(final_steps), dtype=torch.bool)
        final_values[final_steps, final_lanes] = policy.value(final_obs, final_state, going_on)

    return Rollout(
        obs=obs,
        actions=actions,
        logprobs=logprobs + noise * draw(steps, num_envs),
        values=values + noise * draw(steps, num_envs),
        probabilities=distribution.probabilities(),
        rewards=draw(steps, num_envs),
        terminated=terminated,
        truncated=truncated,
        final_values=final_values + noise * draw(steps, num_envs) * truncated,
        episode_starts=starts,
        memory_state=state,
        last_values=last_values + noise * draw(num_envs),
        last_obs=last_obs,
        last_starts=last_starts,
        final_obs=final_obs,
        final_steps=final_steps,
        final_lanes=final_lanes,
    )


def moved(rollout, device):
    """Return a rollout on another device."""
    fields = {}
    for field in dataclasses.fields(rollout):
        value = getattr(rollout, field.name)
        if isinstance(value, dict):
            fields[field.name] = {name: part.to(device) for name, part in value.items()}
        else:
            fields[field.name] = value.to(device)
    return dataclasses.replace(rollout, **fields)


def weights(module):
    """Copy all parameters and buffers."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(left, right):
    """Compare two dictionaries of tensors bit for bit."""
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def assert_same_episodes(left, right):
    """Compare traces of episodes, one by one."""
    assert [(e.seed, e.statistics) for e in left] == [(e.seed, e.statistics) for e in right]
    for one, other in zip(left, right, strict=True):
        for name, array in one.arrays().items():
            np.testing.assert_array_equal(array, other.arrays()[name])
