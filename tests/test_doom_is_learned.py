"""That Doom is learned from pixels, by the command a newcomer types: `make test-slow`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_basic_is_learned_and_scored(tmp_path):
    for command in (["train.py", "basic"], ["evaluate.py", "score", "runs/basic/ppo-seed0"]):
        script, *arguments = command
        subprocess.run([sys.executable, str(ROOT / script), *arguments], cwd=tmp_path, check=True)
    result = json.loads((tmp_path / "runs/basic/ppo-seed0/evaluation.json").read_text())
    assert result["protocol"]["episodes"] == 100
    assert result["scores"]["sampled"]["mean"] >= 75
    assert result["scores"]["greedy"]["mean"] >= 75
