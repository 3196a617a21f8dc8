"""Policies and rollouts of random numbers, for tests that need no environment."""

from __future__ import annotations

import dataclasses
from itertools import cycle

import numpy as np
import torch
from gymnasium import spaces

from agents import Policy
from agents.distributions import num_draws
from agents.rollout import Rollout
from perception import (
    ENCODERS,
    MEMORIES,
    ImageSpec,
    PerceptionConfig,
    SoundConfig,
    SoundSpec,
    TextConfig,
    TextSpec,
    VectorSpec,
)
from perception.encoders import (
    AttentionConfig,
    ImpalaConfig,
    ImpoolaConfig,
    MLPConfig,
    NatureConfig,
    VectorConfig,
)

SMALL_ENCODERS = {
    "nature": NatureConfig(conv_channels=(4, 4, 4), features=16),
    "impala": ImpalaConfig(impala_channels=(4, 4), features=16),
    "impoola": ImpoolaConfig(impala_channels=(4, 4), features=16),
    "attention": AttentionConfig(
        stem_channels=4, token_size=8, token_layers=1, token_heads=2, token_queries=2, features=16
    ),
    "mlp": MLPConfig(mlp_sizes=(8,)),
}
PALETTE = tuple((i, 255 - i, i // 2) for i in range(256))
IMAGE = ImageSpec(shape=(36, 40, 2), channels=("palette", "depth"), palette=PALETTE)
VECTOR = VectorSpec(size=3)
SENSES = {"sound": SoundSpec(num_samples=512), "notifications": TextSpec(length=4, vocabulary=9)}


def small_config(encoder="nature", memory="none", memory_size=6):
    """Return the configuration of a small network with any encoder and memory of the registries."""
    kind = MEMORIES[memory][0]
    names = {field.name for field in dataclasses.fields(kind)}
    sizes = {"memory_size": memory_size, "memory_heads": 1, "memory_window": 3}
    return PerceptionConfig(
        encoder=SMALL_ENCODERS.get(encoder) or ENCODERS[encoder][0](),
        memory=kind(**{name: size for name, size in sizes.items() if name in names}),
        vectors=VectorConfig(hidden_sizes=(8,)),
        sound=SoundConfig(sound_features=8, sound_bands=4),
        text=TextConfig(text_features=8, embedding_size=8),
    )


def make_policy(
    *,
    specs=None,
    actions=None,
    encoder="nature",
    memory="none",
    memory_size=6,
    normalize_obs=False,
    precision=torch.float32,
    seed=0,
):
    """Return a small policy; by default, it observes a vector of 3 and makes one choice of 3."""
    torch.manual_seed(seed)
    return Policy(
        specs or {"obs": VECTOR},
        actions or spaces.Discrete(3),
        small_config(encoder, memory, memory_size),
        normalize_obs,
        precision,
    )


def taught(objectives, policy, num_envs):
    """Return objectives, of which `distill` now has a teacher, with a memory of its own."""
    if "distill" in objectives:
        teacher = make_policy(
            specs=policy.specs, actions=policy.action_space, memory="gru", encoder="mlp", seed=9
        )
        teacher = teacher.to(policy.device)
        objectives["distill"].take_teacher(teacher, num_envs=num_envs, value_scale=2.0)
    return objectives


def make_obs(specs, *leading, seed=0):
    """Return random observations with given leading axes."""
    rng = np.random.default_rng(seed)
    obs = {}
    for name, spec in specs.items():
        if isinstance(spec, ImageSpec):
            pixels = rng.integers(256, size=(*leading, *spec.shape), dtype=np.uint8)
            obs[name] = torch.from_numpy(pixels)
        elif isinstance(spec, TextSpec):
            tokens = rng.integers(spec.vocabulary, size=(*leading, *spec.shape), dtype=np.int32)
            obs[name] = torch.from_numpy(tokens)
        else:
            numbers = rng.standard_normal((*leading, *spec.shape), dtype=np.float32)
            obs[name] = torch.from_numpy(numbers)
    return obs


def make_draws(space, *leading, seed=0):
    """Return the uniform random numbers for actions of a space, with given leading axes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*leading, num_draws(space), generator=generator)


def make_rollout(policy, steps, num_envs, *, seed=0, noise=0.0, truncations=True, targets=()):
    """Return the rollout of a policy on random observations, in which episodes end at random.

    Args:
        policy: the policy that acts.
        steps: T.
        num_envs: N.
        seed: of all random numbers.
        noise: standard deviation of noise on logprobs and values, as if an older policy had acted.
        truncations: whether some of the episodes that end are truncated.
        targets: names of targets; each is 0 or 1 at random.
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
        output = policy(obs, state, starts)
        distribution = output.distribution
        actions = distribution.sample(draws)
        logprobs = distribution.log_prob(actions)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    last_obs = make_obs(policy.specs, num_envs, seed=seed + 1)
    last_starts = (terminated | truncated)[-1]
    final_steps, final_lanes = truncated.nonzero().unbind(1)
    final_obs = make_obs(policy.specs, len(final_steps), seed=seed + 2)
    states = [state[:, :0]]  # Of each truncated episode, after its last step.
    with torch.no_grad():
        for t, lane in zip(final_steps.tolist(), final_lanes.tolist(), strict=True):
            before = {name: part[: t + 1, lane : lane + 1] for name, part in obs.items()}
            first = state[:, lane : lane + 1], starts[: t + 1, lane : lane + 1]
            states.append(policy(before, *first).memory_state)
        final_state = torch.cat(states, 1)
        last_values = policy.value(last_obs, output.memory_state, last_starts)
        final_values = torch.zeros(steps, num_envs)
        never = torch.zeros(len(final_steps), dtype=torch.bool)
        final_values[final_steps, final_lanes] = policy.value(final_obs, final_state, never)

    return Rollout(
        obs=obs,
        actions=actions,
        logprobs=logprobs + noise * draw(steps, num_envs),
        values=output.values + noise * draw(steps, num_envs),
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
        targets={name: (draw(steps, num_envs) > 0).float() for name in targets},
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


def side_by_side(*registries):
    """Return tuples of names, in which each entry of each registry occurs at least once."""
    names = [list(registry) for registry in registries]
    count = max(map(len, names))
    return [
        each for each, _ in zip(zip(*map(cycle, names), strict=False), range(count), strict=False)
    ]


def weights(module):
    """Return copies of all parameters and buffers, by name."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(left, right):
    """Check that two dictionaries of tensors are equal bit for bit."""
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def assert_same_episodes(left, right):
    """Check that two lists of traces are equal bit for bit."""
    assert [(e.seed, e.statistics) for e in left] == [(e.seed, e.statistics) for e in right]
    for one, other in zip(left, right, strict=True):
        for name, array in one.arrays().items():
            np.testing.assert_array_equal(array, other.arrays()[name])
