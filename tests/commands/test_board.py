"""Tests of `commands.board`."""

from __future__ import annotations

import evaluate
from tests.programs import refused


def test_a_folder_without_comparisons_is_refused(tmp_path, capsys):
    said = refused(capsys, evaluate, "board", tmp_path, "--out", tmp_path / "board")
    assert f"{tmp_path} holds no comparison; name a compare.json, or a folder" in said
    assert not (tmp_path / "board").exists()


def test_comparisons_without_curves_are_refused(tmp_path, capsys):
    score = '"mean": 1, "ci_low": 0, "ci_high": 2, "iqm": 1, "iqm_low": 0, "iqm_high": 2'
    (tmp_path / "compare.json").write_text(
        '{"env": "basic", "results": [{"name": "a (greedy)", "entry": "a", "mode": "greedy", '
        f'{score}, "seeds_low": null, "seeds_high": null, "seed_means": [1], "returns": [[1]], '
        '"policies": [{"seed": 0, "env_steps": 9, "seconds": 1.0}]}]}'
    )
    options = (tmp_path / "compare.json", "--out", tmp_path / "board")
    assert "the comparisons have no learning curves" in refused(capsys, evaluate, "board", *options)
