"""Tests of `storage.files`."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from agents import AGENTS, OBJECTIVES
from agents.ppo import PPOConfig
from envs import EnvConfig
from perception import ENCODERS, MEMORIES, ImageSpec, PerceptionConfig
from perception.encoders import NatureConfig, VectorConfig
from perception.memory import LSTMConfig
from storage.files import FileError, decode, read_json, write_atomically, write_json
from storage.policy_file import parse_perception

CONFIGS = [
    EnvConfig(),
    VectorConfig(hidden_sizes=(3, 4)),
    ImageSpec(shape=(3, 4, 1), channels=("gray",)),
    *(
        kind()
        for registry in (AGENTS, ENCODERS, MEMORIES, OBJECTIVES)
        for kind, _ in registry.values()
    ),
]


# Replacing a file.


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_cannot_begin_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    # A folder in place of the temporary file, which then cannot be opened for writing.
    (tmp_path / f".file.{os.getpid()}.tmp").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


# JSON.


def test_what_is_written_as_json_is_read_again(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"numbers": (1, 2.5), "where": tmp_path})
    assert read_json(path, 1000) == {"numbers": [1, 2.5], "where": str(tmp_path)}
    assert path.read_text().endswith("}\n")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"7", b"\xff\xfe", b"[" * 10**5], ids=repr)
def test_what_is_no_json_object_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"a\.json is damaged$"):
        read_json(path, 10**6)


def test_json_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{}")
    assert read_json(path, 2) == {}
    with pytest.raises(FileError, match="is too large"):
        read_json(path, 1)


# Strict decoding.


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_what_went_through_json_is_the_same(config):
    through = json.loads(json.dumps(dataclasses.asdict(config)))
    assert decode(type(config), through) == config


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("memory", MEMORIES)
def test_a_perception_that_went_through_json_is_the_same(encoder, memory):
    config = PerceptionConfig(
        encoder=ENCODERS[encoder][0](),
        memory=MEMORIES[memory][0](),
        vectors=VectorConfig(hidden_sizes=(5,)),
    )
    assert parse_perception(json.loads(json.dumps(config.as_dict()))) == config


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (NatureConfig, {"feature": 3}, "there is no field 'feature'"),
        (NatureConfig, {"conv_channels": [1, 2]}, "length 3"),
        (VectorConfig, {"hidden_sizes": ["64"]}, "Expected `int`, got `str`"),
        (LSTMConfig, {"memory_size": 1.5}, "Expected `int`, got `float`"),
        (LSTMConfig, {"memory_size": True}, "Expected `int`, got `bool`"),
        (LSTMConfig, {"memory_size": None}, "Expected `int`, got `null`"),
        (LSTMConfig, {"memory_size": -1}, "memory_size must be at least 1, got -1"),
        (LSTMConfig, [], "Expected `object`, got `array`"),
        (EnvConfig, {"frame_skip": "4"}, "Expected `int | null`, got `str`"),
        (EnvConfig, {"variables": 1}, "Expected `bool`, got `int`"),
        (ImageSpec, {}, "missing required field `shape`"),
        (PPOConfig, {"gamma": 2}, "gamma must be between 0 and 1"),
    ],
)
def test_unknown_keys_and_wrong_types_are_refused(kind, data, message):
    with pytest.raises(FileError) as error:
        decode(kind, data)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
