"""Measure how fast matches of several players step, with random actions for all.

    python -m benchmarks.players --num-envs 1 4 --num-workers 2

prints, for each kind and number of matches, env steps per second (of all matches together), agent
frames per second (tics times players that have an engine), and CPU milliseconds per env step, which
hold on a busy machine too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from pathlib import Path

from benchmarks.memory import descendants
from envs import EnvConfig, SharedVectorEnv
from envs.doom.players import KINDS, PREFIX
from envs.registry import frames_per_env_step

_TICKS = os.sysconf("SC_CLK_TCK")


def descendants_cpu_s() -> float:
    """Return the CPU seconds of this process's descendants that are running: workers, engines."""
    used = 0
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):  # It has just ended.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used += int(fields[11]) + int(fields[12])
    return used / _TICKS


def measure(kind: str, num_envs: int, num_workers: int, steps: int) -> str:
    """Step matches with random actions, and return a row of the table."""
    config = EnvConfig(env=PREFIX + kind, height=60, width=80)
    players = KINDS[kind].num_players
    started = time.perf_counter()
    with contextlib.closing(SharedVectorEnv(config, num_envs, num_workers)) as envs:
        envs.action_space.seed(0)
        envs.reset(seed=0)
        start = time.perf_counter() - started
        before, started = descendants_cpu_s(), time.perf_counter()
        for _ in range(steps):
            envs.step(envs.action_space.sample())
        seconds, cpu = time.perf_counter() - started, descendants_cpu_s() - before
        restarts = envs.num_restarts
    speed = steps * num_envs / seconds
    frames = speed * frames_per_env_step(config) * players
    return (
        f"| {kind} | {num_envs} | {num_workers} | {start:.1f} | {speed:,.0f} | {frames:,.0f} | "
        f"{1000 * cpu / (steps * num_envs):.1f} | {restarts} |"
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--num-envs", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--num-workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    columns = ("kind", "matches", "workers", "start (s)", "env steps/s", "agent frames/s")
    print(f"| {' | '.join(columns)} | CPU ms per env step | restarts |")
    print("| --- |" + " ---: |" * 7)
    for kind in arguments.kinds:
        for num_envs in arguments.num_envs:
            workers = min(arguments.num_workers, num_envs)
            print(measure(kind, num_envs, workers, arguments.steps), flush=True)


if __name__ == "__main__":
    main()
