"""Measure the cost of recording episodes: pairs of short training runs, with and without it.

    python -m benchmarks.recording defend_the_center --pairs 5

prints the seconds that each command takes, and the median of the pairs' ratios. Nothing else should
run at the same time.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

_TRAIN = Path(__file__).resolve().parent.parent / "train.py"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")]
    """The environment."""
    pairs: int = 5
    """Number of pairs of training runs."""
    total_env_steps: int = 60_000
    """Length of each training run."""


def main() -> None:
    """Measure, and print."""
    config = tyro.cli(Config, description=__doc__)
    ratios = []
    for pair in range(config.pairs):
        # The order alternates, because the machine's speed drifts.
        order = ("--record", "--no-record") if pair % 2 else ("--no-record", "--record")
        seconds = {option: seconds_of(config, option) for option in order}
        ratios.append(seconds["--record"] / seconds["--no-record"])
        times = ", ".join(f"{option} {seconds[option]:.2f} s" for option in sorted(seconds))
        print(f"{times}: ratio {ratios[-1]:.4f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.4f}")


def seconds_of(config: Config, option: str) -> float:
    """Train once, and return the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        length = ("--total-env-steps", str(config.total_env_steps))
        command = [sys.executable, str(_TRAIN), config.env, *length, option, "--run-dir", folder]
        started = time.perf_counter()
        subprocess.run([*command, "--fresh"], check=True, capture_output=True)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
