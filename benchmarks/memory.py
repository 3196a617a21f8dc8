"""Measure how much memory a training holds, in all of its processes together, and whether it grows.

    python benchmarks/memory.py health_gathering --updates 1000

The training is train.py's, with 16 games and the Nature CNN at its full width, one epoch. Memory is
the proportional set size: what processes share, engine code above all, is counted once. Linux only.
"""

from __future__ import annotations

import contextlib
import csv
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import tyro

from agents.run import git_revision, hardware

HERE = Path(__file__).parent
NUM_ENVS, ROLLOUT_LENGTH = 16, 64
OPTIONS = ("--conv-channels", "32", "64", "64", "--features", "512", "--num-epochs", "1")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What is measured, and how long."""

    env: tyro.conf.Positional[str] = "health_gathering"
    """The scenario."""
    updates: int = 1000
    """How many updates to train."""
    json: Path | None = None
    """Where to write the samples."""


def main() -> None:
    """Train, watch, and print a Markdown table of tenths of the training."""
    config = tyro.cli(Memory)
    with tempfile.TemporaryDirectory() as folder:
        samples = watch(config, Path(folder) / "run")
    machine = hardware()
    print(f"{config.env}, {machine['cpu']}, {machine['cores']} cores, {git_revision()}\n")
    print("| updates | MB, median | MB, most |")
    print("| --- | --- | --- |")
    for tenth in range(10):
        low, high = config.updates * tenth // 10, config.updates * (tenth + 1) // 10
        held = [size for update, size in samples if low <= update < high] or [float("nan")]
        print(f"| {low} to {high} | {median(held):,.0f} | {max(held):,.0f} |")
    if config.json:
        about: dict[str, Any] = {"env": config.env, "machine": machine, "git": git_revision()}
        config.json.write_text(json.dumps({**about, "samples": samples}) + "\n")


def watch(config: Memory, run_dir: Path) -> list[tuple[int, float]]:
    """Train, and once a second note how many updates are done and how many MB are held."""
    steps = config.updates * NUM_ENVS * ROLLOUT_LENGTH
    command = [sys.executable, str(HERE.parent / "train.py"), config.env, *OPTIONS]
    command += ["--num-envs", str(NUM_ENVS), "--rollout-length", str(ROLLOUT_LENGTH)]
    command += ["--total-env-steps", str(steps), "--run-dir", str(run_dir)]
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    samples = []
    while training.poll() is None:
        time.sleep(1.0)
        done = env_steps_done(run_dir / "progress.csv") // (NUM_ENVS * ROLLOUT_LENGTH)
        held = sum(proportional_set_size(pid) for pid in (training.pid, *descendants(training.pid)))
        if done:
            samples.append((done, held))
    if training.returncode != 0:
        sys.exit(f"the training failed with exit status {training.returncode}")
    return samples


def env_steps_done(progress: Path) -> int:
    """Read the last row of a run's progress.csv."""
    if not progress.is_file():
        return 0
    with progress.open() as file:
        steps = [row["time/total_timesteps"] for row in csv.DictReader(file)]
    return int(steps[-1] or 0) if steps else 0


def descendants(pid: int) -> list[int]:
    """List a process's children, and theirs."""
    found: list[int] = []
    for children in Path("/proc").glob(f"{pid}/task/*/children"):
        with contextlib.suppress(OSError):  # It has just ended.
            for child in map(int, children.read_text().split()):
                found += [child, *descendants(child)]
    return found


def proportional_set_size(pid: int) -> float:
    """Give a process's share of memory in MB; 0 if it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    main()
