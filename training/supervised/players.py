"""Players of Doom whose screens become examples: random ones, trained ones, and what is between.

A player yields the actions of an episode. Another environment, with the same seed and actions,
shows the same episode at the size and in the way that examples are to have.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
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


def _anything(step: int, reward: float) -> None:
    """Accept any reward."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """An episode that is played.

    Attributes:
        seed: of the episode.
        actions: its actions, each yielded before it is taken.
        check: raises DivergedError if an env step, of some number, does not pay some reward.
    """

    seed: int
    actions: Iterator[Any]
    check: Callable[[int, float], None] = _anything


class ActionSource(Protocol):
    """Chooses the actions of episodes."""

    def play(self, seed: int) -> Iterator[Any]:
        """Yield the actions of an episode, each before it is taken."""

    def close(self) -> None:
        """End the player's own environment, if it has one."""


class RandomPlayer:
    """Holds actions at random, each for a random number of env steps, 1 to 6.

    Args:
        space: the action space.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self._space = space

    def play(self, seed: int) -> Iterator[Any]:
        """Yield actions without end."""
        return self.act(generator_of(seed))

    def act(self, rng: np.random.Generator) -> Iterator[Any]:
        """Yield actions without end that a random generator decides."""
        while True:
            hold = int(rng.integers(1, _LONGEST_HOLD + 1))
            self._space.seed(int(rng.integers(2**31)))
            yield from itertools.repeat(self._space.sample(), hold)

    def close(self) -> None:
        """Do nothing; there is no environment."""


class TrainedPlayer:
    """Samples the actions of a policy, in an environment that is observed as it was in training.

    Args:
        policy: the policy.
        config: that environment.
        random_share: share of the env steps in which a `RandomPlayer` acts instead.
    """

    def __init__(self, policy: Policy, config: EnvConfig, random_share: float = 0.0) -> None:
        self._policy, self._random_share = policy, random_share
        self._env = DoomEnv(config)
        self._obs = observed(self._env)
        self._num_draws = num_draws(self._env.action_space)

    def play(self, seed: int) -> Iterator[Any]:
        """Yield actions until the episode ends."""
        rng, ended = generator_of(seed), False
        others = RandomPlayer(self._env.action_space).act(rng)
        state, starts = self._policy.initial_state(1), torch.ones(1, dtype=torch.bool)
        self._env.reset(seed=seed)
        while not ended:
            tensors = {name: torch.from_numpy(part)[None] for name, part in self._obs.items()}
            draws = torch.from_numpy(rng.random((1, self._num_draws), np.float32))
            with single_thread():
                decision = self._policy.act(tensors, state, starts, draws)
            # The policy decides each time, so that its memory goes on.
            state, starts = decision.memory_state, torch.zeros(1, dtype=torch.bool)
            action = decision.actions[0].numpy()
            if rng.random() < self._random_share:
                action = next(others)
            yield action
            _, terminated, truncated = self._env.advance(action)
            ended = terminated or truncated

    def close(self) -> None:
        """End the environment."""
        self._env.close()


def episodes_of(player: ActionSource, first_seed: int) -> Iterator[Played]:
    """Yield episodes of a player with consecutive seeds, without end."""
    for seed in itertools.count(first_seed):
        yield Played(seed=seed, actions=player.play(seed))


def policy_file(scenario: str) -> Path:
    """Return the file of the project's policy for a scenario; not every scenario has one."""
    return ZOO / scenario / "policy.safetensors"


def played(scenario: str) -> EnvConfig:
    """Return how a scenario is played: as the project's policy plays it, if there is one.

    All players of a scenario have the same actions and the same frames in an env step, so that
    these do not tell them apart.

    Raises:
        FileError: If the policy is damaged.
    """
    path = policy_file(scenario)
    if not path.exists():
        return EnvConfig(env=scenario)
    return native(load_policy(path), path, trust=False)


def shown(config: EnvConfig, seen: Mapping[str, Any], *, sight: bool = False) -> DoomEnv:
    """Return an environment that shows episodes as examples are to have them.

    Args:
        config: how they are played.
        seen: how they are to be observed, as fields of `EnvConfig`.
        sight: whether `DoomEnv.look` is to tell what is visible.
    """
    plain = replace(
        config,
        extra_channels=(),
        variables=False,
        sound=False,
        notifications=False,
        enemy_in_view=False,
    )
    return DoomEnv(replace(plain, **seen, depth_targets=sight, kind_targets=sight))


def observed(env: DoomEnv) -> dict[str, NDArray[Any]]:
    """Return arrays into which an environment writes its observations, by part."""
    parts = observation_parts(env.observation_space)
    obs = {name: np.zeros(part.shape, part.dtype) for name, part in parts.items()}
    env.write_to(obs)
    return obs


def generator_of(seed: int, child: int = 1) -> np.random.Generator:
    """Return a random generator of an episode.

    Args:
        seed: of the episode; the environment draws from it directly.
        child: 1 for the player, 2 for what is chosen of the episode.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(child,)))
