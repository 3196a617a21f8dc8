"""Tests of `agents.policy`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.policy import observation_specs
from perception import MEMORIES, ImageSpec, VectorSpec
from tests.agents.synthetic import IMAGE, VECTOR, make_draws, make_obs, make_policy
from tests.agents.toy import ACTION_SPACES


@pytest.mark.parametrize("memory", MEMORIES)
def test_evaluating_a_sequence_equals_acting_step_by_step(memory):
    policy = make_policy(memory=memory)
    obs = make_obs(policy.specs, 9, 4)
    torch.manual_seed(1)
    starts = torch.rand(9, 4) < 0.3
    first = state = torch.randn_like(policy.initial_state(4))
    draws = make_draws(policy.action_space, 9, 4)
    decisions = []
    for t in range(9):
        decision = policy.act({"obs": obs["obs"][t]}, state, starts[t], draws[t])
        value = policy.value({"obs": obs["obs"][t]}, state, starts[t])
        torch.testing.assert_close(value, decision.values)
        state = decision.memory_state
        decisions.append(decision)
    actions = torch.stack([decision.actions for decision in decisions])
    output = policy(obs, first, starts)
    distribution = output.distribution
    expected = torch.stack([decision.logprobs for decision in decisions])
    torch.testing.assert_close(distribution.log_prob(actions), expected, rtol=1e-4, atol=1e-5)
    expected = torch.stack([decision.values for decision in decisions])
    torch.testing.assert_close(output.values, expected, rtol=1e-4, atol=1e-5)
    expected = torch.stack([decision.probabilities for decision in decisions])
    torch.testing.assert_close(distribution.probabilities(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.memory_state, state, rtol=1e-4, atol=1e-5)
    # Distributions and values are computed from the features that are returned.
    assert torch.equal(policy.critic(output.features).squeeze(-1), output.values)
    from_features = policy.actor(output.features).probabilities()
    assert torch.equal(from_features, distribution.probabilities())


@pytest.mark.parametrize("actions", ACTION_SPACES)
@pytest.mark.parametrize("memory", MEMORIES)
def test_decisions_have_the_documented_shapes(actions, memory):
    space = ACTION_SPACES[actions]
    policy = make_policy(actions=space, memory=memory)
    state = policy.initial_state(5)
    starts = torch.ones(5, dtype=torch.bool)
    decision = policy.act(make_obs(policy.specs, 5), state, starts, make_draws(space, 5))
    assert decision.actions.shape == (5, *(space.shape or ()))
    assert decision.logprobs.shape == decision.values.shape == (5,)
    assert decision.memory_state.shape == state.shape
    assert not decision.values.requires_grad


def test_greedy_actions_are_the_most_likely_and_sampled_actions_repeat_with_the_draws():
    policy = make_policy()
    obs, state = make_obs(policy.specs, 200), policy.initial_state(200)
    starts = torch.ones(200, dtype=torch.bool)
    greedy = policy.act(obs, state, starts, None)
    assert torch.equal(greedy.actions, greedy.probabilities.argmax(-1))

    def sampled(seed):
        return policy.act(
            obs, state, starts, make_draws(policy.action_space, 200, seed=seed)
        ).actions

    assert torch.equal(sampled(0), sampled(0))
    assert not torch.equal(sampled(0), sampled(1))


def test_observed_statistics_normalise_screens_and_vectors():
    policy = make_policy(specs={"screen": IMAGE, "vector": VECTOR}, normalize_obs=True)
    obs = make_obs(policy.specs, 50, 4)
    obs["vector"] = 100.0 + 7.0 * obs["vector"]
    obs["screen"] //= 3
    starts = torch.ones(50, 4, dtype=torch.bool)
    before = policy(obs, policy.initial_state(4), starts).values
    policy.observe(obs)
    normal = policy.perception.encoders["vector"].normalizer(obs["vector"]).flatten(0, 1)
    torch.testing.assert_close(normal.mean(0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(normal.std(0), torch.ones(3), rtol=0, atol=0.01)
    pixels = policy.perception.encoders["screen"].decoder.seen["others"]
    assert pixels.count == 50 * 4 * 36 * 40
    assert float(pixels.mean) == pytest.approx(float(obs["screen"][..., 1].double().mean()) / 255)
    after = policy(obs, policy.initial_state(4), starts).values
    assert not torch.allclose(after, before)
    # The same as without normalisation and with the same weights on normalised vectors.
    plain = make_policy(specs={"vector": VECTOR})
    vectors = make_policy(specs={"vector": VECTOR}, normalize_obs=True)
    vectors.observe({"vector": obs["vector"]})
    output = vectors({"vector": obs["vector"]}, vectors.initial_state(4), starts)
    normalized = {"vector": vectors.perception.encoders["vector"].normalizer(obs["vector"])}
    expected = plain(normalized, plain.initial_state(4), starts)
    assert torch.equal(output.values, expected.values)


def test_a_dictionary_of_images_and_vectors_has_a_spec_for_each():
    space = spaces.Dict(
        screen=spaces.Box(0, 255, (60, 80, 2), np.uint8),
        variables=spaces.Box(-np.inf, np.inf, (3,), np.float32),
    )
    palette = np.arange(768).reshape(256, 3) % 256
    specs = observation_specs(space, {"channels": ("palette", "depth"), "palette": palette})
    expected = ImageSpec(
        shape=(60, 80, 2),
        channels=("palette", "depth"),
        palette=tuple(tuple(row) for row in palette.tolist()),
    )
    assert specs == {"screen": expected, "variables": VectorSpec(size=3)}


def test_a_box_is_the_part_obs():
    assert observation_specs(spaces.Box(-1, 1, (4,), np.float32), {}) == {"obs": VectorSpec(size=4)}
    image = observation_specs(spaces.Box(0, 255, (84, 84, 4), np.uint8), {})
    assert image == {"obs": ImageSpec(shape=(84, 84, 4))}


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 1, (84, 84, 3), np.float32),
        spaces.Box(0, 255, (84, 84), np.uint8),
        spaces.Box(-1, 1, (4,), np.float64),
        spaces.Discrete(3),
        spaces.Dict(a=spaces.Discrete(3)),
    ],
    ids=["float image", "flat image", "double vector", "choice", "nested choice"],
)
def test_the_error_for_other_observations_names_the_supported_ones(space):
    with pytest.raises(ValueError, match=r"not supported; \(H, W, C\) uint8 images and \(D,\)"):
        observation_specs(space, {})


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_initial_state_is_on_the_device_of_the_policy(memory):
    for device in ("cpu", "meta"):
        policy = make_policy(memory=memory).to(device)
        state = policy.initial_state(3)
        assert state.device == policy.device == torch.device(device)
        assert state.shape[1] == 3
