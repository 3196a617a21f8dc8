"""A task whose answer is one pixel: black or white, in an image of gray noise.

Another pixel is black or white as well, but says nothing. Some methods show every pixel of high
contrast, whatever the network computes, so that the hint alone would prove nothing about learning.
"""

from __future__ import annotations

import torch
from gymnasium import spaces

from evaluation.explain.pixels import PixelPolicy, States
from perception import ImageSpec
from tests.agents.synthetic import make_policy

HEIGHT, WIDTH = 16, 20
HINT, DISTRACTOR = (5, 13), (11, 4)


def hint_obs(count, seed):
    """Return images of gray noise, (count, H, W, 1) uint8, and the right actions."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(64, 192, (count, HEIGHT, WIDTH, 1), generator=generator).byte()
    answers = torch.randint(2, (count,), generator=generator)
    images[:, HINT[0], HINT[1], 0] = (255 * answers).byte()
    noise = torch.randint(2, (count,), generator=generator)
    images[:, DISTRACTOR[0], DISTRACTOR[1], 0] = (255 * noise).byte()
    return images, answers


def hint_policy(updates=200):
    """Return a policy that learned to do what the pixel says, by the exact policy gradient."""
    spec = ImageSpec(shape=(HEIGHT, WIDTH, 1))
    policy = make_policy(specs={"obs": spec}, actions=spaces.Discrete(2), encoder="mlp")
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    with torch.enable_grad():
        for update in range(updates):
            images, answers = hint_obs(128, update)
            starts = torch.ones(1, 128, dtype=torch.bool)
            output = policy({"obs": images[None]}, policy.initial_state(128), starts)
            right = output.distribution.log_prob(answers[None]).exp().mean()
            regression = (output.values[0] - answers).square().mean()
            optimizer.zero_grad()
            (regression - right).backward()
            optimizer.step()
    return policy, right.item()


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
