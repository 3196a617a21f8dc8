"""Measure the memory of a training run, over all of its processes, and whether it grows.

    python -m benchmarks.memory health_gathering --updates 1000

The training is that of train.py with 16 environments, the Nature CNN at its full width and one
epoch. Memory is the proportional set size: pages that processes share, mostly code of the engine,
are counted once. Linux only.
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

from storage.provenance import git_revision, hardware

HERE = Path(__file__).parent
NUM_ENVS, ROLLOUT_LENGTH = 16, 64
OPTIONS = ("--conv-channels", "32", "64", "64", "--features", "512", "--num-epochs", "1")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What is measured, and for how long."""

    env: tyro.conf.Positional[str] = "health_gathering"
    """The scenario."""
    updates: int = 1000
    """Number of updates."""
    json: Path | None = None
    """File for the samples."""


def main() -> None:
    """Train, sample the memory, and print a Markdown table with a row for each tenth."""
    config = tyro.cli(Memory, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        samples = watch(config, Path(folder) / "run")
    machine = hardware()
    print(f"{config.env}, {machine['cpu']}, {machine['cores']} cores, {git_revision()}\n")
    print("| updates | MB, median | MB, maximum |")
    print("| --- | --- | --- |")
    for tenth in range(10):
        low, high = config.updates * tenth // 10, config.updates * (tenth + 1) // 10
        held = [size for update, size in samples if low <= update < high] or [float("nan")]
        print(f"| {low} to {high} | {median(held):,.0f} | {max(held):,.0f} |")
    if config.json:
        about: dict[str, Any] = {"env": config.env, "machine": machine, "git": git_revision()}
        config.json.write_text(json.dumps({**about, "samples": samples}) + "\n")


def watch(config: Memory, run_dir: Path) -> list[tuple[int, float]]:
    """Train, and return (updates, MB) for every second."""
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
    """Return the env steps in the last row of a progress.csv."""
    if not progress.is_file():
        return 0
    with progress.open() as file:
        steps = [row["time/total_timesteps"] for row in csv.DictReader(file)]
    return int(steps[-1] or 0) if steps else 0


def descendants(pid: int) -> list[int]:
    """Return the ids of a process's children, and of theirs."""
    found: list[int] = []
    for children in Path("/proc").glob(f"{pid}/task/*/children"):
        with contextlib.suppress(OSError):  # The process has just ended.
            for child in map(int, children.read_text().split()):
                found += [child, *descendants(child)]
    return found


def proportional_set_size(pid: int) -> float:
    """Return the proportional set size of a process in MB; 0 if it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    main()
