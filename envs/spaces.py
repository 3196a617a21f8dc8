"""The parts of an observation: named arrays, whether its space is a Dict or a plain Box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium import spaces


def observation_parts(space: spaces.Space[Any]) -> dict[str, spaces.Box]:
    """Return the parts of an observation by name: a Dict's own keys, or `obs` for a plain Box."""
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"obs": space}
    assert all(isinstance(part, spaces.Box) for part in parts.values())
    return parts  # type: ignore[return-value] # asserted above


def as_parts(observation: Any) -> Mapping[str, Any]:
    """Return an observation by the names of its parts, which are those of `observation_parts`."""
    return observation if isinstance(observation, Mapping) else {"obs": observation}
