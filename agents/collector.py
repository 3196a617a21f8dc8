"""The interfaces between environments, collectors and agents.

A collector steps environments in groups and returns rollouts, from which an agent learns.
Environments may return NumPy arrays, or tensors on the CPU or on the policy's device. The
collectors are `Sampler`, `OverlappedSampler` and `SB3Sampler`.

Axes: T rollout length, N environments, n environments of one group, A numbers of an action, E
episode keys, I info keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from agents.errors import AgentError
from agents.rollout import Rollout
from agents.stopwatch import Stopwatch
from agents.traces import TRACED, Trace
from agents.transfer import Array

_MOST_STEPS = 2**24  # Of an episode in progress that is repeated.


class StepResult(Protocol):
    """The result of an env step of a group of environments."""

    @property
    def obs(self) -> Mapping[str, Array]:
        """By part, each (n, ...): current observations, the next episode's first after an end."""

    @property
    def rewards(self) -> Array:
        """(n,) floating point, as the environments pay them."""

    @property
    def terminated(self) -> Array:
        """(n,) bool, whether the environment ended the episode."""

    @property
    def truncated(self) -> Array:
        """(n,) bool, whether time ran out."""

    @property
    def final_obs(self) -> Mapping[str, Array]:
        """By part, each (n, ...): last observations of episodes; valid where an episode ended."""

    @property
    def episode(self) -> NDArray[np.float64]:
        """(n, E) statistics; valid where an episode ended, NaN where it does not count."""


class BatchedEnvs(Protocol):
    """N environments in groups of equal size; each group is stepped separately.

    Attributes:
        num_envs: N.
        num_groups: the number of groups.
        single_action_space: action space of one environment.
        episode_keys: names of the statistics of episodes, E.
    """

    num_envs: int
    num_groups: int
    single_action_space: spaces.Space[Any]
    episode_keys: tuple[str, ...]

    @property
    def episode_seeds(self) -> NDArray[np.int64]:
        """(N,) int64, the seeds of the current episodes."""

    def reset(self, *, seed: int) -> Any:
        """Start an episode in every environment.

        Args:
            seed: seed of the first environment's episode; environment i gets seed + i.
        """

    def current_obs(self, group: int) -> Mapping[str, Array]:
        """Return the current observations of a group by part, each (n, ...)."""

    def send(self, group: int, actions: NDArray[Any], *, with_info: bool = False) -> None:
        """Send actions to a group, without waiting for the result.

        Args:
            group: the group.
            actions: (n,) or (n, A).
            with_info: whether the group also updates its numeric infos, which takes some time.
        """

    def receive(self, group: int) -> StepResult:
        """Wait for the result of the last actions sent to a group, and return it."""


class GroupedEnvs(BatchedEnvs, Protocol):
    """Environments whose groups are served in the order in which they finish, and can be restored.

    Attributes:
        info_keys: names of the numeric infos, I.
    """

    info_keys: tuple[str, ...]

    def restore(self, seeds: Sequence[int], actions: Sequence[NDArray[Any]]) -> None:
        """Start an episode in every environment and repeat its actions.

        Args:
            seeds: N seeds of the episodes.
            actions: N arrays, each with the actions of an episode in order.
        """

    def skip(self, lanes: Sequence[int]) -> None:
        """Start the next episode in some environments.

        Args:
            lanes: indices of the environments, in [0, N).
        """

    @property
    def teams(self) -> Sequence[Sequence[int]]:
        """The groups of each team; each team may be served by a separate thread."""

    def wait(self, team: int = 0) -> int:
        """Wait until some group of a team has a result to receive, and return the group."""

    def current_info(self, group: int) -> NDArray[np.float64]:
        """Return the numeric infos of a group's current observations, (n, I), by `info_keys`.

        They are valid after `reset`, `restore`, and the result of a `send` with `with_info`.
        """


class Collected(NamedTuple):
    """A rollout, and what belongs to it.

    Attributes:
        rollout: T env steps of N environments.
        episodes: the episodes that ended in it, in the order in which they ended.
        next_episode_seed: a seed larger than those of all episodes so far.
        version: version of the weights that collected the rollout, as passed to `collect`.
    """

    rollout: Rollout
    episodes: list[Trace]
    next_episode_seed: int
    version: int


