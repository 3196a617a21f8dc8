"""Play thousands of episodes and watch memory, file descriptors, threads and shared memory.

    python -m benchmarks.soak basic --episodes 10000

Actions are random; 16 environments run in as many workers as there are cores. The figures are
totals over the main process and all of its descendants. Linux only.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.memory import descendants, proportional_set_size
from envs import EnvConfig, SharedVectorEnv
from storage.provenance import git_revision, hardware


@dataclass(frozen=True, kw_only=True)
class Soak:
    """What is played, and for how long."""

    env: tyro.conf.Positional[str] = "basic"
    """The scenario."""
    episodes: int = 10_000
    """Number of episodes."""
    json: Path | None = None
    """File for the samples."""


@dataclass(frozen=True)
class Sample:
    """The resources in use after some episodes."""

    episodes: int
    processes: int
    megabytes: float
    file_descriptors: int
    threads: int
    shared_memory_objects: int


def main() -> None:
    """Play, and print a Markdown table of twenty samples."""
    config = tyro.cli(Soak, description=__doc__)
    samples = []
    with contextlib.closing(SharedVectorEnv(EnvConfig(env=config.env), 16)) as envs:
        envs.reset(seed=0)
        actions = [envs.action_space.sample() for _ in range(997)]
        played = steps = 0
        while played < config.episodes:
            envs.send(0, actions[steps % len(actions)])
            transition = envs.receive(0)
            before = played
            played += int(np.sum(transition.terminated | transition.truncated))
            steps += 1
            if played * 20 // config.episodes > before * 20 // config.episodes:
                samples.append(sample(played))
        assert envs.num_restarts == 0, envs.last_restart
    machine = hardware()
    print(f"{config.env}, {machine['cpu']}, {machine['cores']} cores, {git_revision()}\n")
    print("| episodes | processes | MB | file descriptors | threads | in /dev/shm |")
    print("| --- | --- | --- | --- | --- | --- |")
    for s in samples:
        held = f"{s.megabytes:,.1f} | {s.file_descriptors} | {s.threads}"
        print(f"| {s.episodes:,} | {s.processes} | {held} | {s.shared_memory_objects} |")
    if config.json:
        about = {"env": config.env, "machine": machine, "git": git_revision()}
        rows = [asdict(s) for s in samples]
        config.json.write_text(json.dumps({**about, "samples": rows}, indent=2) + "\n")


def sample(episodes: int) -> Sample:
    """Count the resources that this process and its descendants use now."""
    pids = [os.getpid(), *descendants(os.getpid())]
    return Sample(
        episodes=episodes,
        processes=len(pids),
        megabytes=round(sum(map(proportional_set_size, pids)), 1),
        file_descriptors=sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
        threads=sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids),
        shared_memory_objects=len(list(Path("/dev/shm").iterdir())),
    )


if __name__ == "__main__":
    main()
