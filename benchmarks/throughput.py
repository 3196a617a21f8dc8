"""Measure speed: the engine's ceiling, our sampler with random actions, our training.

    python benchmarks/throughput.py health_gathering defend_the_center --num-envs 8 16

All figures are env steps a second at the preset's frame_skip, medians over repeats in which the
three take turns: on a shared machine the ratios mean something, the absolute figures little. The
ceiling is what bare engines do with random actions when nothing is done with their frames, in as
many processes as there are cores.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as train.py does

import contextlib
import itertools
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro

from agents import PPO, Policy, PPOConfig, Sampler, observation_specs
from agents.commandline import with_fields
from agents.presets import preset
from agents.run import git_revision, hardware
from envs import EnvConfig, SharedVectorEnv, make
from envs.registry import frames_per_env_step
from perception import PerceptionConfig


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What is measured, and how long."""

    envs: tyro.conf.Positional[tuple[str, ...]] = ("health_gathering", "defend_the_center")
    """Scenarios."""
    num_envs: tuple[int, ...] = (16,)
    """Numbers of games."""
    num_groups: int = 2
    """Groups that alternate."""
    seconds: float = 4.0
    """How long each measurement takes."""
    repeats: int = 5
    """How often each is repeated."""
    json: Path | None = None
    """Where to write the medians, a list of rows."""


def main() -> None:
    """Measure, print a Markdown table, and write JSON if asked."""
    if len(sys.argv) > 1 and sys.argv[1] == "engines":
        run_engines(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
        return
    config = tyro.cli(Throughput, config=(tyro.conf.OmitArgPrefixes,))
    rows = [measure(config, env, n) for env in config.envs for n in config.num_envs]
    machine = hardware()
    print(f"\n{machine['cpu']}, {machine['cores']} cores, GPU {machine['gpu']}, {git_revision()}\n")
    print("| scenario | games | engine ceiling | sampler, random actions | training |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        bound = row["ceiling_env_steps_per_s"]
        ours = (row["sampler_env_steps_per_s"], row["training_env_steps_per_s"])
        cells = [row["env"], str(row["num_envs"]), f"{bound:,.0f}"]
        cells += [f"{speed:,.0f} ({speed / bound:.2f})" for speed in ours]
        print(f"| {' | '.join(cells)} |")
    if config.json:
        config.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(config: Throughput, env: str, num_envs: int) -> dict[str, Any]:
    """Measure one scenario with one number of games; the three kinds take turns."""
    env_config = with_fields(EnvConfig(env=env), preset(env, "ppo"))
    figures: dict[str, list[float]] = {"ceiling": [], "sampler": [], "training": []}
    groups = config.num_groups if num_envs % config.num_groups == 0 else 1
    for _ in range(config.repeats):
        # Binding processes to cores helps at times: the ceiling is the better of both.
        bounds = [ceiling(env, num_envs, config.seconds, pinned=pinned) for pinned in (False, True)]
        figures["ceiling"].append(max(bounds))
        with contextlib.closing(SharedVectorEnv(env_config, num_envs, None, groups)) as envs:
            figures["sampler"].append(sample_randomly(envs, config.seconds))
        with contextlib.closing(SharedVectorEnv(env_config, num_envs, None, groups)) as envs:
            figures["training"].append(train(envs, env, config.seconds))
    medians = {f"{name}_env_steps_per_s": median(values) for name, values in figures.items()}
    print(env, num_envs, {name: round(value) for name, value in medians.items()}, flush=True)
    return {"env": env, "num_envs": num_envs, **medians}


def ceiling(env: str, num_envs: int, seconds: float, *, pinned: bool) -> float:
    """Run bare engines, as many processes as cores, and add up their env steps a second."""
    processes = min(os.cpu_count() or 1, num_envs)
    shares = [len(share) for share in np.array_split(np.arange(num_envs), processes)]
    running = []
    for core, share in zip(itertools.cycle(os.sched_getaffinity(0)), shares, strict=False):
        command = [sys.executable, __file__, "engines", env, str(share), str(seconds)]
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        if pinned:
            os.sched_setaffinity(running[-1].pid, {core})
    total = 0.0
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()  # Its engines have started.
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        output, _ = process.communicate()
        total += float(output)
    return total


def run_engines(env: str, count: int, seconds: float) -> None:
    """Step `count` engines in turn with random actions, fetching each frame and dropping it."""
    config = EnvConfig(env=env)
    worlds: list[Any] = [make(config) for _ in range(count)]
    for seed, world in enumerate(worlds):
        world.reset(seed=seed)
    games = [world._game for world in worlds]
    actions = [world._actions.buttons(world.action_space.sample()) for world in worlds * 50]
    skip = frames_per_env_step(config)
    print("ready", flush=True)
    sys.stdin.readline()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for game in games:
            game.make_action(actions[steps % len(actions)], skip)
            if game.is_episode_finished():
                game.new_episode()
            game.get_state()
            steps += 1
    print(steps / (time.perf_counter() - started))
    for world in worlds:
        world.close()


def sample_randomly(envs: SharedVectorEnv, seconds: float) -> float:
    """Step a vector environment by groups with random actions."""
    envs.reset(seed=0)
    size = envs.num_envs // envs.num_groups
    actions = [envs.action_space.sample()[:size] for _ in range(64)]
    for group in range(envs.num_groups):
        envs.send(group, actions[group])
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for group in range(envs.num_groups):
            envs.receive(group)
            envs.send(group, actions[steps % 64])
            steps += 1
    return steps * size / (time.perf_counter() - started)


def train(envs: SharedVectorEnv, env: str, seconds: float) -> float:
    """Collect and update with the preset's policy, one epoch, whole rollouts."""
    fields = preset(env, "ppo")
    policy = Policy(
        observation_specs(envs.single_observation_space, envs.metadata),
        envs.single_action_space,
        with_fields(PerceptionConfig(), fields),
    )
    policy.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in torch
    learning = with_fields(PPOConfig(), {**fields, "num_epochs": 1})
    agent = PPO(policy, learning, num_envs=envs.num_envs, total_updates=1)
    sampler = Sampler(envs, policy, rollout_length=learning.rollout_length, seed=0)
    agent.update(sampler.collect())
    started, updates = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        agent.update(sampler.collect())
        updates += 1
    env_steps = updates * envs.num_envs * learning.rollout_length
    return env_steps / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
