"""Players of Doom whose screens become examples: random ones, trained ones, and what is between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from agents.device import single_thread
from agents.distributions import num_draws
from agents.policy import Policy
from envs import DoomEnv, EnvConfig
from envs.spaces import observation_parts
from evaluation.entries import ZOO
from evaluation.protocol import native
from storage.policy_file import load_policy

_LONGEST_HOLD = 6  # Env steps for which a random player holds an action, so that it gets somewhere.


class ScreenPlayer(Protocol):
    """Chooses the actions of one episode."""

    def act(self, obs: Mapping[str, NDArray[Any]]) -> Any:
        """Return an action for what is observed."""


class RandomPlayer:
    """Holds actions at random, each for a random number of env steps."""

    def __init__(self, env: DoomEnv, rng: np.random.Generator) -> None:
        self._space, self._rng, self._left = env.action_space, rng, 0

    def act(self, obs: Mapping[str, NDArray[Any]]) -> Any:
        """Return an action."""
        if self._left == 0:
            self._left = int(self._rng.integers(1, _LONGEST_HOLD + 1))
            self._space.seed(int(self._rng.integers(2**31)))
            self._action = self._space.sample()
        self._left -= 1
        return self._action


class TrainedPlayer:
    """Samples the actions of a policy."""

    def __init__(self, env: DoomEnv, rng: np.random.Generator, policy: Policy) -> None:
        self._rng, self._policy = rng, policy
        self._state = policy.initial_state(1)
        self._starts = torch.ones(1, dtype=torch.bool)
        self._num_draws = num_draws(env.action_space)

    def act(self, obs: Mapping[str, NDArray[Any]]) -> Any:
        """Return an action."""
        tensors = {name: torch.from_numpy(part)[None] for name, part in obs.items()}
        draws = torch.from_numpy(self._rng.random((1, self._num_draws), np.float32))
        with single_thread():
            decision = self._policy.act(tensors, self._state, self._starts, draws)
        self._state = decision.memory_state
        self._starts = torch.zeros(1, dtype=torch.bool)
        return decision.actions[0].numpy()


class HalfTrainedPlayer:
    """Takes a trained policy's action in half of the env steps, and a random one in the others."""

    def __init__(self, env: DoomEnv, rng: np.random.Generator, policy: Policy) -> None:
        self._rng = rng
        self._random = RandomPlayer(env, rng)
        self._trained = TrainedPlayer(env, rng, policy)

    def act(self, obs: Mapping[str, NDArray[Any]]) -> Any:
        """Return an action."""
        actions = self._random.act(obs), self._trained.act(obs)  # Both, so that memory goes on.
        return actions[int(self._rng.random() < 0.5)]


def policy_file(scenario: str) -> Path:
    """Return the file of the project's policy for a scenario; not every scenario has one."""
    return ZOO / scenario / "policy.safetensors"


def prepare(
    scenario: str, height: int, width: int, *, trained: bool
) -> tuple[Policy | None, DoomEnv]:
    """Return a scenario's trained policy, or None, and the environment that is played.

    Args:
        scenario: the scenario.
        height: of the screen that a random player observes, in pixels.
        width: of it, in pixels.
        trained: whether the project's policy plays; it observes what it was trained with.

    Raises:
        FileError: If the policy is damaged.
    """
    policy, env = None, EnvConfig(env=scenario, height=height, width=width)
    if trained:
        file = load_policy(policy_file(scenario))
        policy, env = file.policy, native(file, policy_file(scenario), trust=False)
    return policy, DoomEnv(replace(env, depth_targets=True, kind_targets=True))


def observed(env: DoomEnv) -> dict[str, NDArray[Any]]:
    """Return arrays into which an environment writes its observations, by part."""
    parts = observation_parts(env.observation_space)
    obs = {name: np.zeros(part.shape, part.dtype) for name, part in parts.items()}
    env.write_to(obs)
    return obs


def generator_of(seed: int) -> np.random.Generator:
    """Return the random generator of an episode's player.

    It is a child of the episode's seed, because the environment draws from the seed itself.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
