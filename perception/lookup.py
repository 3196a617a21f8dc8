"""Functions that all registries share: lookup by name, and configurations as JSON.

A registry is a dictionary, `NAME: dict[str, tuple[type[Config], type[Class]]]`: for each name a
configuration class and the class that it configures. A configuration is stored as a JSON object
with its `name` beside its fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any


class UnknownNameError(ValueError):
    """A registry has no such entry; the message lists those that it has."""


def check_name(registry: Mapping[str, Any], name: str, kind: str) -> None:
    """Check that a registry has an entry.

    Args:
        registry: the registry.
        name: the entry's name.
        kind: what its entries are, for the message, as in `agent` or `encoder`.

    Raises:
        UnknownNameError: If it has no entry of that name.
    """
    if name not in registry:
        raise UnknownNameError(f"unknown {kind} {name!r}; choose from {', '.join(registry)}")


def name_of(registry: Mapping[str, tuple[type[Any], type[Any]]], config: Any) -> str:
    """Return the name under which the class of a configuration is registered.

    If several entries share the configuration class, it is the name of the first one.

    Raises:
        UnknownNameError: If no entry has that configuration class.
    """
    for name, (kind, _) in registry.items():
        if kind is type(config):
            return name
    kinds = ", ".join(kind.__name__ for kind, _ in registry.values())
    raise UnknownNameError(f"{type(config).__name__} is not registered; choose from {kinds}")


def class_of(registry: Mapping[str, tuple[type[Any], type[Any]]], config: Any) -> Any:
    """Return the class that a configuration configures, see `name_of`."""
    return registry[name_of(registry, config)][1]


def as_named_dict(
    registry: Mapping[str, tuple[type[Any], type[Any]]], config: Any
) -> dict[str, Any]:
    """Return a configuration as a dictionary: its `name`, then its fields."""
    return {"name": name_of(registry, config), **asdict(config)}
