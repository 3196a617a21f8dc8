"""What a policy may be: a file from a stranger could describe one that fills any memory.

Training refuses the same policies, so that whatever it writes can be read again. Everything is
computed from shapes, on PyTorch's meta device where necessary, before any memory is allocated.
"""

from __future__ import annotations

import math

from agents.errors import AgentError
from agents.policy import Policy, Specs

MOST_WEIGHTS = 2**27
"""Numbers in a policy's tensors: 512 MiB in float32."""
MOST_OBSERVED = 2**24
"""Bytes or numbers in a part of an observation: Doom's largest screen with every channel."""
MOST_PARTS = 64
"""Parts of an observation."""
MOST_CHOICES = 2**16
"""Choices of an action, all groups together."""


def check_limits(policy: Policy) -> None:
    """Check that a policy is not too large.

    Args:
        policy: the policy, on any device; its tensors are not read.

    Raises:
        AgentError: If it is.
    """
    weights = sum(tensor.numel() for tensor in policy.state_dict().values())
    if weights > MOST_WEIGHTS:
        raise AgentError(f"a policy of {weights:,} weights is too large; at most {MOST_WEIGHTS:,}")
    if sum(policy.actor.sizes) > MOST_CHOICES:
        raise AgentError(
            f"{sum(policy.actor.sizes):,} choices are too many; at most {MOST_CHOICES:,}"
        )
    if len(policy.specs) > MOST_PARTS:
        raise AgentError(
            f"observations have {len(policy.specs):,} parts; at most {MOST_PARTS} are possible"
        )
    check_observed(policy.specs)


def check_observed(specs: Specs) -> None:
    """Check that no part of an observation is too large.

    Args:
        specs: parts of an observation by name.

    Raises:
        AgentError: If one is.
    """
    for name, spec in specs.items():
        size = math.prod(spec.shape)
        if size > MOST_OBSERVED:
            raise AgentError(f"{name} of an observation is too large: {size:,} numbers")
