"""Tests of `storage.tensor_file`."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from storage.files import DamagedError, FileError
from storage.tensor_file import FORMAT, OLDEST_FORMAT, TensorFile, kind_of, write_tensors
from tests.agents.files import rewrite
from tests.agents.synthetic import assert_same
from tests.storage.policies import refused

TENSORS = {
    "float": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "double": torch.tensor(0.1, dtype=torch.float64),
    "whole": torch.tensor([2**40]),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "flags": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
}


def write(path, tensors=TENSORS, **description):
    write_tensors(path, tensors, description)
    return path


def read(path):
    return TensorFile(path).tensors()


def test_what_is_written_is_read_again(tmp_path):
    file = TensorFile(write(tmp_path / "t", name="one", sizes=[1, 2]))
    assert file.description == {"format": FORMAT, "name": "one", "sizes": [1, 2]}
    assert file.kinds == {name: kind_of(tensor) for name, tensor in TENSORS.items()}
    assert_same(file.tensors(), TENSORS)
    assert {n: t.dtype for n, t in file.tensors().items()} == {
        n: t.dtype for n, t in TENSORS.items()
    }


def test_the_memory_layout_does_not_matter(tmp_path):
    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    scattered = {
        "image": image.to(memory_format=torch.channels_last),
        "single": torch.zeros(1, 8)[:, ::8],
        "across": TENSORS["float"].t(),
    }
    assert_same(read(write(tmp_path / "t", scattered)), scattered)


def test_any_safetensors_reader_can_read_it(tmp_path):
    with safe_open(write(tmp_path / "t", name="one"), "np") as file:
        assert json.loads(file.metadata()["doomgrad"]) == {"format": FORMAT, "name": "one"}
        assert set(file.keys()) == TENSORS.keys()


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "nothing", "there is no file at", load=TensorFile)
    refused(tmp_path, load=TensorFile)  # a folder


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100, -1])
def test_a_truncated_file_is_refused(tmp_path, size):
    path = write(tmp_path / "t")
    path.write_bytes(path.read_bytes()[:size])
    refused(path, "damaged", load=TensorFile)


@pytest.mark.parametrize(
    "content",
    [b"garbage", b"\x00" * 100, b"\xff" * 100, b"PK\x03\x04", b'{"json": 1}\n' * 50],
    ids=["words", "zeros", "ones", "zip", "json"],
)
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "t"
    path.write_bytes(content)
    refused(path, "damaged, or no safetensors file", load=TensorFile)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    path = tmp_path / "t"
    torch.save({"weights": torch.zeros(3)}, path)
    refused(path, "damaged, or no safetensors file", "may hold pickled code", load=TensorFile)


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {"format": "pt"}, {"doomgrad": "no json"}, {"doomgrad": "[]"}, {"doomgrad": "{}"}],
    ids=str,
)
def test_a_foreign_safetensors_file_is_refused(tmp_path, metadata):
    path = tmp_path / "t"
    save_file({"weights": torch.zeros(3)}, path, metadata)
    refused(path, "was not written by doomgrad", load=TensorFile)


@pytest.mark.parametrize("found", [OLDEST_FORMAT - 1, FORMAT + 1, "4", None])
def test_a_file_of_another_format_is_refused(tmp_path, found):
    path = rewrite(write(tmp_path / "t"), lambda d: d.update(format=found))
    words = f"is of format {found}; this program reads {OLDEST_FORMAT} to {FORMAT}"
    refused(path, words, load=TensorFile)


def test_a_file_without_a_checksum_is_damaged(tmp_path):
    path = tmp_path / "t"
    save_file(TENSORS, path, {"doomgrad": json.dumps({"format": FORMAT})})
    with pytest.raises(DamagedError, match="its content is not what its checksum says"):
        read(path)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_flipped_byte_is_refused_or_harmless(tmp_path, data):
    path = write(tmp_path / "t", name="one")
    content = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    content[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = read(path)
    except FileError:
        return
    assert_same(found, TENSORS)
