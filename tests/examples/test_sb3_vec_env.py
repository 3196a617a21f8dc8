"""Tests of `examples/sb3_vec_env.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_example_trains_and_evaluates(tmp_path):
    command = [sys.executable, ROOT / "examples" / "sb3_vec_env.py", "--timesteps", "1024"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "rollout/" in done.stdout
    mean = re.search(r"mean return (-?[\d.]+) \+/- [\d.]+ over 32 episodes", done.stdout)
    assert mean
    assert -400 <= float(mean[1]) <= 95
