"""A dot on a ring that actions move, as minibatches without an environment, for small policies."""

from __future__ import annotations

import torch
from gymnasium import spaces

from agents import Policy
from agents.rollout import Minibatch
from perception import ImageSpec, PerceptionConfig
from perception.encoders import MLPConfig

PLACES = 8
SPECS = {"obs": ImageSpec(shape=(6, PLACES, 1))}


def make_small_policy():
    """Return a policy for images of 6 x 8 pixels and three actions."""
    torch.manual_seed(0)
    config = PerceptionConfig(encoder=MLPConfig(mlp_sizes=(64, 32)))
    return Policy(SPECS, spaces.Discrete(3), config)


def make_minibatch(images, actions, episode_starts):
    """Return a minibatch of (t, n, 6, 8, 1) uint8 images; all values in it are 0."""
    zeros = torch.zeros(actions.shape)
    numbers = dict.fromkeys(("logprobs", "values", "advantages", "returns"), zeros)
    return Minibatch(
        obs={"obs": images},
        actions=actions,
        episode_starts=episode_starts,
        memory_state=torch.zeros(0, actions.shape[1], 0),
        **numbers,
    )


def make_dot(seed, *, steps=12, num_envs=16, shuffled=False):
    """Return a minibatch in which actions 0, 1 and 2 move a dot by -1, 0 and 1 places.

    Args:
        seed: of all random numbers.
        steps: t.
        num_envs: n.
        shuffled: whether the actions in the minibatch are others than those that moved the dot.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (steps, num_envs)
    actions = torch.randint(3, shape, generator=generator)
    starts = torch.rand(shape, generator=generator) < 0.1
    jumps = torch.randint(PLACES, shape, generator=generator)
    places = [jumps[0]]
    for t in range(1, steps):  # Each episode starts at a random place.
        moved = (places[-1] + actions[t - 1] - 1) % PLACES
        places.append(torch.where(starts[t], jumps[t], moved))
    dots = torch.nn.functional.one_hot(torch.stack(places), PLACES).byte() * 255
    images = dots[:, :, None, :, None].expand(-1, -1, 6, -1, -1)
    if shuffled:
        order = torch.randperm(actions.numel(), generator=generator)
        actions = actions.flatten()[order].view(shape)
    return make_minibatch(images, actions, starts)


def train(policy, objective, make, updates, learning_rate=1e-2):
    """Train a policy's perception with an objective alone.

    Args:
        policy: the policy.
        objective: the objective.
        make: returns a minibatch, given a seed.
        updates: how often.
        learning_rate: of Adam.
    """
    parameters = [*policy.perception.parameters(), *objective.parameters()]
    learned = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.Adam(learned, learning_rate)
    for seed in range(updates):
        batch = make(seed)
        batch.targets.update(objective.targets_of(policy, batch))
        objective.observe(policy, batch)
        loss, _ = evaluate(policy, objective, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def evaluate(policy, objective, batch):
    """Return the loss and the metrics of a minibatch."""
    batch.targets.update(objective.targets_of(policy, batch))
    output = policy(batch.obs, batch.memory_state, batch.episode_starts)
    return objective.loss(policy, output, batch)
