"""A task whose answer is one pixel: black or white, in an image of noise."""

from __future__ import annotations

import torch
from gymnasium import spaces

from evaluation.explain.pixels import PixelPolicy, States
from perception import ImageSpec
from tests.agents.synthetic import make_policy

HEIGHT, WIDTH, HINT = 16, 20, (5, 13)


def hint_obs(count, seed):
    """Return images of noise, (count, H, W, 1) uint8, and the right actions."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, HEIGHT, WIDTH, 1), generator=generator).byte()
    answers = torch.randint(2, (count,), generator=generator)
    images[:, HINT[0], HINT[1], 0] = (255 * answers).byte()
    return images, answers


def hint_policy(updates=150):
    """Return a policy that learned to do what the pixel says, by the exact policy gradient."""
    spec = ImageSpec(shape=(HEIGHT, WIDTH, 1))
    policy = make_policy(specs={"obs": spec}, actions=spaces.Discrete(2), encoder="mlp")
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    with torch.enable_grad():
        for update in range(updates):
            images, answers = hint_obs(256, update)
            starts = torch.ones(1, 256, dtype=torch.bool)
            output = policy({"obs": images[None]}, policy.initial_state(256), starts)
            right = output.distribution.log_prob(answers[None]).exp().mean()
            regression = (output.values[0] - answers).square().mean()
            optimizer.zero_grad()
            (regression - right).backward()
            optimizer.step()
    return policy, float(right)


def hint_states(policy, count=8):
    """Return states with new noise, in which the right action is taken."""
    pixels = PixelPolicy(policy)
    images, answers = hint_obs(count, 10_000)
    return pixels, States(
        images=pixels.decode(images.numpy()),
        others={},
        memory_states=torch.zeros(count, 0, 0),
        starts=torch.ones(count, dtype=torch.bool),
        actions=answers,
    )
