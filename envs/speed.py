"""How fast environments step with random actions, without a policy."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from envs.vector.vector import SharedVectorEnv

_NUM_ACTIONS = 64  # drawn in advance, and taken in turns


def random_env_steps_per_second(envs: SharedVectorEnv, num_steps: int) -> float:
    """Step environments with random actions; they must be reset afterwards.

    The number of steps is fixed, not the time, so that environments which keep state across resets
    are in the same state in every run.

    Args:
        envs: the environments; no group may be in flight.
        num_steps: env steps of each environment, at least 1.

    Returns:
        Env steps per second, summed over all environments.
    """
    envs.reset(seed=0)
    envs.action_space.seed(0)
    size = envs.num_envs // envs.num_groups
    actions = [envs.action_space.sample()[:size] for _ in range(_NUM_ACTIONS)]

    def step_team(team: int) -> None:
        groups = envs.teams[team]
        for group in groups:
            envs.send(group, actions[group % _NUM_ACTIONS])
        taken = dict.fromkeys(groups, 1)
        for _ in range(num_steps * len(groups)):
            group = envs.wait(team)
            envs.receive(group)
            if taken[group] < num_steps:
                envs.send(group, actions[(group + taken[group]) % _NUM_ACTIONS])
                taken[group] += 1

    teams = range(len(envs.teams))
    started = time.perf_counter()
    with ThreadPoolExecutor(len(teams)) as threads:
        list(threads.map(step_team, teams))
    return envs.num_envs * num_steps / (time.perf_counter() - started)
