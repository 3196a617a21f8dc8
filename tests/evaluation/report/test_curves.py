"""Tests of `evaluation.report.curves`."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation import entries
from evaluation.report.curves import learning_curves, read_curve
from tests.evaluation.policies import compare_runs, save_curve, save_run


def test_a_curve_is_read(tmp_path):
    path = tmp_path / "progress.csv"
    path.write_text("time/fps,time/total_timesteps,rollout/ep_rew_mean\n9,10,\n9,20,1.5\n9,30,-2\n")
    steps, returns = read_curve(path)
    np.testing.assert_array_equal(steps, [20, 30])
    np.testing.assert_array_equal(returns, [1.5, -2])


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"a,b\n1,2\n",
        b"time/total_timesteps,rollout/ep_rew_mean\n",
        b"time/total_timesteps,rollout/ep_rew_mean\n1,x\n",
        b"rollout/ep_rew_mean\n5\n",
        b"time/total_timesteps,rollout/ep_rew_mean\n1,nan\n",
        b"\xff\xfe\x00",
    ],
)
def test_what_holds_no_curve_has_none(tmp_path, content):
    path = tmp_path / "progress.csv"
    if content is not None:
        path.write_bytes(content)
    assert read_curve(path) is None
    assert read_curve(path / "progress.csv") is None


def test_env_steps_of_a_curve_increase_and_its_returns_are_numbers(tmp_path):
    path = tmp_path / "progress.csv"
    save_curve(path, [(10, 1), (20, "nan"), (30, 3), (30, 9), (20, 2), ("inf", 4)])
    steps, returns = read_curve(path)
    np.testing.assert_array_equal(steps, [10, 20, 30])
    np.testing.assert_array_equal(returns, [1, 2, 3])


def test_curves_are_those_of_the_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(entries, "ZOO", tmp_path / "project")
    save_run(tmp_path / "project" / "best", curve=[(1, 7)])
    for seed in (0, 1):
        save_run(tmp_path / f"x-seed{seed}", seed=seed, curve=[(1, seed), (9, 5)])
    file = save_run(tmp_path / "y", curve=[(1, 1)]) + "/policy.safetensors"
    monkeypatch.chdir(tmp_path)
    comparison = compare_runs("x-*", file, "zoo/best", episodes=1)
    found = learning_curves(comparison)
    # A file is no run, whatever lies beside it.
    assert found.keys() == {"x", "zoo/best"}
    assert [returns.tolist() for _, returns in found["x"]] == [[0, 5], [1, 5]]
    assert found["zoo/best"][0][1].tolist() == [7]


def test_seeds_without_env_steps_in_common_have_no_curve(tmp_path):
    save_run(tmp_path / "x-seed0", seed=0, curve=[(1, 1), (5, 1)])
    save_run(tmp_path / "x-seed1", seed=1, curve=[(6, 1), (9, 1)])
    assert learning_curves(compare_runs(f"{tmp_path}/x-*", episodes=1)) == {}
