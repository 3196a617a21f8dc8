"""The memory that a vector environment and its workers share, as named NumPy arrays.

Axes: N environments, I info keys, E episode keys. An environment's index among the N is its *lane*.
The memory has no name in the file system: the system frees it when the last process that has it
open ends, however that process ends.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.doom.env import DoomEnv
from envs.doom.players.single import MatchEnv
from envs.spaces import observation_parts

_ALIGNMENT = 64  # bytes, a cache line: no two arrays share one


@dataclass(frozen=True)
class Arrays:
    """Views into the shared memory; the first axis of each is N.

    Attributes:
        obs: the current observations, by part.
        final_obs: the last observations of the episodes that ended in this step, by part.
        actions: the actions to take.
        rewards: (N,) float64, as the environments pay them.
        terminated: (N,) bool.
        truncated: (N,) bool.
        info: (N, I) float64, the numeric infos of the current observations.
        final_info: (N, I) float64, the numeric infos of the last observations of episodes.
        episode: (N, E) float64, the statistics of the episodes that ended in this step.
        seeds: (N,) int64, the seeds of the current episodes.
    """

    obs: dict[str, NDArray[Any]]
    final_obs: dict[str, NDArray[Any]]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    info: NDArray[np.float64]
    final_info: NDArray[np.float64]
    episode: NDArray[np.float64]
    seeds: NDArray[np.int64]


def _layout(env: Any, num_envs: int) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """Return the arrays of `num_envs` environments like `env`, as (name, shape, dtype)."""
    parts = observation_parts(env.observation_space)
    info_keys, episode_keys = numeric_keys(env)
    action = env.action_space
    entries: list[tuple[str, tuple[int, ...], Any]] = []
    for prefix in ("obs", "final_obs"):
        entries += [(f"{prefix}/{name}", part.shape, part.dtype) for name, part in parts.items()]
    entries += [
        ("actions", action.shape, action.dtype),
        ("rewards", (), np.float64),
        ("terminated", (), np.bool_),
        ("truncated", (), np.bool_),
        ("info", (len(info_keys),), np.float64),
        ("final_info", (len(info_keys),), np.float64),
        ("episode", (len(episode_keys),), np.float64),
        ("seeds", (), np.int64),
    ]
    return [(name, (num_envs, *shape), np.dtype(dtype)) for name, shape, dtype in entries]


def numeric_keys(env: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of an environment's numeric infos, and of its episode statistics."""
    base = env.unwrapped  # A user's environment may have attributes of the same names.
    is_ours = isinstance(base, (DoomEnv, MatchEnv))
    return (base.info_keys, base.episode_keys) if is_ours else ((), ("r", "l"))


def _size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    size = int(np.prod(shape)) * dtype.itemsize
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def create_memory(env: Any, num_envs: int) -> int:
    """Create zeroed memory for `num_envs` environments like `env`.

    Returns:
        Its file descriptor.
    """
    size = sum(_size(shape, dtype) for _, shape, dtype in _layout(env, num_envs))
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("doomgrad")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def map_arrays(descriptor: int, env: Any, num_envs: int) -> Arrays:
    """Map the memory behind a file descriptor, and return it as arrays."""
    memory = mmap.mmap(descriptor, 0)
    views: dict[str, Any] = {"obs": {}, "final_obs": {}}
    offset = 0
    for name, shape, dtype in _layout(env, num_envs):
        view: NDArray[Any] = np.frombuffer(
            memory, dtype, count=int(np.prod(shape)), offset=offset
        ).reshape(shape)
        prefix, _, part = name.partition("/")
        if part:
            views[prefix][part] = view
        else:
            views[name] = view
        offset += _size(shape, dtype)
    return Arrays(**views)
