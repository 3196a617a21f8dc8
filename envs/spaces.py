"""The parts of an observation: named arrays, whether its space is a Dict or a plain Box."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces


def observation_parts(space: spaces.Space[Any]) -> dict[str, spaces.Box]:
    """Return the parts of an observation by name: a Dict's own keys, or `obs` for a plain Box."""
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"obs": space}
    assert all(isinstance(part, spaces.Box) for part in parts.values())
    return parts  # type: ignore[return-value] # asserted above
