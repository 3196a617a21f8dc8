"""Measure EnvPool's ViZDoom with random actions: env steps a second.

    python envpool_random.py --env health_gathering --num-envs 16

Run it with the Python of an environment that holds requirements-envpool.txt. Nothing is learned.
Unless told otherwise it first tries a few numbers of threads and batch sizes, briefly, and then
measures the fastest of them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from importlib.metadata import version

import envpool
import numpy as np
from contained import contain

IDS = {
    "health_gathering": "HealthGathering-v1",
    "defend_the_center": "DefendTheCenter-v1",
    "basic": "Basic-v1",
}
FRAME_SKIP = 4
WARM_UP_SECONDS = 2.0
TRIAL_SECONDS = 3.0


def measure(env: str, num_envs: int, batch_size: int, num_threads: int, seconds: float) -> float:
    """Step with random actions as results come in, and return the env steps a second."""
    pool = envpool.make_gymnasium(
        IDS[env],
        num_envs=num_envs,
        batch_size=batch_size,
        num_threads=num_threads,
        frame_skip=FRAME_SKIP,
        stack_num=1,
        img_height=72,
        img_width=128,
        use_combined_action=True,
    )
    actions = np.random.default_rng(0).integers(pool.action_space.n, size=(64, batch_size))
    pool.async_reset()
    began = marked = time.perf_counter()
    batches, before = 0, 0
    while (now := time.perf_counter()) - began < WARM_UP_SECONDS + seconds:
        if before == 0 and now - began >= WARM_UP_SECONDS:
            marked, before = now, batches
        info = pool.recv()[-1]
        pool.send(actions[batches % 64], info["env_id"])
        batches += 1
    pool.close()
    return (batches - before) * batch_size / (now - marked)


def main() -> None:
    """Find the fastest of a few settings, measure it and print the figures."""
    args = parse()
    # All of its engines try to create this folder at the same time, and all but the first fail.
    (contain() / "_vizdoom").mkdir(exist_ok=True)
    cores = len(os.sched_getaffinity(0))
    threads = [args.num_workers] if args.num_workers else [cores, 2 * cores]
    half = max(1, args.num_envs // 2)
    batches = [args.batch_size] if args.batch_size else sorted({half, args.num_envs})
    choices = [(batch, count) for batch in batches for count in threads]
    if len(choices) > 1:
        trials = {c: measure(args.env, args.num_envs, *c, TRIAL_SECONDS) for c in choices}
        print({choice: round(rate, 1) for choice, rate in trials.items()}, flush=True)
        choices = [max(trials, key=trials.__getitem__)]
    batch_size, num_threads = choices[0]
    rate = measure(args.env, args.num_envs, batch_size, num_threads, args.seconds)
    settings = {"batch_size": batch_size, "num_threads": num_threads, "frame_skip": FRAME_SKIP}
    settings |= {"img_height": 72, "img_width": 128, "stack_num": 1, "actions": "random"}
    result = {
        **{"peer": "envpool", "version": version("envpool"), "env": args.env},
        **{"num_envs": args.num_envs, "settings": settings, "env_steps_per_s": round(rate, 1)},
    }
    print(json.dumps(result), flush=True)


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
