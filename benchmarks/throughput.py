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
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import contextlib
import itertools
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import tyro

from agents import PPO, PPOConfig, Sampler, build_policy, observation_specs
from agents.commandline import with_fields
from agents.device import choose_device, choose_precision, keep_memory
from agents.presets import preset
from agents.run import git_revision, hardware
from envs import EnvConfig, SharedVectorEnv, make
from envs.registry import frames_per_env_step
from envs.speed import random_env_steps_per_second
from perception import PerceptionConfig


# What is trained: the scenario's preset with one epoch, or what peers are measured with.
_LARGE = {"width": 128, "height": 72, "features": 512, "num_epochs": 1}
WORKLOADS: dict[str, dict[str, Any]] = {
    "preset": {"num_epochs": 1},
    "sample_factory": {
        **_LARGE,
        **{"conv_channels": (32, 64, 128), "conv_strides": (4, 2, 2)},
        **{"memory": "gru", "memory_size": 512, "rollout_length": 32, "minibatch_size": 1024},
    },
    "stable_baselines3": {
        **_LARGE,
        **{"conv_channels": (32, 64, 64), "memory": "none"},
        **{"rollout_length": 128, "minibatch_size": 256},
    },
}


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What is measured, and how long."""

    envs: tyro.conf.Positional[tuple[str, ...]] = ("health_gathering", "defend_the_center")
    """Scenarios."""
    num_envs: tuple[int, ...] = (16,)
    """Numbers of games."""
    screens: tuple[str, ...] = ()
    """Sizes of the observed screen, as in 128x72. Default: the workload's."""
    num_groups: int | None = None
    """Groups that alternate. Default: the preset's."""
    workload: Literal["preset", "sample_factory", "stable_baselines3"] = "preset"
    """What is trained."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the policy lives."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What images are encoded with."""
    seconds: float = 4.0
    """How long each measurement takes."""
    repeats: int = 5
    """How often each is repeated."""
    kinds: tuple[Literal["ceiling", "sampler", "training"], ...] = (
        "ceiling",
        "sampler",
        "training",
    )
    """Which figures."""
    json: str | None = None
    """Where to write the medians, a list of rows; - for the last line of the output."""


def main() -> None:
    """Measure, print a Markdown table, and write JSON if asked."""
    if len(sys.argv) > 1 and sys.argv[1] == "engines":
        run_engines(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
        return
    config = tyro.cli(Throughput, config=(tyro.conf.OmitArgPrefixes,))
    keep_memory()
    rows = [
        measure(config, env, n, screen)
        for env in config.envs
        for n in config.num_envs
        for screen in config.screens or (None,)
    ]
    machine = hardware()
    print(f"\n{machine['cpu']}, {machine['cores']} cores, GPU {machine['gpu']}, {git_revision()}\n")
    print("| scenario | screen | games | engine ceiling | sampler, random actions | training |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        cells = [row["env"], row["screen"], str(row["num_envs"])]
        bound = row.get("ceiling_env_steps_per_s")
        for kind in ("ceiling", "sampler", "training"):
            speed = row.get(f"{kind}_env_steps_per_s")
            share = f" ({speed / bound:.2f})" if speed and bound and kind != "ceiling" else ""
            cells.append(f"{speed:,.0f}{share}" if speed else "not measured")
        print(f"| {' | '.join(cells)} |")
    if config.json == "-":
        print(json.dumps(rows))
    elif config.json:
        Path(config.json).write_text(json.dumps(rows, indent=2) + "\n")


def measure(config: Throughput, env: str, num_envs: int, screen: str | None) -> dict[str, Any]:
    """Measure one scenario with one number of games; the three kinds take turns."""
    fields = {**preset(env, "ppo"), **WORKLOADS[config.workload]}
    if screen is not None:
        fields["width"], fields["height"] = map(int, screen.split("x"))
    screen = f"{fields['width']}x{fields['height']}"
    env_config = with_fields(EnvConfig(env=env), fields)
    figures: dict[str, list[float]] = {kind: [] for kind in config.kinds}
    groups = config.num_groups or fields["num_groups"]
    groups = groups if num_envs % groups == 0 else 1
    for _ in range(config.repeats):
        if "ceiling" in figures:
            # Binding processes to cores helps at times: the ceiling is the better of both.
            bounds = [ceiling(env, num_envs, config.seconds, pinned=p) for p in (False, True)]
            figures["ceiling"].append(max(bounds))
        if "sampler" in figures:
            with contextlib.closing(SharedVectorEnv(env_config, num_envs, None, groups)) as envs:
                speed = random_env_steps_per_second(envs, 32)
                num_steps = max(1, round(speed * config.seconds / num_envs))
                figures["sampler"].append(random_env_steps_per_second(envs, num_steps))
        if "training" in figures:
            with contextlib.closing(SharedVectorEnv(env_config, num_envs, None, groups)) as envs:
                figures["training"].append(train(envs, fields, config))
    medians = {f"{name}_env_steps_per_s": median(values) for name, values in figures.items()}
    rounded = {name: round(value) for name, value in medians.items()}
    print(env, screen, num_envs, rounded, flush=True)
    return {"env": env, "screen": screen, "num_envs": num_envs, **medians}


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


def train(envs: SharedVectorEnv, fields: dict[str, Any], config: Throughput) -> float:
    """Collect and update, whole rollouts, and say how many env steps a second that makes."""
    device = choose_device(config.device)
    policy = build_policy(
        observation_specs(envs.single_observation_space, envs.metadata),
        envs.single_action_space,
        with_fields(PerceptionConfig(), fields),
        device=device,
        precision=choose_precision(config.precision, device),
    )
    learning = with_fields(PPOConfig(), fields)
    agent = PPO(policy, learning, num_envs=envs.num_envs, total_updates=1)
    sampler = Sampler(envs, policy, rollout_length=learning.rollout_length, seed=0)
    agent.update(sampler.collect().rollout)  # A first one, that memory is at hand.
    started, updates = time.perf_counter(), 0
    while time.perf_counter() - started < config.seconds:
        agent.update(sampler.collect().rollout)
        updates += 1
    env_steps = updates * envs.num_envs * learning.rollout_length
    return env_steps / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
