"""Opens vector environments for a test, and closes them afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from numpy.typing import NDArray

from envs import EnvConfig, SharedVectorEnv

TOY = "tests.envs.toy"


def opened() -> Iterator[Callable[..., SharedVectorEnv]]:
    """Yield a function that opens vector environments; a fixture's body."""
    every: list[SharedVectorEnv] = []

    def open_envs(config: EnvConfig | str, *numbers: int, **options: Any) -> SharedVectorEnv:
        config = EnvConfig(env=config) if isinstance(config, str) else config
        every.append(SharedVectorEnv(config, *numbers, **options))
        return every[-1]

    yield open_envs
    for envs in every:
        envs.close()


def random_batches(envs: SharedVectorEnv, steps: int) -> list[NDArray[Any]]:
    """Return random actions for all environments, for a number of steps."""
    envs.action_space.seed(0)
    return [envs.action_space.sample() for _ in range(steps)]
