"""Tests of `envs.files` and of what its callers say: only regular files of a bounded size."""

import os
from pathlib import Path

import pytest

from envs import EnvError
from envs.doom.cfg import read_cfg
from envs.doom.wad import read_directory
from envs.files import open_regular


def test_a_regular_file_is_opened(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    with open_regular(path, 3) as file:
        assert file.read() == b"abc"
    with pytest.raises(EnvError, match="too large: 3 bytes; at most 2 are read"):
        open_regular(path, 2)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "b", 3)


@pytest.mark.parametrize("read", [read_cfg, read_directory])
def test_devices_pipes_folders_and_sparse_files_are_refused_at_once(tmp_path, read):
    endless, pipe, sparse = (tmp_path / name for name in ("endless", "pipe", "sparse"))
    endless.symlink_to("/dev/zero")
    os.mkfifo(pipe)
    sparse.touch()
    os.truncate(sparse, 2**33)
    for path, message in (
        (endless, "is not a regular file"),
        (pipe, "is not a regular file"),
        (sparse, "is too large"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(EnvError, match=message):
            read(path)


def test_a_message_is_one_line_without_escape_sequences():
    assert str(EnvError("\x1b[2Ja\nb.cfg ü")) == "\\x1b[2Ja\\nb.cfg ü"
    with pytest.raises(EnvError, match=r"at \\x1b\[31m\.cfg"):
        read_cfg(Path("\x1b[31m.cfg"))
