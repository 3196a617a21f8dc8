"""Measure the speed of bare engines, of our environments with random actions, and of our training.

    python -m benchmarks.throughput health_gathering defend_the_center --num-envs 8 16

All figures are env steps per second at the preset's frame_skip, medians over repetitions in which
the three are measured alternately: on a shared machine, ratios are more reliable than absolute
figures. The engine ceiling is the speed of bare engines with random actions whose frames are
fetched and dropped, in as many processes as there are cores.
"""

from __future__ import annotations

from commands.start import prepare

prepare("", THP_MEM_ALLOC_ENABLE="1")  # as train.py does

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import tyro

from agents.device import choose_device, choose_precision, keep_memory
from agents.gradients import GradientMode
from benchmarks.limits import best_speed, measured_rates, training_work
from envs import EnvConfig, SharedVectorEnv, make
from envs.registry import frames_per_env_step
from envs.speed import random_env_steps_per_second
from storage.provenance import git_revision, hardware
from training.assemble import make_agent, make_collector, make_envs
from training.config import AnyTrainConfig, default_config, with_values

_ROOT = Path(__file__).parents[1]
# What is trained: the scenario's preset with one epoch, or what the peers are compared on.
_LARGE: dict[str, Any] = {
    "env.width": 128,
    "env.height": 72,
    "perception.encoder.features": 512,
    "agent.num_epochs": 1,
}
WORKLOADS: dict[str, dict[str, Any]] = {
    "preset": {"agent.num_epochs": 1},
    "sample_factory": {
        **_LARGE,
        "perception.encoder.conv_channels": (32, 64, 128),
        "perception.encoder.conv_strides": (4, 2, 2),
        "perception.memory.memory_size": 512,
        "agent.rollout_length": 32,
        "agent.minibatch_size": 1024,
    },
    "stable_baselines3": {
        **_LARGE,
        "perception.encoder.conv_channels": (32, 64, 64),
        "agent.rollout_length": 128,
        "agent.minibatch_size": 256,
    },
}
# Names of memories; other networks use the preset's.
MEMORIES = {"sample_factory": "gru", "stable_baselines3": "none"}


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What is measured, and for how long."""

    envs: tyro.conf.Positional[tuple[str, ...]] = ("health_gathering", "defend_the_center")
    """Scenarios."""
    num_envs: tuple[int, ...] = (16,)
    """Numbers of environments."""
    screens: tuple[str, ...] = ()
    """Sizes of the observed screen, as in 128x72. Empty: the workload's."""
    num_groups: int | None = None
    """Number of groups of environments that alternate. None: the preset's."""
    workload: Literal["preset", "sample_factory", "stable_baselines3"] = "preset"
    """What is trained."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the policy."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the image encoder and the memory."""
    gradients: GradientMode = "auto"
    """How gradients are computed."""
    seconds: float = 4.0
    """Length of a measurement."""
    repeats: int = 5
    """Repetitions of each measurement."""
    kinds: tuple[Literal["ceiling", "sampler", "training"], ...] = (
        "ceiling",
        "sampler",
        "training",
    )
    """Which speeds are measured."""
    json: str | None = None
    """File for the medians, a list of rows. -: print them as the last line of the output."""


