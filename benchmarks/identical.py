"""Train many times with the same command under load, and compare the weights bit for bit.

    python -m benchmarks.identical basic defend_the_center --runs 100

A busy process for each core competes with every training; with `--busy 0`, whatever else the
machine does is the load. All trainings fork from one process that has imported everything, which
saves the seconds that imports take and nothing else. They have few environments, because most of
the time goes into starting engines.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import train
from storage.policy_file import digest, load_policy
from storage.provenance import git_revision, hardware
from storage.run_folder import RunFolder

_FORK = multiprocessing.get_context("fork")


def train_once(env: str, env_steps: int, result: Connection) -> None:
    """Train silently, and send a digest of the weights."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    flags = ["--precision", "float32", "--eval-envs", "none", "--no-record", "--num-envs", "4"]
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        arguments = ["--total-env-steps", str(env_steps), "--run-dir", str(run.path)]
        if status := train.main([env, *flags, *arguments]):
            raise SystemExit(status)
        result.send(digest(load_policy(run.policy_file).policy))


def digest_of_run(env: str, env_steps: int) -> str:
    """Return a digest of the weights that one training ends with.

    Only the forked process computes with PyTorch: threads that this one had started would be
    missing in the next, which would wait for them forever.
    """
    receiver, sender = _FORK.Pipe(duplex=False)
    with receiver, sender:
        process = _FORK.Process(target=train_once, args=(env, env_steps, sender))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a training of {env} ended with status {process.exitcode}")
        return str(receiver.recv())


def keep_busy() -> None:
    """Compute forever, at a lower priority, so that trainings go on."""
    os.nice(3)
    while True:
        sum(range(1_000_000))


def main() -> None:
    """Train, compare, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("envs", nargs="+", help="environments")
    parser.add_argument("--runs", type=int, default=100, help="trainings of each")
    parser.add_argument("--env-steps", type=int, default=512, help="length of each")
    parser.add_argument(
        "--busy", type=int, default=os.cpu_count() or 1, help="busy processes beside"
    )
    options = parser.parse_args()
    load = [_FORK.Process(target=keep_busy, daemon=True) for _ in range(options.busy)]
    for process in load:
        process.start()
    print(f"{git_revision()}, {hardware()}, {options.busy} busy processes beside", flush=True)
    print("| environment | env steps | training runs | different policies |", flush=True)
    print("| --- | ---: | ---: | ---: |", flush=True)
    for env in options.envs:
        found = Counter(digest_of_run(env, options.env_steps) for _ in range(options.runs))
        print(f"| {env} | {options.env_steps:,} | {found.total()} | {len(found)} |", flush=True)
    for process in load:
        process.kill()


if __name__ == "__main__":
    main()
