"""Tests of `evaluation.explain.attribution` and `evaluation.explain.pixels`."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces

from evaluation.errors import EvaluationError
from evaluation.explain.attribution import (
    ATTENTION,
    METHODS,
    UNSIGNED,
    attributed,
    integrated_gradients,
    methods_of,
    occlusion,
    patches_of,
)
from evaluation.explain.pixels import PixelPolicy, States, blurred
from perception import ENCODERS, MEMORIES, ImageSpec
from tests.agents.synthetic import IMAGE, VECTOR, make_obs, make_policy, side_by_side

SPECS = {"screen": IMAGE, "variables": VECTOR}


def states_of(policy, pixels, count=3):
    """Return states in which the memory is not empty."""
    obs = make_obs(policy.specs, count)
    state = torch.randn(policy.initial_state(count).shape)
    return States(
        images=pixels.decode(obs[pixels.part].numpy()),
        others={name: part for name, part in obs.items() if name != pixels.part},
        memory_states=state.transpose(0, 1),
        starts=torch.zeros(count, dtype=torch.bool),
        actions=torch.arange(count) % 3,
    ), {"obs": obs, "state": state}


def images_alone(*shape):
    count = shape[0]
    return States(
        images=torch.rand(shape),
        others={},
        memory_states=torch.zeros(count, 0, 0),
        starts=torch.zeros(count, dtype=torch.bool),
        actions=torch.zeros(count, dtype=torch.int64),
    )


@pytest.mark.parametrize(("encoder", "memory"), side_by_side(ENCODERS, MEMORIES))
def test_decoded_images_give_what_the_policy_computes(encoder, memory):
    policy = make_policy(specs=SPECS, encoder=encoder, memory=memory, normalize_obs=True)
    pixels = PixelPolicy(policy)
    states, given = states_of(policy, pixels)
    with torch.no_grad():
        obs = {name: part[None] for name, part in given["obs"].items()}
        output = policy(obs, given["state"], states.starts[None])
        logprobs = output.distribution.log_prob(states.actions[None])[0]
        torch.testing.assert_close(pixels.score(states, "value"), output.values[0])
        torch.testing.assert_close(pixels.score(states, "action"), logprobs)
    # Every method applies, and one whose encoder has attention has maps of it.
    methods = methods_of(pixels)
    assert (ATTENTION in methods) == (encoder == "attention")
    for name in ("gradient", *({ATTENTION} & methods.keys())):
        maps = attributed(pixels, states, methods[name], "action")
        assert maps.shape == (3, *IMAGE.shape[:2])
        assert torch.isfinite(maps).all()
        assert maps.abs().sum() > 0


@pytest.mark.parametrize("name", METHODS)
def test_all_methods_equal_the_closed_form_of_a_linear_function(name):
    if name == "integrated_gradients":
        pytest.importorskip("captum")
    states = images_alone(2, 3, 16, 20)
    weight = torch.randn(3, 16, 20)
    maps = METHODS[name](lambda s: (s.images * weight).sum((1, 2, 3)) + 5.0, states)
    exact = (weight * (states.images - blurred(states.images))).sum(1)
    if name in UNSIGNED:
        exact = weight.abs().sum(0).expand(2, -1, -1)
    elif name == "occlusion":
        patches = patches_of(16, 20)
        falls = torch.einsum("bhw,khw->bk", exact, patches)
        exact = torch.einsum("bk,khw->bhw", falls, patches) / patches.sum(0)
    torch.testing.assert_close(maps, exact, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("target", ["action", "value"])
def test_integrated_gradients_are_complete(target):
    pytest.importorskip("captum")
    policy = make_policy(specs=SPECS, memory="lstm")
    pixels = PixelPolicy(policy)
    states, _ = states_of(policy, pixels)
    maps = attributed(pixels, states, integrated_gradients, target)
    blurry = states.with_images(blurred(states.images))
    difference = pixels.score(states, target) - pixels.score(blurry, target)
    torch.testing.assert_close(maps.sum((1, 2)), difference, rtol=0.02, atol=2e-3)


def test_occlusion_equals_a_slow_plain_twin():
    policy = make_policy(specs={"obs": ImageSpec(shape=(36, 40, 1))})
    pixels = PixelPolicy(policy)
    states, _ = states_of(policy, pixels, 2)
    with torch.no_grad():
        maps = occlusion(lambda s: pixels.score(s, "value"), states)
        blurry = blurred(states.images)
        size, stride = 4, 2  # An eighth of the height is 4.5 pixels.
        total, times = torch.zeros(2, 36, 40), torch.zeros(36, 40)
        for row in range(0, 36 - size + 1, stride):
            for column in range(0, 40 - size + 1, stride):
                where = (slice(row, row + size), slice(column, column + size))
                images = states.images.clone()
                images[(..., *where)] = blurry[(..., *where)]
                fall = pixels.score(states, "value") - pixels.score(
                    states.with_images(images), "value"
                )
                total[(..., *where)] += fall[:, None, None]
                times[where] += 1
    torch.testing.assert_close(maps, total / times, rtol=1e-3, atol=1e-6)


def test_a_blur_keeps_the_brightness_and_removes_a_dot():
    images = torch.full((1, 1, 40, 40), 0.25)
    torch.testing.assert_close(blurred(images), images)
    images[0, 0, 20, 20] = 1.0
    assert blurred(images).max() < 0.26


def test_a_policy_without_an_image_is_refused():
    with pytest.raises(EvaluationError, match="observes no image"):
        PixelPolicy(make_policy(actions=spaces.Discrete(3)))