def main() -> None:
    """Measure, print a Markdown table, and write JSON if requested."""
    if len(sys.argv) > 1 and sys.argv[1] == "engines":
        run_engines(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
        return
    config = tyro.cli(Throughput, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    keep_memory()
    rows = [
        measure(config, env, n, screen)
        for env in config.envs
        for n in config.num_envs
        for screen in config.screens or (None,)
    ]
    machine = hardware()
    print(f"\n{machine['cpu']}, {machine['cores']} cores, GPU {machine['gpu']}, {git_revision()}\n")
    print("In brackets: share of the engine ceiling; of training, then that of the best speed.\n")
    print(
        "| scenario | screen | environments | engine ceiling | random actions | training | best |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        cells = [row["env"], row["screen"], str(row["num_envs"])]
        bound = row.get("ceiling_env_steps_per_s")
        for kind in ("ceiling", "sampler", "training"):
            speed = row.get(f"{kind}_env_steps_per_s")
            bounds = [bound] if kind != "ceiling" else []
            bounds += [row.get("best_env_steps_per_s")] if kind == "training" else []
            shares = ", ".join(f"{speed / each:.2f}" for each in bounds if speed and each)
            share = f" ({shares})" if shares else ""
            cells.append(f"{speed:,.0f}{share}" if speed else "not measured")
        best = row.get("best_env_steps_per_s")
        cells.append(f"{best:,.0f}" if best else "not measured")
        print(f"| {' | '.join(cells)} |")
    if config.json == "-":
        print(json.dumps(rows))
    elif config.json:
        Path(config.json).write_text(json.dumps(rows, indent=2) + "\n")


def training_config(
    config: Throughput, env: str, num_envs: int, screen: str | None, memory: str | None = None
) -> AnyTrainConfig:
    """Return the configuration of the training that is measured; by default, the workload's."""
    values = {
        **WORKLOADS[config.workload],
        "num_envs": num_envs,
        "device": config.device,
        "precision": config.precision,
        "gradients": config.gradients,
    }
    if screen is not None:
        values["env.width"], values["env.height"] = map(int, screen.split("x"))
    default = default_config(env, memory=memory or MEMORIES.get(config.workload))
    groups = config.num_groups or default.num_groups
    values["num_groups"] = groups if num_envs % groups == 0 else 1
    return with_values(default, values)


def measure(config: Throughput, env: str, num_envs: int, screen: str | None) -> dict[str, Any]:
    """Measure one scenario with one number of environments, the three kinds alternately."""
    training = training_config(config, env, num_envs, screen)
    screen = f"{training.env.width}x{training.env.height}"
    figures: dict[str, list[float]] = {kind: [] for kind in config.kinds}
    for _ in range(config.repeats):
        if "ceiling" in figures:
            # Pinning processes to cores sometimes helps: the ceiling is the better of both.
            bounds = [ceiling(env, num_envs, config.seconds, pinned=p) for p in (False, True)]
            figures["ceiling"].append(max(bounds))
        if "sampler" in figures:
            figures["sampler"].append(random_play(training, config.seconds))
        if "training" in figures:
            figures["training"].append(train(training, config.seconds))
    medians = {f"{name}_env_steps_per_s": median(values) for name, values in figures.items()}
    if {"ceiling", "training"} <= figures.keys() and choose_device(config.device).type == "cpu":
        medians["best_env_steps_per_s"] = best(training, medians["ceiling_env_steps_per_s"])
    rounded = {name: round(value) for name, value in medians.items()}
    print(env, screen, num_envs, rounded, flush=True)
    return {"env": env, "screen": screen, "num_envs": num_envs, **medians}


def ceiling(env: str, num_envs: int, seconds: float, *, pinned: bool) -> float:
    """Run bare engines in as many processes as cores, and return their total speed.

    Args:
        env: the scenario.
        num_envs: number of engines.
        seconds: for how long.
        pinned: whether each process is pinned to one core.

    Returns:
        Env steps per second.
    """
    processes = min(os.cpu_count() or 1, num_envs)
    shares = [len(share) for share in np.array_split(np.arange(num_envs), processes)]
    running = []
    for core, share in zip(itertools.cycle(os.sched_getaffinity(0)), shares, strict=False):
        command = [sys.executable, "-m", "benchmarks.throughput"]
        command += ["engines", env, str(share), str(seconds)]
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, text=True))
        if pinned:
            os.sched_setaffinity(running[-1].pid, {core})
    total = 0.0
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()  # It prints a line when its engines have started.
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        output, _ = process.communicate()
        total += float(output)
    return total


def run_engines(env: str, count: int, seconds: float) -> None:
    """Step engines in turn with random actions, fetching and dropping each frame."""
    config = EnvConfig(env=env)
    envs: list[Any] = [make(config) for _ in range(count)]
    for seed, each in enumerate(envs):
        each.reset(seed=seed)
    engines = [each._game for each in envs]
    actions = [each._actions.buttons(each.action_space.sample()) for each in envs * 50]
    skip = frames_per_env_step(config)
    print("ready", flush=True)
    sys.stdin.readline()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for engine in engines:
            engine.make_action(actions[steps % len(actions)], skip)
            if engine.is_episode_finished():
                engine.new_episode()
            engine.get_state()
            steps += 1
    print(steps / (time.perf_counter() - started))
    for each in envs:
        each.close()


def opened(config: AnyTrainConfig) -> contextlib.closing[SharedVectorEnv]:
    """Open the environments of a training run."""
    return contextlib.closing(make_envs(config, config.num_envs, config.num_groups))


def random_play(config: AnyTrainConfig, seconds: float) -> float:
    """Step environments with random actions, and return env steps per second."""
    with opened(config) as envs:
        speed = random_env_steps_per_second(envs, 32)
        num_steps = max(1, round(speed * seconds / config.num_envs))
        return random_env_steps_per_second(envs, num_steps)


def best(config: AnyTrainConfig, engines: float) -> float:
    """Return the best env steps per second of training on these cores, see `best_speed`.

    Args:
        config: the training.
        engines: env steps per second of the bare engines.
    """
    device = choose_device("cpu")
    with opened(config) as envs:
        agent = make_agent(config, envs, device)
        with contextlib.closing(make_collector(config, envs, agent, seed=0)) as collector:
            rollout = collector.collect().rollout
            phases = training_work(agent, rollout, config.num_envs // config.num_groups)
    rates = measured_rates(choose_precision(config.precision, device), 0.5)
    return best_speed(engines, len(os.sched_getaffinity(0)), phases, rates)


def train(config: AnyTrainConfig, seconds: float) -> float:
    """Collect and update, whole rollouts, and return env steps per second."""
    with opened(config) as envs:
        agent = make_agent(config, envs, choose_device(config.device))
        with contextlib.closing(make_collector(config, envs, agent, seed=0)) as collector:
            agent.update(collector.collect().rollout)  # The first one allocates memory.
            started, updates = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                agent.update(collector.collect().rollout)
                updates += 1
            elapsed = time.perf_counter() - started
    return updates * config.env_steps_per_update / elapsed


if __name__ == "__main__":
    main()
