"""Nothing grows however many episodes are played."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_ten_thousand_episodes_hold_what_the_first_ones_held(tmp_path):
    script, result = ROOT / "benchmarks" / "soak.py", tmp_path / "soak.json"
    command = [sys.executable, str(script), "basic", "--episodes", "10000", "--json", str(result)]
    subprocess.run(command, check=True, timeout=1800)
    samples = json.loads(result.read_text())["samples"]
    for name in ("processes", "file_descriptors", "threads", "shared_memory_objects"):
        assert len({sample[name] for sample in samples}) == 1, name
    first, last = samples[1]["megabytes"], samples[-1]["megabytes"]
    assert last < 1.02 * first
