"""Measure PufferLib's vectorisation of ViZDoom with random actions: env steps a second.

    python pufferlib_vec.py --env health_gathering --num-envs 16

Run it with the Python of an environment that holds requirements-pufferlib.txt and pufferlib-core
3.0.23. Nothing is learned. PufferLib has no environments of Doom any more; it steps those that
ViZDoom registers with Gymnasium, reduced to the screen of 160x120 in colour. Unless told otherwise,
it first tries a few numbers of workers and batch sizes, briefly, and then measures the fastest.
"""

from __future__ import annotations

import argparse
import os
from functools import partial

import gymnasium
import numpy as np
import pufferlib.emulation
import pufferlib.vector
import vizdoom
from contained import contain
from stepping import FRAME_SKIP, batches_per_second, report
from vizdoom import gymnasium_wrapper  # noqa: F401 # registers the environments

IDS = {
    "health_gathering": "VizdoomHealthGathering-v1",
    "defend_the_center": "VizdoomDefendCenter-v1",
    "basic": "VizdoomBasic-v1",
}


class ScreenOnly(gymnasium.ObservationWrapper):
    """Observes the screen, as an array."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = env.observation_space["screen"]

    def observation(self, observation: dict) -> np.ndarray:
        """Return the screen."""
        return observation["screen"]


def make_env(env: str, buf: object = None, seed: int = 0) -> gymnasium.Env:
    """Return an environment as PufferLib wants it."""
    made = gymnasium.make(
        IDS[env], frame_skip=FRAME_SKIP, screen_resolution=vizdoom.ScreenResolution.RES_160X120
    )
    return pufferlib.emulation.GymnasiumPufferEnv(env=ScreenOnly(made), buf=buf, seed=seed)


def measure(env: str, num_envs: int, batch_size: int, num_workers: int, seconds: float) -> float:
    """Step with random actions as results come in, and return the env steps a second."""
    envs = pufferlib.vector.make(
        make_env,
        env_kwargs={"env": env},
        backend=pufferlib.vector.Multiprocessing,
        num_envs=num_envs,
        num_workers=num_workers,
        batch_size=batch_size,
        zero_copy=num_envs % batch_size == 0,
        overwork=True,
    )
    actions = np.random.default_rng(0).integers(
        envs.single_action_space.n, size=(64, envs.agents_per_batch)
    )
    envs.async_reset(seed=0)

    def step(batch: int) -> None:
        envs.recv()
        envs.send(actions[batch % 64])

    rate = batches_per_second(step, seconds) * batch_size
    envs.close()
    return rate


def main() -> None:
    """Find the fastest of a few settings, measure it and print the figures."""
    args = parse()
    contain()
    cores = len(os.sched_getaffinity(0))
    counts = [args.num_workers] if args.num_workers else sorted({cores, 2 * cores, args.num_envs})
    halves = sorted({max(1, args.num_envs // 2), args.num_envs})
    batches = [args.batch_size] if args.batch_size else halves
    # A batch is of whole workers.
    choices = [
        {"batch_size": batch, "num_workers": count}
        for batch in batches
        for count in counts
        if args.num_envs % count == 0 and batch % (args.num_envs // count) == 0
    ]
    play = partial(measure, args.env, args.num_envs)
    settings = {"screen": "160x120"}
    name, package = "pufferlib", "pufferlib-core"
    report(name, package, args.env, args.num_envs, choices, play, args.seconds, settings)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", choices=IDS, default="health_gathering")
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--num-workers", type=int, default=0, help="processes; 0 tries a few")
    parser.add_argument("--batch-size", type=int, default=0, help="environments; 0 tries a few")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long speed is measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
