"""Nothing grows however many episodes are played."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_ten_thousand_episodes_hold_what_the_first_ones_held(tmp_path):
    result = tmp_path / "soak.json"
    command = [sys.executable, "-m", "benchmarks.soak", "basic", "--episodes", "10000"]
    subprocess.run([*command, "--json", str(result)], cwd=ROOT, check=True, timeout=1800)
    samples = json.loads(result.read_text())["samples"]
    for name in ("processes", "file_descriptors", "threads", "shared_memory_objects"):
        assert len({sample[name] for sample in samples}) == 1, name
    first, last = samples[1]["megabytes"], samples[-1]["megabytes"]
    assert last < 1.02 * first
