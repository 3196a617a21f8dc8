"""Tests of `agents.attacks`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.attacks import (
    fgsm,
    pgd,
    random_search,
    sign_noise,
    step_size,
    uniform_noise,
    where,
    within,
)
from tests.agents.synthetic import IMAGE, make_obs, make_policy

SHAPE = (3, 5, 6, 4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(*shape, seed=0):
    """Return pixels of which some are 0 and some are 1."""
    return (1.4 * torch.rand(shape or SHAPE, generator=generator(seed)) - 0.2).clamp(0, 1)


def linear(weights):
    """Return a loss that is linear in the pixels."""
    return lambda pixels: (weights * pixels["obs"]).sum((-3, -2, -1))


def attacks(loss, clean, epsilon):
    """Return what every method makes of pixels, by its name."""
    start = uniform_noise(clean, epsilon, generator())
    size = step_size(epsilon, 10)
    return {
        "uniform": start,
        "sign": sign_noise(clean, epsilon, generator()),
        "fgsm": fgsm(loss, clean, epsilon),
        "pgd": pgd(loss, clean, epsilon, steps=10, size=size, start=start),
        "search": random_search(loss, clean, epsilon, queries=20, generator=generator()),
    }


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), epsilon=st.sampled_from([0.0, 0.5 / 255, 8 / 255, 1.0]))
def test_nothing_leaves_the_ball_or_the_unit_interval(seed, epsilon):
    clean = {"obs": images(seed=seed)}
    for name, pixels in attacks(linear(images(seed=1) - 0.5), clean, epsilon).items():
        assert 0 <= pixels["obs"].min() <= pixels["obs"].max() <= 1, name
        # Computed in float32, as the ends of the ball are.
        assert (pixels["obs"] - clean["obs"]).abs().max() <= epsilon + 1e-7, name
        if epsilon == 0:
            assert torch.equal(pixels["obs"], clean["obs"])


def test_gradients_find_the_optimum_of_a_linear_loss():
    """It is known: every pixel moves by epsilon in the direction of its weight, up to 0 and 1."""
    clean, weights, epsilon = {"obs": images()}, torch.randn(SHAPE), 8 / 255
    best = (clean["obs"] + epsilon * weights.sign()).clamp(0, 1)
    for start in (clean, uniform_noise(clean, epsilon, generator())):
        size = step_size(epsilon, 10)
        found = pgd(linear(weights), clean, epsilon, steps=10, size=size, start=start)["obs"]
        torch.testing.assert_close(found, best, rtol=0, atol=1e-6)
    torch.testing.assert_close(fgsm(linear(weights), clean, epsilon)["obs"], best, rtol=0, atol=0)


def test_on_a_network_more_steps_and_gradients_do_more_damage():
    policy = make_policy(specs={"obs": IMAGE}, seed=1)
    obs = make_obs(policy.specs, 16)
    with torch.no_grad():  # Larger logits, as trained policies have them.
        policy.actor.layer.weight.mul_(300.0)
    state, starts = policy.initial_state(16), torch.ones(1, 16, dtype=torch.bool)
    clean = {name: part[None] for name, part in policy.perception.pixels(obs).items()}
    actions = policy(clean, state, starts).distribution.mode()

    def loss(pixels):
        return -policy(pixels, state, starts).distribution.log_prob(actions)

    with torch.no_grad():
        before = loss(clean).mean()
        found = attacks(loss, clean, 2 / 255)
        rise = {name: float(loss(pixels).mean() - before) for name, pixels in found.items()}
    assert rise["pgd"] > rise["fgsm"] > rise["search"] > max(rise["uniform"], rise["sign"])
    assert rise["pgd"] > 5 * abs(rise["uniform"])


def test_random_search_never_loses_what_it_has_found():
    clean, loss = {"obs": images()}, linear(torch.randn(SHAPE))
    losses = [
        loss(random_search(loss, clean, 0.1, queries=queries, generator=generator()))
        for queries in (1, 1000)
    ]
    assert (losses[1] > losses[0]).all()


def test_noise_has_the_stated_distribution():
    clean = {"obs": torch.full((2, 50, 50, 3), 0.5)}
    uniform = (uniform_noise(clean, 0.1, generator())["obs"] - 0.5) / 0.1
    assert uniform.mean().abs() < 0.03
    assert float(uniform.var()) == pytest.approx(1 / 3, rel=0.05)
    sign = (sign_noise(clean, 0.1, generator())["obs"] - 0.5) / 0.1
    torch.testing.assert_close(sign.abs(), torch.ones_like(sign))
    assert sign.mean().abs() < 0.03


def test_images_of_several_parts_and_axes_are_changed_each_for_itself():
    clean = {"screen": images(2, 3, 4, 5, 1), "map": images(2, 3, 6, 6, 2)}
    far = {name: image + 1 for name, image in clean.items()}
    near = within(far, clean, 0.25)
    for name, image in clean.items():
        assert torch.equal(near[name], (image + 0.25).clamp(max=1))
    mask = torch.tensor([[True, False, True], [False, True, False]])
    chosen = where(mask, far, clean)
    for name, image in clean.items():
        assert torch.equal(chosen[name], image + mask[..., None, None, None])
