"""Measure Atari games stepped by our workers against ale-py's own vector environment.

    python benchmarks/atari.py --num-envs 8 16 32

prints env steps a second with random actions, and the median ratio of the two. They take turns, so
that on a shared machine the ratios mean something. Both show four stacked gray frames of 84 x 84,
hold actions for four frames with sticky actions, and begin the next episode in the same step.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from statistics import median

import tyro
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

from envs import EnvConfig, SharedVectorEnv
from envs.speed import random_env_steps_per_second


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    game: tyro.conf.Positional[str] = "Pong"
    """The game, as in ALE/Pong-v5."""
    num_envs: tuple[int, ...] = (8, 16, 32)
    """Numbers of games."""
    num_groups: int = 1
    """Groups that alternate in our workers."""
    seconds: float = 4.0
    """How long each measurement takes."""
    repeats: int = 5
    """How often each is repeated."""


def main() -> None:
    """Measure and print a Markdown table."""
    config = tyro.cli(Config)
    print("| games | ours | ale-py's | ours / ale-py's, median (lowest to highest) |")
    print("| --- | --- | --- | --- |")
    for num_envs in config.num_envs:
        pairs = []
        for repeat in range(config.repeats):
            # Who begins changes: the machine's speed drifts.
            order = (ours, theirs) if repeat % 2 else (theirs, ours)
            speeds = {measure: measure(config, num_envs) for measure in order}
            pairs.append((speeds[ours], speeds[theirs]))
        ratios = [mine / other for mine, other in pairs]
        mine, other = (median(column) for column in zip(*pairs, strict=True))
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {num_envs} | {mine:,.0f} | {other:,.0f} | {spread} |", flush=True)


def ours(config: Config, num_envs: int) -> float:
    """Give the env steps a second of our workers, without a policy."""
    world = EnvConfig(
        env=f"ALE/{config.game}-v5", observation="gray", height=84, width=84, frame_stack=4
    )
    envs = SharedVectorEnv(world, num_envs, num_groups=config.num_groups)
    with contextlib.closing(envs):
        return random_env_steps_per_second(envs, config.seconds)


def theirs(config: Config, num_envs: int) -> float:
    """Give the env steps a second of ale-py's threads, with what ours do not do switched off."""
    envs = AtariVectorEnv(
        config.game.lower(),
        num_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
        repeat_action_probability=0.25,
        noop_max=0,
        use_fire_reset=False,
        maxpool=False,
        reward_clipping=False,
    )
    with contextlib.closing(envs):
        envs.reset(seed=0)
        actions = [envs.action_space.sample() for _ in range(64)]
        started, steps = time.perf_counter(), 0
        while time.perf_counter() - started < config.seconds:
            envs.step(actions[steps % 64])
            steps += 1
        return steps * num_envs / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
