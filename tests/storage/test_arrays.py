"""Tests of `storage.arrays`; hostile archives are those of `test_recording.py`."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from storage.arrays import digest_of, read_arrays, write_arrays
from storage.files import DamagedError, FileError

ARRAYS = {"a": np.arange(6, dtype=np.uint8).reshape(2, 3), "b": np.array([0.5, np.nan])}


def test_arrays_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "arrays.npz"
    checksum = write_arrays(path, ARRAYS, {"format": 1})
    arrays, about, found = read_arrays(path, 2**20)
    assert about == {"format": 1}
    assert found == checksum
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_the_checksum_covers_names_shapes_types_and_content():
    hashes = {
        digest_of(arrays, about)
        for arrays, about in (
            (ARRAYS, "{}"),
            (ARRAYS, "{ }"),
            ({"a": ARRAYS["a"].T, "b": ARRAYS["b"]}, "{}"),
            ({"a": ARRAYS["a"].view(np.int8), "b": ARRAYS["b"]}, "{}"),
            ({"a": ARRAYS["a"] + 1, "b": ARRAYS["b"]}, "{}"),
            ({"c": ARRAYS["a"], "b": ARRAYS["b"]}, "{}"),
        )
    }
    assert len(hashes) == 6


def archive(**changes):
    """Return an archive whose arrays are not what its checksum says."""
    text = json.dumps({})
    content = {"about": np.array(text), "sha256": np.array(digest_of(ARRAYS, text)), **ARRAYS}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{**content, **changes})
    return buffer.getvalue()


def bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", bytes(2**23))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        archive()[:-50],
        archive(a=ARRAYS["a"] + 1),
        archive(more=ARRAYS["a"]),
        archive(about=np.array("[]")),
        archive(a=np.array([{}], dtype=object)),
        bomb(),
    ],
    ids=["empty", "text", "cut", "changed", "more", "no object", "pickled", "bomb"],
)
def test_what_is_not_as_it_was_written_gets_one_line(tmp_path, content):
    path = tmp_path / "arrays.npz"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"^.*arrays\.npz is damaged, or holds no arrays"):
        read_arrays(path, 2**22)


def test_a_file_that_is_missing_or_too_large_is_not_read(tmp_path):
    path = tmp_path / "arrays.npz"
    with pytest.raises(DamagedError, match="there is no file"):
        read_arrays(path, 2**20)
    write_arrays(path, ARRAYS, {})
    with pytest.raises(FileError, match="too large"):
        read_arrays(path, 10)
