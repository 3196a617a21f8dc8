"""Tests of `agents.rollout`."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from agents.rollout import Rollout, minibatches

OBS = ("obs", "last_obs", "final_obs")


def numbered(steps, num_envs):
    """Return a rollout in which every number depends on step and environment: 100 t + n."""
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
        targets={"HEALTH": number + 0.6},
    )


def all_minibatches(rollout, size, *, length):
    whole = rollout.rewards
    return list(minibatches(rollout, whole + 1.0, whole + 2.0, minibatch_size=size, length=length))


def assert_fields_belong_together(batch):
    number = (batch.logprobs - 0.2).round()
    torch.testing.assert_close(batch.obs["vector"][..., 0], number + 0.1)
    assert torch.equal(batch.obs["screen"][..., 0, 0, 0], number.byte())
    assert torch.equal(batch.actions, torch.stack((number, -number), -1).long())
    torch.testing.assert_close(batch.values, number + 0.3)
    torch.testing.assert_close(batch.advantages, number + 1.4)
    torch.testing.assert_close(batch.returns, number + 2.4)
    assert torch.equal(batch.episode_starts, number % 3 == 0)
    torch.testing.assert_close(batch.targets["HEALTH"], number + 0.6)
    return number.long()


@settings(max_examples=40, deadline=None)
@given(steps=st.integers(1, 7), num_envs=st.integers(1, 5), size=st.integers(1, 50))
def test_without_memory_every_step_is_in_exactly_one_minibatch(steps, num_envs, size):
    batches = all_minibatches(numbered(steps, num_envs), size, length=1)
    seen = []
    for batch in batches:
        number = assert_fields_belong_together(batch)
        assert number.shape[0] == 1
        assert number.shape[1] <= size
        assert batch.memory_state.shape[1] == (0 if steps > 1 else number.shape[1])
        seen += number.flatten().tolist()
    assert sorted(seen) == sorted(100 * t + n for t in range(steps) for n in range(num_envs))
    assert len(batches) == -(-steps * num_envs // size)


@settings(max_examples=40, deadline=None)
@given(steps=st.integers(1, 7), num_envs=st.integers(1, 5), size=st.integers(1, 50))
def test_with_memory_every_sequence_is_whole_and_in_exactly_one_minibatch(steps, num_envs, size):
    batches = all_minibatches(numbered(steps, num_envs), size, length=steps)
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


@pytest.mark.parametrize(("steps", "length"), [(6, 2), (6, 3), (4, 4)])
def test_sequences_are_steps_in_a_row(steps, length):
    batches = all_minibatches(numbered(steps, 5), 3 * length, length=length)
    seen = []
    for batch in batches:
        number = assert_fields_belong_together(batch)
        assert number.shape[0] == length
        assert number.shape[1] <= 3
        assert torch.equal(number, number[0] + 100 * torch.arange(length)[:, None])
        assert (number[0] // 100 % length == 0).all()
        seen += number.flatten().tolist()
    assert sorted(seen) == sorted(100 * t + n for t in range(steps) for n in range(5))


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("num_parts", [1, 2, 3, 7])
def test_the_parts_of_a_minibatch_are_disjoint_and_complete(num_parts, length):
    (batch,) = all_minibatches(numbered(2, 5), 10, length=length)
    num_envs = batch.actions.shape[1]
    parts = batch.split(num_parts)
    assert len(parts) <= num_parts
    sizes = [part.actions.shape[1] for part in parts]
    assert sum(sizes) == num_envs
    assert min(sizes) > 0
    assert max(sizes) <= -(-num_envs // num_parts)
    numbers = torch.cat([assert_fields_belong_together(part) for part in parts], 1)
    assert torch.equal(numbers, (batch.logprobs - 0.2).round().long())
    for part, size in zip(parts, sizes, strict=True):
        assert part.memory_state.shape[1] == (size if length == 2 else 0)
    states = torch.cat([part.memory_state for part in parts], 1)
    assert torch.equal(states, batch.memory_state)


@pytest.mark.parametrize("length", [1, 2])
def test_the_order_changes_each_time_and_repeats_with_the_seed(length):
    rollout = numbered(4, 16)

    def order(seed):
        torch.manual_seed(seed)
        batches = all_minibatches(rollout, 8, length=length)
        return torch.cat([batch.logprobs.flatten() for batch in batches]).tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_dones_are_both_kinds_of_ends():
    flags = torch.tensor([[False, True]]), torch.tensor([[True, False]])
    rollout = numbered(1, 2)
    fields = vars(rollout) | {"terminated": flags[0], "truncated": flags[1]}
    assert Rollout(**fields).dones.tolist() == [[True, True]]
    assert rollout.dones.tolist() == [[False, False]]


def with_last_obs(steps, num_envs, num_truncated):
    rollout = numbered(steps, num_envs)
    parts = rollout.obs.items()
    lanes = torch.zeros(num_truncated, dtype=torch.long)
    return replace(
        rollout,
        last_obs={name: part[-1].clone() for name, part in parts},
        last_starts=torch.zeros(num_envs, dtype=torch.bool),
        final_obs={name: part[0, lanes] for name, part in parts},
        final_steps=lanes,
        final_lanes=lanes,
    )


OPTIONAL = {"last_obs", "last_starts", "final_obs", "final_steps", "final_lanes"}


def test_tensors_are_returned_by_name_without_those_that_are_none():
    without, rollout = numbered(3, 2), with_last_obs(3, 2, 1)
    names = {f.name for f in fields(Rollout)} - OPTIONAL - {"obs", "targets"}
    names |= {"targets/HEALTH"}
    assert without.tensors().keys() == names | {"obs/screen", "obs/vector"}
    names |= OPTIONAL - {"last_obs", "final_obs"}
    names |= {f"{obs}/{part}" for obs in OBS for part in ("screen", "vector")}
    assert rollout.tensors().keys() == names
    assert rollout.tensors()["final_obs/vector"] is rollout.final_obs["vector"]


@pytest.mark.parametrize("missing", sorted(OPTIONAL))
def test_fields_of_last_observations_must_be_given_together(missing):
    with pytest.raises(ValueError, match=rf"must be given together; missing: \['{missing}'\]$"):
        replace(with_last_obs(3, 2, 1), **{missing: None})


@pytest.mark.parametrize("obs", OBS)
def test_the_first_tensor_that_is_not_finite_is_named(obs):
    rollout = with_last_obs(3, 2, 1)
    assert rollout.first_not_finite() is None
    getattr(rollout, obs)["vector"][0] = torch.nan
    assert rollout.first_not_finite() == f"{obs}/vector"


def test_a_rollout_without_truncated_episodes_can_be_saved_and_loaded(tmp_path):
    rollout = with_last_obs(3, 2, 0)
    assert rollout.first_not_finite() is None
    tensors = {name: tensor.contiguous() for name, tensor in rollout.tensors().items()}
    save_file(tensors, tmp_path / "rollout")
    read = load_file(tmp_path / "rollout")
    assert read.keys() == rollout.tensors().keys()
    assert read["final_obs/screen"].shape == (0, 1, 1, 1)
