"""A comparison that all tests of reports share, because playing it takes seconds."""

from __future__ import annotations

import pytest

from tests.evaluation.policies import compare_runs, save_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Two training seeds of one agent with learning curves, and a policy without a curve."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        curve = [(100, 10 + seed), (200 + 100 * seed, 50 - seed), (500, 40)]
        save_run(folder / f"good-seed{seed}", 1.0, seed=seed, curve=curve, env_steps=300)
    save_run(folder / "bad", -1.0, agent="a2c", env_steps=70)
    return folder


@pytest.fixture(scope="session")
def comparison(runs):
    """Both entries, sampled and greedy, and random."""
    return compare_runs(f"{runs}/good-*", f"{runs}/bad", episodes=24)
