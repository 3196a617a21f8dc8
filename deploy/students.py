"""Students: networks of the same kind as a teacher, with a share of its parameters."""

from __future__ import annotations

import functools
import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from agents.policy import Policy
from deploy.errors import DeployError
from perception import PerceptionConfig

WIDTHS: dict[str, int | str] = {
    "conv_channels": 1,
    "impala_channels": 1,
    "stem_channels": 1,
    "mlp_sizes": 1,
    "hidden_sizes": 1,
    "sound_features": 1,
    "text_features": 1,
    "embedding_size": 1,
    "features": 1,
    "token_size": "token_heads",
    "memory_size": "memory_heads",
}
"""The fields of configurations that are widths, and what they must be multiples of."""

_HALVINGS = 12  # Finer than any width.


def num_parameters(policy: Policy) -> int:
    """Return the number of trained parameters."""
    return sum(parameter.numel() for parameter in policy.parameters())


def student_config(policy: Policy, share: float) -> PerceptionConfig[Any, Any]:
    """Return the configuration of the widest network with at most a share of the parameters.

    All widths are scaled by the same factor; the number of layers, strides and heads stay.

    Args:
        policy: the teacher.
        share: of its parameters, in (0, 1).

    Raises:
        DeployError: If even the narrowest network has more.
    """
    budget = share * num_parameters(policy)
    count = functools.cache(lambda factor: num_parameters(_described(policy, factor)))
    low, high = 0.0, 1.0
    if count(low) > budget:
        raise DeployError(
            f"no network like this one has at most {int(budget):,} parameters: with the encoder "
            f"{policy.config.encoder_name} and the memory {policy.config.memory_name}, the "
            f"narrowest has {count(low):,}"
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    config: PerceptionConfig[Any, Any] = scaled(policy.config, low)
    return config


def _described(policy: Policy, factor: float) -> Policy:
    """Return a policy with scaled widths, without weights."""
    with torch.device("meta"):
        return Policy(
            policy.specs, policy.action_space, scaled(policy.config, factor), policy.normalize_obs
        )


def scaled(config: Any, factor: float) -> Any:
    """Return a configuration with all widths scaled, and at least 1 (or the number of heads)."""
    changes: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            changes[field.name] = scaled(value, factor)
        elif field.name in WIDTHS:
            multiple = WIDTHS[field.name]
            unit = int(getattr(config, multiple, 1)) if isinstance(multiple, str) else multiple
            widths = value if isinstance(value, tuple) else (value,)
            new = tuple(_scaled(width, factor, unit) for width in widths)
            changes[field.name] = new if isinstance(value, tuple) else new[0]
    return replace(config, **changes)


def _scaled(width: int, factor: float, unit: int) -> int:
    """Return a scaled width: from 4 on, a multiple of 4 if the width is, which is fastest."""
    unit = math.lcm(unit, 4) if width % 4 == 0 and width * factor >= 4 else unit
    return max(unit, unit * round(width * factor / unit))
