"""Tests of `evaluation.report.report`, by reading back the files that it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from envs import SCENARIOS, EnvConfig
from evaluation.compare import rank
from evaluation.report.markdown import markdown, summary_markdown
from evaluation.report.report import as_dict, folder_names, write_report, write_summary
from evaluation.report.tables import summary
from tests.evaluation.policies import renamed


def test_a_report_contains_the_comparison(comparison, tmp_path):
    write_report(comparison, tmp_path)
    content = json.loads((tmp_path / "compare.json").read_text())
    assert content == json.loads(json.dumps(as_dict(comparison)))
    for read, result in zip(content["results"], comparison.results, strict=True):
        assert (read["name"], read["mode"]) == (result.name, result.mode)
        np.testing.assert_array_equal(read["returns"], result.returns)
        assert [p["path"] for p in read["policies"]] == [str(c.path) for c in result.contestants]
    names = ["scores.svg", "profiles.svg", "improvement.svg", "curves.svg"]
    others = [name.replace("svg", kind) for name in names for kind in ("png", "pdf")]
    files = {"compare.md", "compare.json", *names, *others}
    assert {path.name for path in tmp_path.iterdir()} == files
    for name in names:
        assert ElementTree.parse(tmp_path / name).getroot().tag.endswith("svg")
    assert (tmp_path / "compare.md").read_text() == markdown(comparison, names)


def test_a_report_contains_the_reference(comparison):
    assert as_dict(comparison)["reference"] is None
    in_doom = replace(comparison, config=EnvConfig(env="basic"))
    source = SCENARIOS["basic"].reference.source
    assert as_dict(in_doom)["reference"] == {"mean": 80.4, "source": source}


@pytest.mark.slow
def test_reports_are_reproducible(comparison, tmp_path):
    for name in ("one", "two"):
        write_report(comparison, tmp_path / name)
        write_summary([comparison, comparison], tmp_path / name)
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}


def test_figures_with_hostile_names_are_valid(comparison, tmp_path):
    write_report(renamed(comparison, "<script>alert(1)</script>", "\x1b[0m\x00&\n$x^2$"), tmp_path)
    figures = list(tmp_path.glob("*.svg"))
    assert len(figures) == 4
    for path in figures:
        ElementTree.parse(path)


def test_curves_of_an_earlier_comparison_are_removed(comparison, tmp_path):
    (tmp_path / "curves.svg").write_text("earlier")
    without = [result for result in comparison.results if "good" not in result.entry]
    write_report(rank(comparison.config, comparison.protocol, without), tmp_path)
    assert not (tmp_path / "curves.svg").exists()


def test_a_summary_contains_all_environments(comparison, tmp_path):
    both = [comparison, replace(comparison, config=EnvConfig(env="basic"))]
    write_summary(both, tmp_path)
    assert (tmp_path / "summary.md").read_text() == summary_markdown(both)
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["rows"] == json.loads(json.dumps(summary(both)))


def test_folder_names_are_valid_short_and_different():
    for name in ("../x", "a/b", "..", ".", "", "/", "x" * 300, "é" * 300, "\n", "a\0b", "-rf"):
        (folder,) = folder_names([name])
        assert folder not in ("", ".", "..")
        assert not set(folder) & set("/\0\n")
        assert len(folder.encode()) <= 255
    assert folder_names(["a/b", "a-b", "a b", "a-b-2"]) == ["a-b", "a-b-2", "a-b-3", "a-b-2-2"]
    assert folder_names(["basic", "runs/basic/ppo (greedy)"]) == [
        "basic",
        "runs-basic-ppo-(greedy)",
    ]
