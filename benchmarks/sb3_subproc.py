"""Compare the speed of Stable-Baselines3's PPO on its own SubprocVecEnv and on our SharedVecEnv.

    python -m benchmarks.sb3_subproc --json benchmarks/results/sb3_subproc.json

Environments, observations and everything about PPO are the same; only the vector environment
differs. Each measurement runs in a process of its own; ratios are of medians.
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

_WARM_UP_UPDATES = 3
Kind = Literal["subproc", "shared"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is measured."""

    env: str = "basic"
    """The environment."""
    num_envs: tuple[int, ...] = (8, 16, 32)
    """Numbers of environments in parallel."""
    screen: tuple[int, int] = (80, 60)
    """Width and height of the observed screen, in colour."""
    n_steps: int = 64
    """Env steps in each environment between two updates."""
    batch_size: int = 256
    """Env steps in a minibatch."""
    n_epochs: int = 1
    """Passes over a rollout."""
    seconds: float = 15.0
    """Length of a measurement, after its warm-up."""
    repeats: int = 3
    """Repetitions of each pair of measurements."""
    json: Path | None = None
    """File for all figures."""
    only: Kind | None = None
    """Measure only this one, once, and print env steps per second; used by the processes."""


def main() -> None:
    """Measure, and print a Markdown table."""
    config = tyro.cli(Measurement, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    if config.only:
        print(train(config, config.only, config.num_envs[0]))
        return
    from storage.files import write_json
    from storage.provenance import git_revision, hardware

    rows = [pairs(config, num_envs) for num_envs in config.num_envs]
    machine = hardware()
    print(f"\n{config.env}, {machine['cpu']}, {machine['cores']} cores, {git_revision()}\n")
    print("| environments | SubprocVecEnv, env steps/s | SharedVecEnv, env steps/s | ratio |")
    print("| --- | --- | --- | --- |")
    for row in rows:
        theirs, ours = row["subproc_env_steps_per_s"], row["shared_env_steps_per_s"]
        print(f"| {row['num_envs']} | {theirs:,.0f} | {ours:,.0f} | {ours / theirs:.2f} |")
    if config.json:
        about = {"env": config.env, "machine": machine, "git": git_revision()}
        write_json(config.json, {**about, "rows": rows})


def pairs(config: Measurement, num_envs: int) -> dict[str, Any]:
    """Measure both alternately."""
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
    """Train for a while, and return env steps per second of whole iterations."""
    # `envs.sb3` must be imported before torch; a script with SubprocVecEnv does not import it.
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
        env_config = EnvConfig(env=config.env, observation="rgb", width=width, height=height)
        vec_env = SubprocVecEnv([lambda: make(env_config)] * num_envs)
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
    model.learn(_WARM_UP_UPDATES * rollout)
    start, steps = time.monotonic(), 0
    while time.monotonic() - start < config.seconds:
        model.learn(rollout, reset_num_timesteps=False)
        steps += rollout
    speed = steps / (time.monotonic() - start)
    vec_env.close()
    return speed


if __name__ == "__main__":
    main()
