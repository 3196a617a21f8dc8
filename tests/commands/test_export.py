"""Tests of `commands.export`; tests/deploy/test_onnx.py tests the file."""

from __future__ import annotations

import json
import shutil

import onnx
import pytest

import evaluate
from tests.agents.files import rewrite
from tests.programs import refused, succeed


@pytest.mark.slow
def test_a_run_is_exported_into_its_folder(doom_run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(doom_run, folder)
    succeed(evaluate, "export", folder)
    written = folder / "policy.onnx"
    printed = capsys.readouterr().out
    assert f"{written}: {written.stat().st_size:,} bytes" in printed
    assert "at batches of 1, 2, 7: greedy_actions 0.0e+00, probabilities" in printed
    nowhere = written / "policy.onnx"
    refusal = refused(capsys, evaluate, "export", folder, "--onnx", nowhere)
    assert f"{nowhere} cannot be written: " in refusal


def test_what_is_exported_names_the_environment_it_is_scored_in(doom_run, tmp_path):
    path = tmp_path / "easy.safetensors"
    shutil.copy(doom_run / "policy.safetensors", path)
    rewrite(path, lambda description: description["env"].update(skill=1, time_limit=20))
    succeed(evaluate, "export", path)
    metadata = onnx.load(tmp_path / "policy.onnx").metadata_props
    (about,) = (json.loads(entry.value) for entry in metadata if entry.key == "doomgrad")
    assert about["env"] == {**about["env"], "env": "basic", "skill": None, "time_limit": None}


def test_bad_arguments_get_one_line(capsys, doom_run):
    for arguments, expected in (
        (["nowhere"], "there is no run at nowhere"),
        (
            [doom_run, "--onnx", "p.safetensors"],
            "--onnx p.safetensors: name a file that ends in .onnx",
        ),
        ([doom_run, "--out", "p.onnx"], "export has no --out; see python evaluate.py export --h"),
    ):
        assert expected in refused(capsys, evaluate, "export", *arguments)
