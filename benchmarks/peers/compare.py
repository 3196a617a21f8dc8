r"""Measure our speed and the peers' alternately, with the same workload, and print the ratios.

    python benchmarks/peers/compare.py --sample-factory build/peers/sample-factory/bin/python \
        --sb3 build/peers/sb3/bin/python --envpool build/peers/envpool/bin/python \
        --pufferlib build/peers/pufferlib/bin/python

It runs in this project's virtual environment, and starts each peer with the Python given for it.
It compares training with Sample Factory's recurrent network, training with the Nature CNN, and
stepping with random actions; README.md describes what is the same and what differs. Each setting
is tried once; then the fastest of each are measured in turns, and ratios are of medians.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import tyro

from storage.files import write_json
from storage.provenance import git_revision, hardware

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Which peers are measured, and how."""

    env: str = "health_gathering"
    """The scenario."""
    sample_factory: Path | None = None
    """Python of the virtual environment with Sample Factory."""
    sb3: Path | None = None
    """Python of the virtual environment with Stable-Baselines3."""
    envpool: Path | None = None
    """Python of the virtual environment with EnvPool."""
    pufferlib: Path | None = None
    """Python of the virtual environment with PufferLib."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the policies that are trained."""
    seconds: float = 20.0
    """Length of a measurement, after its warm-up."""
    repeats: int = 3
    """Turns of the peer's and our fastest setting, after every setting was tried once."""
    json: Path | None = None
    """File for all figures."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """A measurement of a peer and the same of ours; of several settings, the fastest counts."""

    peer: str
    python: Path | None
    script: str
    settings: tuple[str, ...]
    workload: str
    kind: str
    ours: tuple[str, ...]
    device: str | None = None


def matches(config: Comparison) -> list[Match]:
    """Return the comparisons with the peers that are configured."""
    stepping: Any = {
        "workload": "stable_baselines3",
        "kind": "sampler",
        "ours": ("--num-envs 16 --num-groups 4", "--num-envs 32 --num-groups 4"),
    }
    cores = len(os.sched_getaffinity(0))
    ours = tuple(f"--num-envs {number} --num-groups 4" for number in (64, 128))
    found = [
        Match(
            peer="Sample Factory, recurrent training",
            python=config.sample_factory,
            script="sample_factory_appo.py",
            settings=(
                *(f"--num-envs {n * cores} --num-workers {cores}" for n in (8, 16, 32)),
                f"--num-envs {16 * cores} --num-workers {2 * cores}",
                # In this mode, a rollout of all environments must fit into a batch.
                "--num-envs 32 --num-workers 2 --mode sync",
            ),
            workload="sample_factory",
            kind="training",
            device="gpu" if config.device == "cuda" else "cpu",
            ours=ours,
        ),
        Match(
            peer="Stable-Baselines3, Nature CNN, training",
            python=config.sb3,
            script="sb3_ppo.py",
            settings=tuple(f"--num-envs {number}" for number in (8, 16, 32, 64, 128)),
            workload="stable_baselines3",
            kind="training",
            device=config.device,
            ours=ours,
        ),
        Match(
            peer="EnvPool, random actions",
            python=config.envpool,
            script="envpool_random.py",
            settings=(
                "--num-envs 16 --num-workers 2 --batch-size 8",
                "--num-envs 16 --num-workers 4 --batch-size 8",
                "--num-envs 16 --num-workers 4 --batch-size 16",
                "--num-envs 32 --num-workers 4 --batch-size 16",
                "--num-envs 64 --num-workers 4 --batch-size 32",
            ),
            **stepping,
        ),
        Match(
            peer="PufferLib, random actions",
            python=config.pufferlib,
            script="pufferlib_vec.py",
            settings=(
                "--num-envs 16 --num-workers 2 --batch-size 8",
                "--num-envs 16 --num-workers 2 --batch-size 16",
                "--num-envs 16 --num-workers 4 --batch-size 8",
                "--num-envs 32 --num-workers 2 --batch-size 16",
                "--num-envs 64 --num-workers 2 --batch-size 32",
            ),
            **stepping,
        ),
    ]
    return [match for match in found if match.python is not None]


def main() -> None:
    """Measure, and print a Markdown table."""
    config = tyro.cli(Comparison, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    machine = hardware()
    about = {"env": config.env, "machine": machine, "git": git_revision()}
    rows: list[dict[str, Any]] = []
    for match in matches(config):
        rows.append({"peer": match.peer, **turns(config, match)})
        if config.json:
            write_json(config.json, {**about, "rows": rows})
    print(f"\n{config.env}, {machine['cpu']}, {machine['cores']} cores, {git_revision()}\n")
    print("| peer | its env steps/s | ours | ratio |")
    print("| --- | --- | --- | --- |")
    for row in rows:
        theirs, ours_best = row["peer_env_steps_per_s"], row["ours_env_steps_per_s"]
        print(f"| {row['peer']} | {theirs:,.0f} | {ours_best:,.0f} | {ours_best / theirs:.2f} |")


def turns(config: Comparison, match: Match) -> dict[str, Any]:
    """Measure every setting once, then the peer's and our fastest setting in turns."""
    seconds = ["--seconds", str(config.seconds)]
    peer = [str(match.python), str(HERE / match.script), "--env", config.env, *seconds]
    peer += ["--device", match.device] if match.device else []
    us = [sys.executable, "-m", "benchmarks.throughput", config.env, *seconds]
    us += ["--device", config.device, "--kinds", match.kind, "--workload", match.workload]
    us += ["--repeats", "1", "--json", "-"]

    def theirs(setting: str) -> float:
        return float(last_json([*peer, *setting.split()])["env_steps_per_s"])

    def ours(setting: str) -> float:
        (row,) = last_json([*us, *setting.split()])
        return float(row[f"{match.kind}_env_steps_per_s"])

    tried = {setting: theirs(setting) for setting in match.settings}
    our_tried = {setting: ours(setting) for setting in match.ours}
    best, our_best = max(tried, key=tried.__getitem__), max(our_tried, key=our_tried.__getitem__)
    print(match.peer, tried, our_tried, file=sys.stderr, flush=True)
    measured = [(theirs(best), ours(our_best)) for _ in range(config.repeats)]
    speeds, our_speeds = map(list, zip(*measured, strict=True))
    return {
        "peer_env_steps_per_s": median(speeds),
        "ours_env_steps_per_s": median(our_speeds),
        "peer_setting": best,
        "ours_setting": our_best,
        "peer_tried": tried,
        "ours_tried": our_tried,
        "peer_turns": speeds,
        "ours_turns": our_speeds,
    }


def last_json(command: list[str]) -> Any:
    """Run a command, and return the JSON in the last line that it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
