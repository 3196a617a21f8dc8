"""Compare the speed of Atari in our vector environment and in ale-py's own.

    python -m benchmarks.atari --num-envs 8 16 32
    python -m benchmarks.atari --num-envs 8 16 32 --details

prints env steps per second of wall-clock time and per second of CPU time, with random actions. The
two are measured alternately. On a machine with other load, the figure per second of CPU time is the
more reliable one. Both observe four stacked gray 84x84 frames, repeat each action for four frames
with sticky actions, and start the next episode in the same step; few episodes end during a
measurement. With `--details`, both also do what the Atari preset does: the maximum of two frames,
no-op starts, FIRE, and the loss of a life as the end of an episode.
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

_TICKS = os.sysconf("SC_CLK_TCK")  # per second; the unit of CPU times in /proc


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    game: tyro.conf.Positional[str] = "Pong"
    """The Atari game, as in ALE/Pong-v5."""
    num_envs: tuple[int, ...] = (8, 16, 32)
    """Numbers of environments."""
    details: bool = False
    """Use the options of the Atari preset."""
    seconds: float = 4.0
    """Length of a measurement."""
    repeats: int = 5
    """Repetitions of each measurement."""


def main() -> None:
    """Measure, and print a Markdown table."""
    config = tyro.cli(Config, description=__doc__)
    print("| environments | ours | ale-py's | ratio | ours per CPU second | ale-py's | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for num_envs in config.num_envs:
        pairs = []
        for repeat in range(config.repeats):
            # The order alternates, because the machine's speed drifts.
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
    """Return our env steps per second and per CPU second, without a policy."""
    env_config = EnvConfig(
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
    with contextlib.closing(SharedVectorEnv(env_config, num_envs)) as envs:
        envs.reset(seed=0)
        actions = [envs.action_space.sample() for _ in range(64)]

        def step(count: int) -> None:
            envs.send(0, actions[count % 64])
            envs.receive(0)

        workers = [worker.process.pid for worker in envs._workers]
        return speeds_of(step, num_envs, config.seconds, [os.getpid(), *workers])


def theirs(config: Config, num_envs: int) -> tuple[float, float]:
    """Return the same for ale-py's threads, without the features that ours lacks."""
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
    """Step for a while, and return env steps per second and per CPU second.

    Args:
        step: steps all environments once; its argument counts the calls.
        num_envs: number of environments.
        seconds: for how long.
        pids: the processes whose CPU time counts.
    """
    before, started, count = cpu_seconds(pids), time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        step(count)
        count += 1
    return count * num_envs / elapsed, count * num_envs / (cpu_seconds(pids) - before)


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the CPU time that processes have used so far, in seconds."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(user) + int(kernel) for *_, user, kernel in (s[:13] for s in stats)) / _TICKS


if __name__ == "__main__":
    main()
