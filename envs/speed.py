"""How fast worlds can be stepped when nobody thinks about what to do in them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from envs.vector import SharedVectorEnv


def random_env_steps_per_second(envs: SharedVectorEnv, seconds: float) -> float:
    """Step environments with random actions for a while; then they must be reset.

    Args:
        envs: the environments; no group may be in flight.
        seconds: how long.

    Returns:
        Env steps a second over all environments.
    """
    envs.reset(seed=0)
    size = envs.num_envs // envs.num_groups
    actions = [envs.action_space.sample()[:size] for _ in range(64)]
    deadline = time.perf_counter() + seconds

    def play(team: int) -> int:
        for group in envs.teams[team]:
            envs.send(group, actions[group % 64])
        steps = 0
        while time.perf_counter() < deadline:
            group = envs.wait(team)
            envs.receive(group)
            envs.send(group, actions[steps % 64])
            steps += 1
        for group in envs.teams[team]:
            envs.receive(group)
        return steps

    teams = range(len(envs.teams))
    with ThreadPoolExecutor(len(teams)) as threads:
        return size * sum(threads.map(play, teams)) / seconds
