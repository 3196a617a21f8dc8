"""Measure EnvPool's ViZDoom with random actions: env steps a second.

    python envpool_random.py --env health_gathering --num-envs 16

Run it with the Python of an environment that holds requirements-envpool.txt. Nothing is learned.
Unless told otherwise it first tries a few numbers of threads and batch sizes, briefly, and then
measures the fastest of them.
"""

from __future__ import annotations

import argparse
import os
from functools import partial

import envpool
import numpy as np
from contained import contain
from stepping import FRAME_SKIP, batches_per_second, report

IDS = {
    "health_gathering": "HealthGathering-v1",
    "defend_the_center": "DefendTheCenter-v1",
    "basic": "Basic-v1",
}
SCREEN = {"img_height": 72, "img_width": 128, "stack_num": 1}


def measure(env: str, num_envs: int, batch_size: int, num_threads: int, seconds: float) -> float:
    """Step with random actions as results come in, and return the env steps a second."""
    pool = envpool.make_gymnasium(
        IDS[env],
        num_envs=num_envs,
        batch_size=batch_size,
        num_threads=num_threads,
        frame_skip=FRAME_SKIP,
        use_combined_action=True,
        **SCREEN,
    )
    actions = np.random.default_rng(0).integers(pool.action_space.n, size=(64, batch_size))
    pool.async_reset()

    def step(batch: int) -> None:
        info = pool.recv()[-1]
        pool.send(actions[batch % 64], info["env_id"])

    rate = batches_per_second(step, seconds) * batch_size
    pool.close()
    return rate


def main() -> None:
    """Find the fastest of a few settings, measure it and print the figures."""
    args = parse()
    # All of its engines try to create this folder at the same time, and all but the first fail.
    (contain() / "_vizdoom").mkdir(exist_ok=True)
    cores = len(os.sched_getaffinity(0))
    threads = [args.num_workers] if args.num_workers else [cores, 2 * cores]
    half = max(1, args.num_envs // 2)
    batches = [args.batch_size] if args.batch_size else sorted({half, args.num_envs})
    choices = [{"batch_size": batch, "num_threads": n} for batch in batches for n in threads]
    play = partial(measure, args.env, args.num_envs)
    report("envpool", "envpool", args.env, args.num_envs, choices, play, args.seconds, SCREEN)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", choices=IDS, default="health_gathering")
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--num-workers", type=int, default=0, help="threads; 0 tries a few")
    parser.add_argument("--batch-size", type=int, default=0, help="games a batch; 0 tries a few")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long speed is measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
