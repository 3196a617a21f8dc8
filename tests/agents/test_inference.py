"""Tests of `agents.inference`."""

from __future__ import annotations

import pytest
import torch

from agents.inference import InferencePolicy
from perception import ENCODERS, MEMORIES
from tests.agents.synthetic import IMAGE, VECTOR, assert_same, make_draws, make_obs, make_policy
from tests.agents.synthetic import weights as weights_of

SPECS = {"screen": IMAGE, "variables": VECTOR}
STEPS, NUM_ENVS = 12, 5


def make(memory="none", precision=torch.float32, specs=SPECS):
    policy = make_policy(specs=specs, memory=memory, normalize_obs=True, precision=precision)
    policy.observe(make_obs(specs, STEPS, NUM_ENVS, seed=1))
    return policy


def change(policy):
    """Change weights and statistics, as an update does."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    policy.observe(make_obs(policy.specs, STEPS, NUM_ENVS, seed=3))


def decide(player, policy):
    """Act for some steps, in which an episode ends, and return all decisions, stacked by step."""
    obs = make_obs(policy.specs, STEPS, NUM_ENVS)
    draws = make_draws(policy.action_space, STEPS, NUM_ENVS)
    starts = torch.zeros(STEPS, NUM_ENVS, dtype=torch.bool)
    starts[0], starts[5, 2] = True, True
    state = player.initial_state(NUM_ENVS)
    decisions, values = [], []
    for t in range(STEPS):
        now = {name: part[t] for name, part in obs.items()}
        values.append(player.value(now, state, starts[t]))
        decisions.append(player.act(now, state, starts[t], draws[t]))
        state = decisions[-1].memory_state
    names = decisions[0]._fields
    decided = {name: torch.stack([getattr(d, name) for d in decisions]) for name in names}
    return decided | {"value": torch.stack(values)}


@pytest.mark.parametrize("memory", MEMORIES)
def test_weights_and_statistics_are_copied_by_take_weights_only(memory):
    policy = make(memory)
    player = InferencePolicy(policy)
    before = decide(policy, policy)
    assert_same(decide(player, policy), before)
    change(policy)
    after = decide(policy, policy)
    assert not torch.equal(after["values"], before["values"])
    assert_same(decide(player, policy), before)
    player.take_weights()
    assert_same(decide(player, policy), after)


def test_statistics_are_copied_if_weights_stay_the_same():
    policy = make(specs={"obs": VECTOR})
    player = InferencePolicy(policy)
    policy.observe({"obs": 5.0 + make_obs(policy.specs, STEPS, NUM_ENVS)["obs"]})
    assert not torch.equal(decide(player, policy)["values"], decide(policy, policy)["values"])
    player.take_weights()
    assert_same(decide(player, policy), decide(policy, policy))


def test_loaded_weights_are_copied():
    policy, other = make(), make()
    change(other)
    player = InferencePolicy(policy)
    policy.load_state_dict(other.state_dict())
    player.take_weights()
    assert_same(decide(player, policy), decide(other, other))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("memory", MEMORIES)
def test_a_bfloat16_copy_decides_like_its_policy_or_nearly(encoder, memory):
    exact_policy = make_policy(specs=SPECS, memory=memory, encoder=encoder)
    change(exact_policy)
    change(exact_policy)
    exact = decide(exact_policy, exact_policy)
    policy = make_policy(specs=SPECS, memory=memory, encoder=encoder, precision=torch.bfloat16)
    change(policy)
    player = InferencePolicy(policy)
    change(policy)
    player.take_weights()
    theirs, ours = decide(policy, policy), decide(player, policy)
    assert not torch.equal(theirs["values"], exact["values"])
    if memory not in ("lstm", "gru"):  # Their products are arranged in another way in learning.
        assert_same(ours, theirs)
    for name in ("probabilities", "values", "value", "memory_state"):
        assert ours[name].dtype == torch.float32
        scale = float(theirs[name].abs().max()) if theirs[name].numel() else 1.0
        torch.testing.assert_close(ours[name], theirs[name], rtol=0.02, atol=0.02 * scale, msg=name)
    same = ours["actions"] == theirs["actions"]
    assert same.float().mean() > 0.9
    logprobs = ours["logprobs"][same], theirs["logprobs"][same]
    torch.testing.assert_close(*logprobs, rtol=0, atol=0.05)


@pytest.mark.parametrize("memory", MEMORIES)
def test_decisions_and_memory_state_are_float32(memory):
    policy = make(memory, torch.bfloat16)
    player = InferencePolicy(policy)
    state = player.initial_state(NUM_ENVS)
    assert state.dtype == torch.float32
    assert state.shape == policy.initial_state(NUM_ENVS).shape
    decided = decide(player, policy)
    for name in ("memory_state", "logprobs", "values", "probabilities"):
        assert decided[name].dtype == torch.float32, name


@pytest.mark.parametrize("memory", MEMORIES)
def test_without_images_nothing_is_rounded(memory):
    policy = make(memory, torch.bfloat16, specs={"obs": VECTOR})
    assert_same(decide(InferencePolicy(policy), policy), decide(policy, policy))


def test_the_policy_itself_is_not_changed():
    policy = make("lstm", torch.bfloat16)
    before = weights_of(policy)
    player = InferencePolicy(policy)
    player.take_weights()
    decide(player, policy)
    assert_same(weights_of(policy), before)
    assert policy.perception.precision == torch.bfloat16
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in policy.parameters())
    assert player.device == policy.device


def test_the_palette_is_copied():
    policy = make()
    player = InferencePolicy(policy)
    policy.perception.encoders["screen"].decoder.palette.mul_(0.5)
    assert not torch.equal(decide(player, policy)["values"], decide(policy, policy)["values"])
    player.take_weights()
    assert_same(decide(player, policy), decide(policy, policy))
