"""Tests of `agents.rollout`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rollout import Rollout, minibatches


def numbered(steps, num_envs):
    """Make a rollout whose every field tells step and environment: 100 t + n."""
    number = 100.0 * torch.arange(steps)[:, None] + torch.arange(num_envs)
    return Rollout(
        obs={"screen": number[..., None, None, None].byte(), "vector": number[..., None] + 0.1},
        actions=torch.stack((number, -number), -1).long(),
        logprobs=number + 0.2,
        values=number + 0.3,
        probabilities=number[..., None] + 0.35,
        rewards=number + 0.4,
        terminated=torch.zeros(steps, num_envs, dtype=torch.bool),
        truncated=torch.zeros(steps, num_envs, dtype=torch.bool),
        final_values=number + 0.5,
        episode_starts=number % 3 == 0,
        memory_state=torch.arange(num_envs).float()[None, :, None].expand(2, -1, 4),
        last_values=torch.zeros(num_envs),
    )


def go_through(rollout, size, *, recurrent):
    whole = rollout.rewards
    return list(
        minibatches(rollout, whole + 1.0, whole + 2.0, minibatch_size=size, recurrent=recurrent)
    )


def assert_fields_belong_together(batch):
    number = (batch.logprobs - 0.2).round()
    torch.testing.assert_close(batch.obs["vector"][..., 0], number + 0.1)
    assert torch.equal(batch.obs["screen"][..., 0, 0, 0], number.byte())
    assert torch.equal(batch.actions, torch.stack((number, -number), -1).long())
    torch.testing.assert_close(batch.values, number + 0.3)
    torch.testing.assert_close(batch.advantages, number + 1.4)
    torch.testing.assert_close(batch.returns, number + 2.4)
    assert torch.equal(batch.episode_starts, number % 3 == 0)
    return number.long()


@settings(max_examples=40, deadline=None)
@given(steps=st.integers(1, 7), num_envs=st.integers(1, 5), size=st.integers(1, 50))
def test_without_memory_every_transition_is_visited_exactly_once(steps, num_envs, size):
    batches = go_through(numbered(steps, num_envs), size, recurrent=False)
    seen = []
    for batch in batches:
        number = assert_fields_belong_together(batch)
        assert number.shape[0] == 1
        assert number.shape[1] <= size
        assert batch.memory_state.shape[1] == 0
        seen += number.flatten().tolist()
    assert sorted(seen) == sorted(100 * t + n for t in range(steps) for n in range(num_envs))
    assert len(batches) == -(-steps * num_envs // size)


@settings(max_examples=40, deadline=None)
@given(steps=st.integers(1, 7), num_envs=st.integers(1, 5), size=st.integers(1, 50))
def test_with_memory_every_sequence_is_visited_exactly_once_and_whole(steps, num_envs, size):
    batches = go_through(numbered(steps, num_envs), size, recurrent=True)
    seen = []
    for batch in batches:
        number = assert_fields_belong_together(batch)
        lanes = number[0]
        assert torch.equal(number, 100 * torch.arange(steps)[:, None] + lanes)
        assert len(lanes) <= max(1, size // steps)
        assert torch.equal(batch.memory_state[0, :, 0], lanes.float())
        assert batch.memory_state.shape == (2, len(lanes), 4)
        seen += lanes.tolist()
    assert sorted(seen) == list(range(num_envs))


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_order_is_new_each_time_and_repeats_with_the_seed(recurrent):
    rollout = numbered(4, 16)

    def order(seed):
        torch.manual_seed(seed)
        batches = go_through(rollout, 8, recurrent=recurrent)
        return torch.cat([batch.logprobs.flatten() for batch in batches]).tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_dones_are_both_kinds_of_ends():
    flags = torch.tensor([[False, True]]), torch.tensor([[True, False]])
    rollout = numbered(1, 2)
    fields = vars(rollout) | {"terminated": flags[0], "truncated": flags[1]}
    assert Rollout(**fields).dones.tolist() == [[True, True]]
    assert rollout.dones.tolist() == [[False, False]]
