"""Tests of `commands.compare`; tests/evaluation/test_compare.py tests comparisons themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest

import evaluate
from tests.evaluation.policies import save_run
from tests.programs import refused, succeed


@pytest.mark.slow
def test_policies_are_ranked_on_the_same_seeds(doom_run, capsys, tmp_path):
    table, out = tmp_path / "table.json", tmp_path / "out"
    files = [str(doom_run / "policy.safetensors"), str(doom_run / "best.safetensors")]
    options = ["--episodes", 3, "--num-envs", 3, "--json", table, "--out", out]
    succeed(evaluate, "compare", *files, "noop", "random", *options)
    printed = capsys.readouterr().out
    (comparison,) = json.loads(table.read_text())
    results = comparison["results"]
    assert {(result["entry"], result["mode"]) for result in results} == {
        *((file, mode) for file in files for mode in ("sampled", "greedy")),
        ("random", ""),
        ("noop", ""),
    }
    for result in results:
        assert result["mean"] == pytest.approx(np.mean(result["returns"]))
    assert [result["rank"] for result in results] == sorted(result["rank"] for result in results)
    assert comparison["reference"]["mean"] == 80.4
    assert json.loads((out / "basic" / "compare.json").read_text()) == comparison
    for words in ("noop", "80.40", "Protocol: 3 episodes at seeds 0 to 2", f"--logdir {out}"):
        assert words in printed
    assert not (out / "summary.md").exists()


@pytest.mark.slow
def test_all_environments_are_in_one_table(doom_run, cartpole_run, tmp_path):
    table, out = tmp_path / "table.json", tmp_path / "out"
    options = ["--episodes", 2, "--greedy", "--json", table, "--out", out]
    succeed(evaluate, "compare", doom_run, cartpole_run, *options)
    comparisons = json.loads(table.read_text())
    assert [comparison["env"] for comparison in comparisons] == ["basic", "CartPole-v1"]
    rows = json.loads((out / "summary.json").read_text())["rows"]
    assert [(row["env"], row["player"]) for row in rows] == [
        ("basic", str(doom_run)),
        ("CartPole-v1", str(cartpole_run)),
    ]
    in_doom, in_cartpole = rows
    assert in_doom["noop"]["mean"] == -300
    assert in_doom["reference"]["mean"] == 80.4
    assert (in_doom["sampled"], in_cartpole["noop"], in_cartpole["reference"]) == (None,) * 3
    assert (out / "summary.md").read_text().count("Protocol: 2 episodes") == 2


def test_names_are_printed_as_they_are(capsys, tmp_path):
    folder = tmp_path / "[bold]a:bomb:[/x]"
    save_run(folder)
    succeed(evaluate, "compare", folder, "--episodes", 2, "--out", tmp_path / "out")
    printed = "".join(capsys.readouterr().out.replace("│", "").split())
    assert "[bold]a:bomb:[/x]" in printed


def test_bad_arguments_get_one_line(capsys, doom_run, cartpole_run):
    for arguments, expected in (
        ([], "name at least one run"),
        (["nowhere"], "there is no run at nowhere"),
        (["nowhere/*"], "nowhere/* matches no run folder and no policy file"),
        (["random", "noop"], "name a run or a policy"),
        ([cartpole_run, "noop"], "noop"),
        ([doom_run, doom_run], "is named twice"),
        ([doom_run, "--out", doom_run / "config.json"], "is a file; name a folder"),
        ([doom_run, "--episodes", "0"], "episodes must be at least 1"),
    ):
        assert expected in refused(capsys, evaluate, "compare", *arguments), arguments
