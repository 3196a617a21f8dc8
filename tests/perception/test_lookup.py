"""Tests of `perception.lookup`, and of all registries of networks, agents and objectives."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass

import pytest

from agents import AGENTS, OBJECTIVES
from perception import ENCODERS, MEMORIES
from perception.lookup import UnknownNameError, as_named_dict, check_name, class_of, name_of

REGISTRIES = {
    "encoder": ENCODERS,
    "memory": MEMORIES,
    "agent": AGENTS,
    "objective": OBJECTIVES,
}
ENTRIES = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry]


@dataclass(frozen=True)
class ShapeConfig:
    size: int = 3


@dataclass(frozen=True)
class RoundConfig(ShapeConfig):
    pass


class Square:
    pass


class Circle:
    pass


SHAPES = {"square": (ShapeConfig, Square), "circle": (RoundConfig, Circle)}


def test_a_configuration_belongs_to_its_own_entry():
    assert name_of(SHAPES, ShapeConfig()) == "square"
    # Not to that of its base class.
    assert name_of(SHAPES, RoundConfig()) == "circle"
    assert class_of(SHAPES, RoundConfig()) is Circle
    assert as_named_dict(SHAPES, RoundConfig(size=5)) == {"name": "circle", "size": 5}


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    check_name(SHAPES, "circle", "shape")
    message = "^unknown shape 'blob'; choose from square, circle$"
    with pytest.raises(UnknownNameError, match=message):
        check_name(SHAPES, "blob", "shape")


def test_a_configuration_that_is_not_registered_is_an_error():
    @dataclass(frozen=True)
    class BlobConfig(ShapeConfig):
        pass

    message = "^BlobConfig is not registered; choose from ShapeConfig, RoundConfig$"
    with pytest.raises(UnknownNameError, match=message):
        name_of(SHAPES, BlobConfig())


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_has_a_configuration_of_its_own(kind, name):
    registry = REGISTRIES[kind]
    config_class, module_class = registry[name]
    assert is_dataclass(config_class)
    assert isinstance(module_class, type)
    config = config_class()
    assert name_of(registry, config) == name
    assert class_of(registry, config) is module_class
    for field in fields(config):
        with pytest.raises(FrozenInstanceError):
            setattr(config, field.name, None)


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_default_configuration_can_be_stored_as_json(kind, name):
    registry = REGISTRIES[kind]
    config_class, _ = registry[name]
    stored = json.loads(json.dumps(as_named_dict(registry, config_class())))
    assert stored.pop("name") == name
    assert stored.keys() == {field.name for field in fields(config_class)}
    as_tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    assert config_class(**as_tuples) == config_class()
