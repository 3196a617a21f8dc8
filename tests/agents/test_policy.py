"""Tests of `agents.policy`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.policy import observation_specs
from perception import ImageSpec, VectorSpec
from tests.agents.synthetic import IMAGE, VECTOR, make_draws, make_obs, make_policy
from tests.agents.toy import ACTION_SPACES

MEMORIES = ["none", "lstm", "gru"]


@pytest.mark.parametrize("memory", MEMORIES)
def test_judging_a_sequence_equals_acting_step_by_step(memory):
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
    distribution, values, after = policy(obs, first, starts)
    expected = torch.stack([decision.logprobs for decision in decisions])
    torch.testing.assert_close(distribution.log_prob(actions), expected, rtol=1e-4, atol=1e-5)
    expected = torch.stack([decision.values for decision in decisions])
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
    expected = torch.stack([decision.probabilities for decision in decisions])
    torch.testing.assert_close(distribution.probabilities(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after, state, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("actions", ACTION_SPACES)
@pytest.mark.parametrize("memory", MEMORIES)
def test_decisions_have_the_shapes_promised(actions, memory):
    space = ACTION_SPACES[actions]
    policy = make_policy(actions=space, memory=memory)
    state = policy.initial_state(5)
    starts = torch.ones(5, dtype=torch.bool)
    decision = policy.act(make_obs(policy.specs, 5), state, starts, make_draws(space, 5))
    assert decision.actions.shape == (5, *(space.shape or ()))
    assert decision.logprobs.shape == decision.values.shape == (5,)
    assert decision.memory_state.shape == state.shape
    assert not decision.values.requires_grad


def test_greedy_decisions_are_the_most_likely_and_drawn_ones_repeat_with_the_draws():
    policy = make_policy()
    obs, state = make_obs(policy.specs, 200), policy.initial_state(200)
    starts = torch.ones(200, dtype=torch.bool)
    greedy = policy.act(obs, state, starts, None)
    assert torch.equal(greedy.actions, greedy.probabilities.argmax(-1))

    def draw(seed):
        return policy.act(
            obs, state, starts, make_draws(policy.action_space, 200, seed=seed)
        ).actions

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_observed_statistics_normalise_screens_and_vectors():
    policy = make_policy(specs={"screen": IMAGE, "vector": VECTOR}, normalize_obs=True)
    obs = make_obs(policy.specs, 50, 4)
    obs["vector"] = 100.0 + 7.0 * obs["vector"]
    obs["screen"] //= 3
    starts = torch.ones(50, 4, dtype=torch.bool)
    before = policy(obs, policy.initial_state(4), starts)[1]
    policy.observe(obs)
    normal = policy.perception.normalizers["vector"](obs["vector"]).flatten(0, 1)
    torch.testing.assert_close(normal.mean(0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(normal.std(0), torch.ones(3), rtol=0, atol=0.01)
    pixels = policy.perception.encoders["screen"][0].seen["others"]
    assert pixels.count == 50 * 4 * 36 * 40
    assert float(pixels.mean) == pytest.approx(float(obs["screen"][..., 1].double().mean()) / 255)
    after = policy(obs, policy.initial_state(4), starts)[1]
    assert not torch.allclose(after, before)
    # It sees what an unnormalised policy of the same weights sees in normalised vectors.
    plain = make_policy(specs={"vector": VECTOR})
    vectors = make_policy(specs={"vector": VECTOR}, normalize_obs=True)
    vectors.observe({"vector": obs["vector"]})
    _, values, _ = vectors({"vector": obs["vector"]}, vectors.initial_state(4), starts)
    seen = {"vector": vectors.perception.normalizers["vector"](obs["vector"])}
    _, expected, _ = plain(seen, plain.initial_state(4), starts)
    assert torch.equal(values, expected)


def test_a_dictionary_of_images_and_vectors_is_described():
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


def test_a_plain_box_is_described_as_obs():
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
def test_other_observations_are_refused_with_those_that_work(space):
    with pytest.raises(ValueError, match=r"not supported; \(H, W, C\) uint8 images and \(D,\)"):
        observation_specs(space, {})


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_initial_state_is_where_the_policy_is(memory):
    for device in ("cpu", "meta"):
        policy = make_policy(memory=memory).to(device)
        state = policy.initial_state(3)
        assert state.device == policy.device == torch.device(device)
        assert state.shape[1] == 3
