"""Structured pruning: channels and units are removed, so that a smaller network is left.

Filters and units with the smallest L1 norm of their weights are removed, layer by layer (Li et al.
2017, "Pruning Filters for Efficient ConvNets", section 3.1). What is left computes exactly what the
original computes with the removed channels set to zero.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from agents.policy import Policy
from deploy.errors import DeployError
from perception.encoders import MLPConfig, NatureConfig, VectorConfig
from perception.memory import GRUConfig, LSTMConfig, NoMemoryConfig
from perception.perception import ImageEncoder, VectorEncoder
from storage.policy_file import check_can_be_read

_GATES: dict[type[Any], int] = {LSTMConfig: 4, GRUConfig: 3}
Kept = Tensor
"""Indices of the channels or units of a layer that are kept, int64, ascending."""


def prune(policy: Policy, share: float) -> tuple[Policy, dict[str, Kept]]:
    """Return a smaller policy in which the same share of each layer's channels is kept.

    Args:
        policy: the policy; it is not changed.
        share: of the channels and units of each layer that are kept, in (0, 1].

    Returns:
        The smaller policy, and what is kept of each layer, by the name of its weight.

    Raises:
        DeployError: If its encoder or memory cannot be pruned.
    """
    check_prunable(policy)
    kept: dict[str, Kept] = {}
    state = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    perception, config = policy.perception, policy.config
    inputs, offset, changes = [], 0, {}
    for name, module in perception.encoders.items():
        assert isinstance(module, (ImageEncoder, VectorEncoder))
        prefix = f"perception.encoders.{name}.encoder.layers."
        # A LayerNorm computes from all features, so that none of them can be missing.
        whole = name in perception.norms
        layers = module.encoder.layers
        assert isinstance(layers, nn.Sequential)
        features, widths = _prune_chain(layers, prefix, state, share, kept, keeps_last=whole)
        part = "encoder" if isinstance(module, ImageEncoder) else "vectors"
        changes[part] = _with_widths(getattr(config, part), widths)
        features = torch.arange(module.num_features) if features is None else features
        inputs.append(features + offset)
        offset += module.num_features
    joined = torch.cat(inputs)
    if type(config.memory) in _GATES:
        joined = _prune_memory(config.memory, state, joined, share, kept)
        changes["memory"] = replace(config.memory, memory_size=len(joined))
    for head in ("actor.layer.weight", "critic.weight"):
        state[head] = state[head][:, joined]
    smaller = Policy(
        policy.specs, policy.action_space, replace(config, **changes), policy.normalize_obs
    )
    check_can_be_read(smaller)
    smaller.load_state_dict(state)
    return smaller.eval(), kept


def check_prunable(policy: Policy) -> None:
    """Check that the channels of a policy's layers can be removed.

    Raises:
        DeployError: If they cannot.
    """
    config = policy.config
    encoders = (NatureConfig, MLPConfig)
    if policy.perception.image_names and type(config.encoder) not in encoders:
        raise DeployError(
            f"the encoder {config.encoder_name} adds or mixes channels of several layers, which "
            "cannot be pruned one by one; nature and mlp can"
        )
    for name, encoder in policy.perception.encoders.items():
        if not isinstance(encoder, (ImageEncoder, VectorEncoder)):
            raise DeployError(
                f"the encoder of {name} cannot be pruned; those of images and vectors can"
            )
    if type(config.memory) not in (NoMemoryConfig, *_GATES):
        raise DeployError(
            f"the memory {config.memory_name} cannot be pruned; none, lstm and gru can"
        )


def _prune_chain(
    layers: nn.Sequential,
    prefix: str,
    state: dict[str, Tensor],
    share: float,
    kept: dict[str, Kept],
    *,
    keeps_last: bool,
) -> tuple[Kept | None, list[int]]:
    """Prune layers of which each sees only the one before it.

    Args:
        layers: convolutions and linear layers, with what acts on each number alone between them.
        prefix: of their names in the state.
        state: tensors of the policy, which are replaced by smaller ones.
        share: see `prune`.
        kept: see `prune`.
        keeps_last: whether all outputs of the last layer are kept.

    Returns:
        What is kept of the last layer, None if there is none; and the widths of the layers.
    """
    names = [str(n) for n, layer in enumerate(layers) if isinstance(layer, (nn.Conv2d, nn.Linear))]
    before: Kept | None = None
    num_before, widths = 0, []
    for name in names:
        weight = state[f"{prefix}{name}.weight"]
        if before is not None:
            if weight.dim() == 2 and weight.shape[1] != num_before:
                # After flattening, each channel is a block of consecutive numbers.
                block = weight.shape[1] // num_before
                before = (before[:, None] * block + torch.arange(block)).flatten()
            weight = weight[:, before]
        num_before = len(weight)
        before = torch.arange(num_before)
        if not (keeps_last and name == names[-1]):
            before = strongest(weight, share)
        kept[f"{prefix}{name}.weight"] = before
        state[f"{prefix}{name}.weight"] = weight[before]
        state[f"{prefix}{name}.bias"] = state[f"{prefix}{name}.bias"][before]
        widths.append(len(before))
    return before, widths


def strongest(weight: Tensor, share: float) -> Kept:
    """Return the rows of a weight, (O, ...), whose L1 norm is largest: a share of them."""
    number = max(1, round(share * len(weight)))
    norms = weight.abs().flatten(1).sum(1)
    return norms.topk(number).indices.sort().values


def _prune_memory(
    config: Any, state: dict[str, Tensor], inputs: Kept, share: float, kept: dict[str, Kept]
) -> Kept:
    """Prune the inputs and the units of an LSTM or a GRU, and return the units that are kept.

    A unit is as strong as its rows of all gates together.
    """
    gates, prefix = _GATES[type(config)], "perception.memory."
    names = [name for name in state if name.startswith(prefix)]
    of_inputs = next(name for name in names if "weight_ih" in name)
    of_state = of_inputs.replace("weight_ih", "weight_hh")
    state[of_inputs] = state[of_inputs][:, inputs]
    both = torch.cat((state[of_inputs], state[of_state]), 1)
    by_unit = both.unflatten(0, (gates, -1)).transpose(0, 1)  # (M, G, ...)
    units = strongest(by_unit, share)
    kept[of_inputs] = units
    rows = (torch.arange(gates)[:, None] * config.memory_size + units).flatten()
    for name in names:
        state[name] = state[name][rows]
    state[of_state] = state[of_state][:, units]
    return units


def _with_widths(config: Any, widths: list[int]) -> Any:
    """Return the configuration of an encoder with other widths, in the order of its layers."""
    if isinstance(config, NatureConfig):
        first, second, third, features = widths
        return replace(config, conv_channels=(first, second, third), features=features)
    if isinstance(config, MLPConfig):
        return replace(config, mlp_sizes=tuple(widths))
    assert isinstance(config, VectorConfig)
    return replace(config, hidden_sizes=tuple(widths))
