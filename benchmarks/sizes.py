"""Measure what size costs: env steps per second of training, and its memory, in one table.

    python -m benchmarks.sizes --out benchmarks/results/sizes.md
    python -m benchmarks.sizes --quick

One size varies at a time: the number of environments from 1 to 256, the screen up to 320x240, the
stack of frames, the memory. Each size is trained in a separate process, with the preset's network
and one epoch. The memory is the proportional set size of all processes, engines included, after the
last update: pages that processes share are counted once. Linux only.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro

from agents.device import choose_device, keep_memory
from benchmarks.memory import descendants, proportional_set_size
from benchmarks.throughput import Throughput, opened, training_config
from storage.provenance import git_revision, hardware
from training.assemble import make_agent, make_collector
from training.config import with_values


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a training.

    Attributes:
        num_envs: number of environments.
        screen: the observed screen, as in 128x72. None: the preset's.
        frame_stack: number of frames in an observation.
        memory: name of the memory.
    """

    num_envs: int = 16
    screen: str | None = None
    frame_stack: int = 1
    memory: str = "none"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured, and for how long."""

    env: tyro.conf.Positional[str] = "health_gathering"
    """The scenario."""
    num_envs: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Numbers of environments."""
    screens: tuple[str, ...] = ("84x84", "128x72", "160x120", "320x240")
    """Sizes of the observed screen."""
    frame_stacks: tuple[int, ...] = (2, 4)
    """Numbers of frames in an observation."""
    memories: tuple[str, ...] = ("gru", "lstm", "mingru", "attention")
    """Memories."""
    seconds: float = 10.0
    """Length of a measurement."""
    quick: bool = False
    """Measure the first and the last of the environments up to 16, the first of the rest, for a
    second each."""
    out: Path | None = None
    """File of the report, in Markdown. None: it is printed only."""


def sizes_of(config: Sizes) -> list[Size]:
    """Return the sizes, each of which differs from the first in one respect."""
    few = slice(1 if config.quick else None)
    numbers = [n for n in config.num_envs if n <= 16 or not config.quick]
    numbers = [numbers[0], numbers[-1]] if config.quick else numbers
    return [
        *(Size(num_envs=number) for number in dict.fromkeys(numbers)),
        *(Size(screen=screen) for screen in config.screens[few]),
        *(Size(frame_stack=stack) for stack in config.frame_stacks[few]),
        *(Size(memory=memory) for memory in config.memories[few]),
    ]


def measure(env: str, size: Size, seconds: float) -> tuple[float, float]:
    """Return env steps per second and MB of a training of a size; for a new process."""
    keep_memory()
    config = training_config(Throughput(device="cpu"), env, size.num_envs, size.screen, size.memory)
    config = with_values(config, {"env.frame_stack": size.frame_stack})
    with opened(config) as envs:
        agent = make_agent(config, envs, choose_device("cpu"))
        with contextlib.closing(make_collector(config, envs, agent, seed=0)) as collector:
            agent.update(collector.collect().rollout)  # The first one allocates memory.
            started, updates = time.perf_counter(), 0
            while (elapsed := time.perf_counter() - started) < seconds or not updates:
                agent.update(collector.collect().rollout)
                updates += 1
            pids = (os.getpid(), *descendants(os.getpid()))
            held = sum(proportional_set_size(pid) for pid in pids)
    return updates * config.env_steps_per_update / elapsed, held


def main() -> None:
    """Measure each size in a separate process, and print or write the table."""
    config = tyro.cli(Sizes, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    machine = hardware()
    lines = [
        "# What size costs",
        "",
        f"{config.env}, {machine['cpu']}, {machine['cores']} cores, {git_revision()}",
        "",
        "| environments | screen | frames | memory | env steps/s | MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    seconds = 1.0 if config.quick else config.seconds
    context = multiprocessing.get_context("spawn")
    for size in sizes_of(config):
        with ProcessPoolExecutor(1, mp_context=context) as process:
            speed, held = process.submit(measure, config.env, size, seconds).result()
        screen = size.screen or "preset's"
        cells = (size.num_envs, screen, size.frame_stack, size.memory)
        lines.append(f"| {' | '.join(map(str, cells))} | {speed:,.0f} | {held:,.0f} |")
        print(lines[-1], flush=True)
    if config.out:
        config.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
