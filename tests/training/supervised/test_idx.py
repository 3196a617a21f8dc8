"""Tests of `training.supervised.idx`: what a file says of itself is checked."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from storage.files import DamagedError, FileError
from tests.training.supervised.data import idx, quadrants, write_quadrants
from training.supervised.idx import read_idx, read_labelled

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
GOOD = idx(IMAGES)


@pytest.mark.parametrize("name", ["x-idx3-ubyte", "x-idx3-ubyte.gz"])
def test_a_file_is_read_as_it_was_written(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(GOOD) if name.endswith(".gz") else GOOD)
    np.testing.assert_array_equal(read_idx(path, 3), IMAGES)


BAD = {
    "nothing": (b"", "begins with nothing, not 00 00 08 03"),
    "another magic number": (b"\x89PNG" + GOOD, "begins with 89 50 4e 47"),
    "floats": (idx(IMAGES, kind=0x0D), "begins with 00 00 0d 03"),
    "labels": (idx(IMAGES[0, 0]), "begins with 00 00 08 01"),
    "half a header": (GOOD[:9], "ends within its header"),
    "no images": (idx(IMAGES[:0]), "is empty or too large"),
    "a huge shape": (idx(IMAGES, shape=(2**32 - 1, 2**16, 2**16)), "is empty or too large"),
    "truncated": (GOOD[:-1], "24 bytes, and has 23"),
    "longer": (GOOD + b"x", "24 bytes, and has more"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_not_what_it_says_is_refused_in_one_line(tmp_path, kind, packed):
    content, message = BAD[kind]
    path = tmp_path / ("images.gz" if packed else "images")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DamagedError, match=message) as refusal:
        read_idx(path, 3)
    assert "\n" not in str(refusal.value)


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(GOOD + bytes(2**26)))
    with pytest.raises(DamagedError, match="and has more"):
        read_idx(path, 3)


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(GOOD)[:-9]], ids=["none", "cut"])
def test_a_damaged_gzip_file_is_refused(tmp_path, content):
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="is no complete gzip file"):
        read_idx(path, 3)


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_is_read_part_by_part(tmp_path, packed):
    write_quadrants(tmp_path, train=8, test=4, packed=packed)
    for seed, (part, count) in enumerate((("train", 8), ("test", 4))):
        for found, written in zip(
            read_labelled(tmp_path, part), quadrants(count, seed), strict=True
        ):
            np.testing.assert_array_equal(found, written)


def test_a_folder_that_lacks_something_is_refused(tmp_path):
    write_quadrants(tmp_path / "data")
    with pytest.raises(FileError, match=r"there is no folder .*/other; --data names"):
        read_labelled(tmp_path / "other", "train")
    (tmp_path / "data" / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(39, np.uint8)))
    with pytest.raises(DamagedError, match="has 40 images, and t10k-labels-idx1-ubyte 39 labels"):
        read_labelled(tmp_path / "data", "test")
    (tmp_path / "data" / "train-images-idx3-ubyte").unlink()
    with pytest.raises(FileError, match=r"has no train-images-idx3-ubyte and no .*gz"):
        read_labelled(tmp_path / "data", "train")
