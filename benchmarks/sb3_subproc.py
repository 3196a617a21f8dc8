r"""Measure how fast Stable-Baselines3's PPO trains on its own SubprocVecEnv and on ours, in pairs.

    python benchmarks/sb3_subproc.py --json benchmarks/results/sb3_subproc.json

The worlds are the same, observed in the same way, and so is everything of PPO: what differs is how
they are run in parallel. Each measurement is a process of its own; the ratio is of medians.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import tyro

_UPDATES = 3  # that are not measured, before those that are
Kind = Literal["subproc", "shared"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is measured."""

    env: str = "basic"
    """The world."""
    num_envs: tuple[int, ...] = (8, 16, 32)
    """Environments in parallel; each is measured."""
    screen: tuple[int, int] = (80, 60)
    """Width and height of the observed screen, in colour."""
    n_steps: int = 64
    """Env steps of each environment between two updates."""
    batch_size: int = 256
    """Env steps in a minibatch."""
    n_epochs: int = 1
    """Passes over a rollout."""
    seconds: float = 15.0
    """How long each measurement takes, after its warm-up."""
    repeats: int = 3
    """How often each pair is repeated."""
    json: Path | None = None
    """Where to write all figures."""
    only: Kind | None = None
    """Measure this alone, once, and print env steps/s; what each process is asked for."""


def main() -> None:
    """Measure, and print a Markdown table."""
    config = tyro.cli(Measurement, config=(tyro.conf.OmitArgPrefixes,))
    if config.only:
        print(train(config, config.only, config.num_envs[0]))
        return
    from agents.checkpoint import write_json
    from agents.run import git_revision, hardware

    rows = [pairs(config, num_envs) for num_envs in config.num_envs]
    machine = hardware()
    print(f"\n{config.env}, {machine['cpu']}, {machine['cores']} cores, {git_revision()}\n")
    print("| games | SubprocVecEnv, env steps/s | SharedVecEnv, env steps/s | ratio |")
    print("| --- | --- | --- | --- |")
    for row in rows:
        theirs, ours = row["subproc_env_steps_per_s"], row["shared_env_steps_per_s"]
        print(f"| {row['num_envs']} | {theirs:,.0f} | {ours:,.0f} | {ours / theirs:.2f} |")
    if config.json:
        about = {"env": config.env, "machine": machine, "git": git_revision()}
        write_json(config.json, {**about, "rows": rows})


def pairs(config: Measurement, num_envs: int) -> dict[str, Any]:
    """Measure both in turns."""
    speeds: dict[Kind, list[float]] = {"subproc": [], "shared": []}
    for _ in range(config.repeats):
        for kind, measured in speeds.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--only", kind]
            command += ["--num-envs", str(num_envs)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{kind} failed:\n{done.stderr[-3000:]}")
            measured.append(float(done.stdout.splitlines()[-1]))
        print(num_envs, speeds, file=sys.stderr, flush=True)
    medians = {f"{kind}_env_steps_per_s": median(measured) for kind, measured in speeds.items()}
    return {"num_envs": num_envs, **medians, "all": speeds}


def train(config: Measurement, kind: Kind, num_envs: int) -> float:
    """Train for a while, and give env steps a second of whole iterations."""
    # A script of Stable-Baselines3 imports nothing of ours; one on our environments imports these
    # first.
    if kind == "shared":
        from envs.sb3 import make_vec_env
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

    from envs import EnvConfig, make

    width, height = config.screen
    vec_env: VecEnv
    if kind == "shared":
        vec_env = make_vec_env(config.env, num_envs, seed=0, width=width, height=height)
    else:
        world = EnvConfig(env=config.env, observation="rgb", width=width, height=height)
        vec_env = SubprocVecEnv([lambda: make(world)] * num_envs)
        vec_env.seed(0)
    rollout = config.n_steps * num_envs
    model = PPO(
        "CnnPolicy",
        vec_env,
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        seed=0,
    )
    model.learn(_UPDATES * rollout)
    start, steps = time.monotonic(), 0
    while time.monotonic() - start < config.seconds:
        model.learn(rollout, reset_num_timesteps=False)
        steps += rollout
    speed = steps / (time.monotonic() - start)
    vec_env.close()
    return speed


if __name__ == "__main__":
    main()
