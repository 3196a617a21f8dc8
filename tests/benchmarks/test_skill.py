"""Tests of `benchmarks.skill`."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.skill import kept_json, kept_markdown

SUITE = Path("/tmp/some/suite")


def test_a_comparison_is_kept_as_if_made_in_the_usual_folder():
    training = {
        "command": f"/bin/train.py basic --seed 3 --run-dir {SUITE}/basic/ppo-seed3 --num-envs 2",
        "curve": {"env_steps": [1, 2], "returns": [-1.5, 1e-05]},
    }
    policy = {"path": f"{SUITE}/basic/ppo-seed3", "seed": 3, "training": training}
    result = {"entry": f"{SUITE}/basic/ppo", "policies": [policy, {"training": None}]}
    document = {"env": "basic", "results": [result], "returns": [[1.0, -2.0], []]}
    text = kept_json(document, SUITE)
    kept = json.loads(text)
    training["command"] = "python train.py basic --seed 3 --num-envs 2"
    expected = json.dumps(document).replace(str(SUITE), "runs/suite")
    assert kept == json.loads(expected)
    assert '"returns": [-1.5, 1e-05]' in text
    assert "[1.0, -2.0]" in text


def test_a_report_is_kept_without_its_pictures():
    report = f"# basic\n\n{SUITE}/basic/ppo\n\n![scores](scores.svg)\n"
    assert kept_markdown(report, SUITE) == "# basic\n\nruns/suite/basic/ppo\n"
