"""Tests of `evaluation.report.skill` and `trainings`, on made-up comparisons."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from scipy import stats

from evaluation.report.report import as_dict
from evaluation.report.skill import (
    COLUMNS,
    SEED_COLUMNS,
    lines_of,
    read_documents,
    rows_of,
    seed_rows,
    skill_rows,
    write_table,
)
from evaluation.report.trainings import MOST_POINTS, training_of
from storage.files import FileError
from storage.run_folder import RunFolder
from tests.evaluation.policies import save_run


@pytest.fixture(scope="module")
def document(comparison):
    """Return the JSON of a comparison, as it is read back."""
    return json.loads(json.dumps(as_dict(comparison), default=str))


def test_a_row_has_means_iqms_and_intervals_of_all_seeds(document):
    rows = [dict(zip(COLUMNS, cells, strict=True)) for cells in skill_rows([document])]
    assert [(row["agent"], row["actions"]) for row in rows] == [
        (agent, mode) for agent in ("good", "bad") for mode in ("sampled", "greedy")
    ]
    for row, cells in zip(rows, skill_rows([document]), strict=True):
        name = f"{row['agent']} ({row['actions']})"
        (result,) = [r for r in document["results"] if r["name"].endswith(name)]
        assert float(row["mean"].split()[0]) == pytest.approx(
            np.mean(np.concatenate(result["returns"])), abs=0.006
        )
        middle = stats.trim_mean(np.concatenate(result["returns"]), 0.25)
        assert float(row["IQM"].split()[0]) == pytest.approx(middle, abs=0.006)
        of_seeds = [stats.trim_mean(returns, 0.25) for returns in result["returns"]]
        if len(of_seeds) > 1:
            interval = stats.ttest_1samp(of_seeds, 0).confidence_interval(0.95)
            ends = [float(end) for end in cells[6].replace(",", "").split(" to ")]
            assert ends == pytest.approx([interval.low, interval.high], abs=0.006)
        else:
            assert cells[4] == cells[6] == ""
    assert [row["seeds"] for row in rows] == ["0, 1", "0, 1", "0", "0"]
    assert rows[0]["noop"] == ""
    random = next(r for r in document["results"] if r["name"] == "random")
    assert float(rows[0]["random"]) == pytest.approx(random["mean"], abs=0.006)


def test_each_seed_has_a_row_with_its_training(document):
    rows = [dict(zip(SEED_COLUMNS, cells, strict=True)) for cells in seed_rows(document)]
    named = [(row["agent"], row["seed"]) for row in rows]
    assert named == [("good", "0"), ("good", "1"), ("bad", "0")]
    assert [row["policy from"] for row in rows] == ["300", "300", "70"]
    # Those of the whole training, if its curve is there.
    assert [row["env steps"] for row in rows] == ["500", "500", "70"]


def test_curves_come_back_as_they_were(document, runs):
    (sampled, _, bad, _) = rows_of(document)
    assert bad.curves == []
    for seed, (steps, returns) in enumerate(sampled.curves):
        assert steps.tolist() == [100, 200 + 100 * seed, 500]
        assert returns.tolist() == [10 + seed, 50 - seed, 40]


def test_a_long_curve_is_stored_in_a_few_points(tmp_path):
    curve = [(step, np.sin(step / 300)) for step in range(1, 5000)]
    save_run(tmp_path / "run", 1.0, curve=curve)
    RunFolder(tmp_path / "run").config_file.write_text('{"config": {"total_env_steps": 6000}}')
    training = training_of(tmp_path / "run")
    steps, returns = (training["curve"][name] for name in ("env_steps", "returns"))
    assert len(steps) == len(returns) == MOST_POINTS
    assert (steps[0], steps[-1]) == (1, 4999)
    assert returns == pytest.approx(np.sin(np.array(steps) / 300), abs=1e-4)
    assert (training["env_steps"], training["planned"]) == (4999, 6000)


def test_a_curve_that_never_ends_is_not_read(tmp_path):
    save_run(tmp_path / "run", 1.0)
    (tmp_path / "run" / "progress.csv").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "run" / "progress.csv")
    RunFolder(tmp_path / "run").config_file.write_text('{"config": {"total_env_steps": 6000}}')
    training = training_of(tmp_path / "run")
    assert (training["curve"], training["env_steps"], training["planned"]) == (None, None, 6000)


def test_the_reference_and_baselines_are_lines():
    results = [
        {"name": "random", "mode": "", "mean": 1.0},
        {"name": "noop", "mode": "", "mean": -1},
        {"name": "a (greedy)", "mode": "greedy", "mean": 3.0},
    ]
    document = {"results": results, "reference": {"mean": 7, "source": "a book"}}
    assert lines_of(document) == {"random": 1.0, "noop": -1.0, "reference": 7.0}
    assert lines_of(document | {"reference": None}) == {"random": 1.0, "noop": -1.0}


def test_documents_are_read_from_files_and_folders(document, tmp_path):
    (tmp_path / "CartPole-v1").mkdir()
    file = tmp_path / "CartPole-v1" / "compare.json"
    file.write_text(json.dumps(document))
    for place in (file, file.parent, tmp_path):
        assert read_documents([place]) == [document]
    write_table([document], tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "| CartPole-v1 | good | sampled |" in text
    assert "## CartPole-v1" in text


@pytest.mark.parametrize(
    "content",
    ["{}", '{"env": 1, "results": [3]}', "[]", '{"env": "a", "results": [{"mode": "x"}]}', "no"],
)
def test_a_file_that_is_no_comparison_is_refused(tmp_path, content):
    (tmp_path / "compare.json").write_text(content)
    with pytest.raises(FileError, match=r"compare\.json is "):
        read_documents([tmp_path / "compare.json"])
    (tmp_path / "compare.json").unlink()
    with pytest.raises(FileError, match="holds no comparison"):
        read_documents([tmp_path])
