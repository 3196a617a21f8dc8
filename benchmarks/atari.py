"""Measure Atari games stepped by our workers against ale-py's own vector environment.

    python benchmarks/atari.py --num-envs 8 16 32
    python benchmarks/atari.py --num-envs 8 16 32 --details

prints env steps a second with random actions, by the clock and for each second of a core's time.
The two take turns. On a machine that does other things too, the second figure is the one to trust.
Both show four stacked gray frames of 84 x 84, hold actions for four frames with sticky actions, and
begin the next episode in the same step; few episodes end meanwhile. With `--details` both also do
what the preset of Atari asks for: the maximum of two frames, no-op starts, FIRE, ends of lives.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import tyro
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

from envs import EnvConfig, SharedVectorEnv

_TICKS = os.sysconf("SC_CLK_TCK")  # a second, in which /proc counts


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    game: tyro.conf.Positional[str] = "Pong"
    """The game, as in ALE/Pong-v5."""
    num_envs: tuple[int, ...] = (8, 16, 32)
    """Numbers of games."""
    details: bool = False
    """Play as the preset of Atari does."""
    seconds: float = 4.0
    """How long each measurement takes."""
    repeats: int = 5
    """How often each is repeated."""


def main() -> None:
    """Measure and print a Markdown table."""
    config = tyro.cli(Config)
    print("| games | ours | ale-py's | ratio | ours a core second | ale-py's | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for num_envs in config.num_envs:
        pairs = []
        for repeat in range(config.repeats):
            # Who begins changes: the machine's speed drifts.
            order = (ours, theirs) if repeat % 2 else (theirs, ours)
            speeds = {measure: measure(config, num_envs) for measure in order}
            pairs.append((speeds[ours], speeds[theirs]))
        cells = [str(num_envs)]
        for kind in range(2):
            mine, other = zip(*((a[kind], b[kind]) for a, b in pairs), strict=True)
            ratios = [a / b for a, b in zip(mine, other, strict=True)]
            cells += [f"{median(mine):,.0f}", f"{median(other):,.0f}"]
            cells.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        print(f"| {' | '.join(cells)} |", flush=True)


def ours(config: Config, num_envs: int) -> tuple[float, float]:
    """Give the env steps of our workers, without a policy, in a second and in a core's second."""
    world = EnvConfig(
        env=f"ALE/{config.game}-v5",
        observation="gray",
        height=84,
        width=84,
        frame_stack=4,
        max_pool=config.details,
        noop_max=30 if config.details else 0,
        fire_reset=config.details,
        terminal_on_life_loss=config.details,
    )
    with contextlib.closing(SharedVectorEnv(world, num_envs)) as envs:
        envs.reset(seed=0)
        actions = [envs.action_space.sample() for _ in range(64)]

        def step(count: int) -> None:
            envs.send(0, actions[count % 64])
            envs.receive(0)

        workers = [worker.process.pid for worker in envs._workers]
        return speeds_of(step, num_envs, config.seconds, [os.getpid(), *workers])


def theirs(config: Config, num_envs: int) -> tuple[float, float]:
    """Give the same of ale-py's threads, with what ours do not do switched off."""
    envs = AtariVectorEnv(
        config.game.lower(),
        num_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
        repeat_action_probability=0.25,
        noop_max=30 if config.details else 0,
        use_fire_reset=config.details,
        maxpool=config.details,
        episodic_life=config.details,
        reward_clipping=False,
    )
    with contextlib.closing(envs):
        envs.reset(seed=0)
        actions = [envs.action_space.sample() for _ in range(64)]
        return speeds_of(
            lambda count: envs.step(actions[count % 64]), num_envs, config.seconds, [os.getpid()]
        )


def speeds_of(
    step: Callable[[int], Any], num_envs: int, seconds: float, pids: Sequence[int]
) -> tuple[float, float]:
    """Step for a while; give env steps in a second and in a second of a core."""
    before, started, count = core_seconds(pids), time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        step(count)
        count += 1
    return count * num_envs / elapsed, count * num_envs / (core_seconds(pids) - before)


def core_seconds(pids: Sequence[int]) -> float:
    """Give the seconds that cores have worked for these processes so far."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(user) + int(kernel) for *_, user, kernel in (s[:13] for s in stats)) / _TICKS


if __name__ == "__main__":
    main()