class Collector(Protocol):
    """Runs a policy in environments and returns rollouts.

    Attributes:
        stopwatch: how the thread that calls `collect` spends its time.
    """

    stopwatch: Stopwatch

    def collect(self, version: int = 0) -> Collected:
        """Run T env steps in every environment and return them.

        Args:
            version: version of the policy's current weights; it is returned with the rollout that
                they collect.
        """

    def state(self) -> dict[str, Tensor]:
        """Return the tensors needed to resume; none if episodes in progress cannot be resumed."""

    def load_state(self, state: Mapping[str, Tensor]) -> int:
        """Resume from tensors of `state`, and return the number of episodes that were lost.

        An episode is lost if its environment does not repeat it exactly. The next one is started.
        """

    def close(self) -> None:
        """End all threads of the collector."""


def as_tensors(parts: Mapping[str, Array], device: torch.device) -> dict[str, Tensor]:
    """Return arrays as tensors on a device; on a CPU, they share memory."""
    return {name: torch.as_tensor(part).to(device) for name, part in parts.items()}


def as_numpy(array: Array) -> NDArray[Any]:
    """Return an array, on any device, as a NumPy array."""
    return array.cpu().numpy() if isinstance(array, Tensor) else array


def is_lost(result: StepResult, i: int | np.integer[Any]) -> bool:
    """Return whether the episode that ended in environment i of a group does not count.

    Either the environment failed, or only a life ended and the episode continues.
    """
    return math.isnan(result.episode[i, 0])


def current_obs(envs: BatchedEnvs) -> dict[str, Tensor]:
    """Return the current observations of all environments, by part, each (N, ...)."""
    groups = [envs.current_obs(group) for group in range(envs.num_groups)]
    return {
        name: torch.cat([torch.as_tensor(group[name]) for group in groups]) for name in groups[0]
    }


def next_episode_seed(envs: BatchedEnvs) -> int:
    """Return a seed larger than those of all episodes so far."""
    return int(envs.episode_seeds.max()) + envs.num_envs


def episodes_in_progress(envs: BatchedEnvs) -> dict[str, Tensor]:
    """Return the seeds and the current observations from which `repeat_episodes` resumes."""
    return {
        "episode_seeds": torch.from_numpy(envs.episode_seeds),
        **{f"obs/{name}": part for name, part in current_obs(envs).items()},
    }


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check that the state of a collector has the names, shapes and types that it should have.

    Args:
        state: the state, which may come from a stranger.
        expected: the state of the collector that is to resume from it, at its start. The steps of
            the episodes in progress, see `Traces.state`, may differ in number.

    Raises:
        AgentError: If it does not.
    """
    wrong = state.keys() ^ expected.keys()
    lengths: dict[str, set[int]] = {}
    for name, tensor in state.items():
        kind, _, lane = name.partition("/")
        traced = kind in TRACED and name in expected
        begin = 1 if traced else 0
        right = expected.get(name, tensor)
        if tensor.dtype != right.dtype or tensor.shape[begin:] != right.shape[begin:]:
            wrong = wrong | {name}
        elif traced:
            lengths.setdefault(lane, set()).add(len(tensor))
    if any(len(of_lane) > 1 or max(of_lane) > _MOST_STEPS for of_lane in lengths.values()):
        wrong = wrong | {"rewards"}
    seeds = state.get("episode_seeds")
    if seeds is not None and not ((seeds >= 0) & (seeds < 2**31)).all():
        wrong = wrong | {"episode_seeds"}
    if wrong:
        raise AgentError(
            f"the checkpoint's episodes in progress are not those of this training "
            f"({min(wrong)!a:.40}); start over with --fresh"
        )


def repeat_episodes(envs: GroupedEnvs, state: Mapping[str, Tensor]) -> list[int]:
    """Repeat the episodes in progress up to the env step at which a state was returned.

    Args:
        envs: the environments.
        state: the `episode_seeds`, the `actions` and the current observations, as in `obs/screen`.

    Returns:
        The environments in which the current observation then differs; the next episode is started
        there.
    """
    taken = [state[f"actions/{i}"].numpy() for i in range(envs.num_envs)]
    envs.restore(state["episode_seeds"].tolist(), taken)
    same = torch.ones(envs.num_envs, dtype=torch.bool)
    for name, part in current_obs(envs).items():
        same &= (part.cpu() == state[f"obs/{name}"]).flatten(1).all(1)
    lost: list[int] = (~same).nonzero().flatten().tolist()
    if lost:
        envs.skip(lost)
    return lost
