"""Tests of `deploy.pruning`."""

from __future__ import annotations

import itertools

import pytest
import torch

from deploy.errors import DeployError
from deploy.pruning import prune, strongest
from perception import ENCODERS, MEMORIES
from tests.agents.synthetic import IMAGE, VECTOR, make_obs, make_policy

SPECS = {"screen": IMAGE, "variables": VECTOR}
PRUNABLE = set(itertools.product(("nature", "mlp"), ("none", "lstm", "gru")))


def zeroed(policy, kept):
    """Set all weights of the channels that are not kept to zero, in a copy."""
    copied = make_policy(
        specs=policy.specs,
        encoder=policy.config.encoder_name,
        memory=policy.config.memory_name,
        normalize_obs=policy.normalize_obs,
    )
    state = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    for name, keep in kept.items():
        of_memory = name.startswith("perception.memory.")
        kind = "weight_ih" if of_memory else "weight"
        size = policy.config.memory.memory_size if of_memory else len(state[name])
        gone = torch.ones(size, dtype=torch.bool)
        gone[keep] = False
        same = [n for n in state if of_memory and n.startswith("perception.memory.")]
        for tensor in same or (name, name.removesuffix(kind) + "bias"):
            state[tensor][gone.repeat(len(state[tensor]) // size)] = 0.0
    copied.load_state_dict(state)
    return copied.eval()


@pytest.mark.parametrize(("encoder", "memory"), list(itertools.product(ENCODERS, MEMORIES)))
def test_what_is_left_computes_what_the_original_does_without_the_rest(encoder, memory):
    """All is computed with zeros in place of what was removed; other networks are refused."""
    policy = make_policy(specs=SPECS, encoder=encoder, memory=memory, normalize_obs=True)
    obs = make_obs(SPECS, 4, 3)
    policy.observe(obs)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    if (encoder, memory) not in PRUNABLE:
        with pytest.raises(DeployError, match="cannot be pruned") as error:
            prune(policy, 0.5)
        assert f"{encoder} " in str(error.value) or f"{memory} " in str(error.value)
        return
    smaller, kept = prune(policy, 0.5)
    for name, rows in kept.items():
        whole = 6 if "memory" in name else len(policy.state_dict()[name])
        assert len(rows) == whole // 2
    starts = torch.rand(4, 3) < 0.3
    with torch.no_grad():
        ours = smaller(obs, smaller.initial_state(3), starts)
        theirs = zeroed(policy, kept)(obs, policy.initial_state(3), starts)
        before = policy(obs, policy.initial_state(3), starts)
    torch.testing.assert_close(ours.values, theirs.values, rtol=0, atol=1e-5)
    probabilities = [o.distribution.probabilities() for o in (ours, theirs, before)]
    torch.testing.assert_close(*probabilities[:2], rtol=0, atol=1e-6)
    assert (probabilities[0] - probabilities[2]).abs().max() > 1e-4
    assert smaller.config != policy.config


def test_features_that_a_layer_norm_sees_are_kept():
    policy = make_policy(specs=SPECS, encoder="nature")
    config = policy.config.__class__(**{**vars(policy.config), "layer_norm": True})
    policy = type(policy)(SPECS, policy.action_space, config)
    smaller, _ = prune(policy, 0.5)
    assert smaller.config.encoder.features == config.encoder.features
    assert smaller.config.encoder.conv_channels == (2, 2, 2)


def test_the_smallest_filters_are_removed():
    weight = torch.tensor([[1.0, -5.0], [0.5, 0.5], [-3.0, 0.0], [0.0, 0.1]])
    assert strongest(weight, 0.5).tolist() == [0, 2]
    assert strongest(weight, 0.01).tolist() == [0]
