"""Tests of `examples/callbacks.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage.policy_file import load_policy

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_example_stops_at_its_target(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, ROOT / "examples" / "callbacks.py", "--run-dir", run]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*command, "--target", "-1000", "--total-env-steps", "8192"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1,024 env steps: that is enough" in done.stdout
    assert load_policy(run / "policy.safetensors").about.env_steps == 1024
    assert "rollout/best_return" in (run / "progress.csv").read_text()
