"""Tests of `storage.files`."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from pathlib import Path

import pytest

from agents import AGENTS, OBJECTIVES
from agents.ppo import PPOConfig
from envs import EnvConfig
from perception import ENCODERS, MEMORIES, ImageSpec, PerceptionConfig
from perception.encoders import NatureConfig, VectorConfig
from perception.memory import LSTMConfig
from storage.files import (
    DamagedError,
    FileError,
    check_writable,
    decode,
    read_json,
    read_kept,
    read_regular,
    remove_leftovers,
    replacing,
    write_atomically,
    write_json,
)
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
    with pytest.raises(OSError, match="exists") as error:
        write_atomically(path / "below", b"new")
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"old"


def test_links_are_replaced_and_never_followed(tmp_path):
    """Nobody can guess the name of the temporary file, and it is never opened through a link."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("file", ".file.tmp", f".file.{os.getpid()}.tmp"):
        (folder / name).symlink_to(outside)
    names = []
    for _ in range(2):
        with replacing(folder / "file") as temporary:
            names.append(temporary.name)
            temporary.write_bytes(b"new")
    assert names[0] != names[1]
    assert outside.read_bytes() == b"mine"
    assert not (folder / "file").is_symlink()
    assert (folder / "file").read_bytes() == b"new"


def test_a_name_that_is_taken_is_not_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "token_hex", lambda size: "taken")
    (tmp_path / "outside").write_bytes(b"mine")
    (tmp_path / ".doomgrad-taken.tmp").symlink_to(tmp_path / "outside")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "outside").read_bytes() == b"mine"


def test_what_killed_programs_left_is_removed_and_what_is_written_is_not(tmp_path):
    left = [".doomgrad-0123.tmp", ".policy.safetensors.123.tmp", ".progress.csv.tmp"]
    for name in [*left, ".mine.tmp", "file"]:
        (tmp_path / name).write_bytes(b"half")
    with replacing(tmp_path / "file") as temporary:
        remove_leftovers(tmp_path)
        assert {f.name for f in tmp_path.iterdir()} == {".mine.tmp", "file", temporary.name}


# A folder to write to.


def test_a_folder_that_can_be_written_to_is_left_as_it_was(tmp_path):
    check_writable(tmp_path / "deep" / "folder")
    assert not list(tmp_path.iterdir())
    check_writable(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["below a file", "a long name", "a dangling link", "proc"])
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, kind):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "deep")
    folder = {
        "below a file": tmp_path / "file" / "sub",
        "a long name": tmp_path / ("x" * 300),
        "a dangling link": tmp_path / "link",
        "proc": Path("/proc/doomgrad"),
    }[kind]
    with pytest.raises(FileError, match="nothing can be written into") as error:
        check_writable(folder)
    assert "\n" not in str(error.value)
    assert {f.name for f in tmp_path.iterdir()} == {"file", "link"}


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="file is a file; name a folder"):
        check_writable(tmp_path / "file")


# Files from strangers.


def odd_files(folder):
    """Return files that are none, or too large, by what they are."""
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("/dev/zero")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "sparse").touch()
    os.truncate(folder / "sparse", 2**32)
    return {name: folder / name for name in ("fifo", "folder", "link", "loop", "sparse")}


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    for path in [*odd_files(tmp_path).values(), tmp_path / "a\0b", tmp_path / "\ud800"]:
        with pytest.raises(FileError) as error:
            read_regular(path, 2**20)
        assert "\n" not in str(error.value)
    with pytest.raises(DamagedError, match="there is no file at"):
        read_regular(tmp_path / "nothing", 2**20)
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(FileError, match="is too large"):
        read_regular(tmp_path / "file", 4)


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
        (EnvConfig, {"env": "a\0.cfg"}, r"'a\x00.cfg' is not valid text"),
        (EnvConfig, {"env": "\ud800.wad"}, r"'\ud800.wad' is not valid text"),
        (EnvConfig, {"time_limit": 10**400}, "a number has more than 64 bits"),
        (EnvConfig, {"\ud800": 1}, r"there is no field '\ud800'"),
    ],
)
def test_unknown_keys_and_wrong_types_are_refused(kind, data, message):
    with pytest.raises(FileError) as error:
        decode(kind, data)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (None, {}),
        ("{", {}),
        ("[]", {}),
        ('{"key": 2, "part": 3}', {}),
        ('{"key": {"a": 1}, "part": 3}', {"key": {"a": 1}, "part": 3}),
    ],
)
def test_what_is_kept_is_about_the_same_or_nothing(tmp_path, content, kept):
    if content is not None:
        (tmp_path / "part.json").write_text(content)
    assert read_kept(tmp_path / "part.json", 1_000, {"key": {"a": 1}}) == kept
    assert read_kept(tmp_path / "part.json", 5, {"key": {"a": 1}}) == {}
