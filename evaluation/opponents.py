"""Matches in which other policies act for the other players.

Axes: N matches, n matches of a group, P players of a match, A numbers of an action.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from agents import RandomPlayer
from agents.collector import as_tensors
from agents.device import single_thread
from agents.distributions import num_draws
from agents.policy import Player
from envs import EnvConfig, EnvError, SharedVectorEnv, Transition
from envs.doom.players.single import MatchEnv
from envs.registry import make

RESULT = "result"  # Of the episode keys: 1 if the first player won, 0.5 for a draw, 0 otherwise.


def own_parts(parts: Mapping[str, Any], player: int = 0) -> dict[str, Any]:
    """Return the parts of an observation of all players that belong to one of them."""
    prefix = f"player_{player}."
    return {n.removeprefix(prefix): p for n, p in parts.items() if n.startswith(prefix)}


class Rivals(Protocol):
    """Who plays against the first player of each match; called by several threads, one at a time.

    One rival acts for all other players of a match, in a cooperation for its partners.
    """

    def draw(self, lane: int) -> str:
        """Return the name of the rival in the next match of a lane."""

    def player(self, name: str) -> tuple[Player, torch.device]:
        """Return a rival, and the device on which it acts."""

    def report(self, name: str, result: float) -> None:
        """Take note of a match: 1 if the rival lost it, 0.5 for a draw, 0 if it won."""


class MatchWithRival(gym.Wrapper[Any, Any, Any, Any]):
    """One match, in this process, in which a player acts for all others; it can be rendered.

    Args:
        config: configuration of the match.
        rival: the policy that plays against the first player.
        device: the device on which the rival acts.
    """

    def __init__(self, config: EnvConfig, rival: Player, device: torch.device) -> None:
        match = MatchEnv(replace(config, opponent="self"), render_mode="rgb_array")
        super().__init__(match)
        self._match, self._rival, self._device = match, rival, device
        self.observation_space = match.single_observation_space
        self.action_space = match.single_action_space
        self._draws = num_draws(match.single_action_space)
        self._seen: dict[str, Any] = {}

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start a match."""
        self._seen, info = self._match.reset(**kwargs)
        others = range(1, self._match.num_players)
        self._rng = np.random.default_rng(kwargs.get("seed"))
        self._states = {i: self._rival.initial_state(1).to(self._device) for i in others}
        self._is_new = True
        return self._own(0), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take the first player's action, and those of the rival."""
        actions = [np.asarray(action).reshape(-1)]
        for player, state in self._states.items():
            parts = own_parts(self._seen, player)
            draws = torch.from_numpy(self._rng.random((1, self._draws), np.float32))
            decision = self._rival.act(
                as_tensors({name: part[None] for name, part in parts.items()}, self._device),
                state,
                torch.tensor([self._is_new], device=self._device),
                draws.to(self._device),
            )
            self._states[player] = decision.memory_state
            actions.append(decision.actions.cpu().numpy().reshape(-1))
        self._is_new = False
        self._seen, reward, terminated, truncated, info = self._match.step(np.concatenate(actions))
        return self._own(0), float(reward), terminated, truncated, info

    def _own(self, player: int) -> Any:
        parts = own_parts(self._seen, player)
        return parts.get("obs", parts)


class Fixed:
    """One rival in all matches.

    Args:
        player: the rival.
        device: the device on which it acts.
    """

    def __init__(self, player: Player, device: torch.device) -> None:
        self._player = player, device

    def draw(self, lane: int) -> str:
        """See `Rivals.draw`."""
        return "fixed"

    def player(self, name: str) -> tuple[Player, torch.device]:
        """See `Rivals.player`."""
        return self._player

    def report(self, name: str, result: float) -> None:
        """See `Rivals.report`."""


class OpponentEnvs(SharedVectorEnv):
    """N matches that look as if each were an environment of the first player alone.

    Each match takes as many parts of an observation, and of an action, as it has players. Those of
    the first player are what this object shows and takes; for the others, rivals act here, in the
    main process, all matches of a group that have the same rival together.

    A match cannot be repeated, so `restore` starts the matches anew: a training that resumes loses
    those in progress.

    Args:
        config: configuration of every match.
        rivals: the policies that play against the first player; None: random actions.
        *args: as for `SharedVectorEnv`.
        rival_seed: seed of the rivals' actions.
        **kwargs: as for `SharedVectorEnv`.

    Attributes:
        rivals: as above; may be replaced before a `reset`.

    Raises:
        EnvError: If the environment is not a match of several players.
    """

    def __init__(
        self,
        config: EnvConfig,
        rivals: Rivals | None = None,
        *args: Any,
        rival_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        config = replace(config, opponent="self")
        example = make(config)
        example.close()
        if not isinstance(example, MatchEnv) or example.num_players < 2:
            raise EnvError(f"{config.env} is not a match of several players")
        self._num_players = example.num_players
        super().__init__(config, *args, **kwargs)
        self.single_observation_space = example.single_observation_space
        self.single_action_space = example.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        random = Fixed(RandomPlayer(self.single_action_space), torch.device("cpu"))
        self.rivals: Rivals = random if rivals is None else rivals
        self._lock = threading.Lock()
        self._draws = num_draws(self.single_action_space)
        self._result = self.episode_keys.index(RESULT)
        self._names = [""] * self.num_envs
        self._is_new = np.ones(self.num_envs, np.bool_)  # Whether a match has had no env step yet.
        self._states: dict[tuple[int, int], Tensor] = {}  # Of the rivals, by lane and player.
        self._generators = [
            np.random.default_rng((rival_seed, group)) for group in range(self.num_groups)
        ]

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start a match in every environment; see `SharedVectorEnv.reset`."""
        self._is_new[:] = True
        return super().reset(**kwargs)

    def restore(self, seeds: Sequence[int], actions: Sequence[NDArray[Any]]) -> None:
        """Start matches with these seeds; they are not repeated."""
        self._is_new[:] = True
        super().restore(seeds, [np.zeros((0,))] * self.num_envs)

    def skip(self, lanes: Sequence[int]) -> None:
        """Start the next match in some environments; their current matches are discarded."""
        self._is_new[list(lanes)] = True
        super().skip(lanes)

    def send(self, group: int, actions: NDArray[Any], *, with_info: bool = False) -> None:
        """Send a group the first players' actions and those of the rivals.

        Args:
            group: the group.
            actions: (n,) or (n, A).
            with_info: see `SharedVectorEnv.send`.

        Raises:
            EnvError: If the actions have the wrong shape.
        """
        lanes = range(self._slices[group].start, self._slices[group].stop)
        if len(actions) != len(lanes):
            raise EnvError(f"{len(actions)} actions were given for {len(lanes)} environments")
        starts = self._begin_matches(lanes)
        each = [np.asarray(actions).reshape(len(lanes), -1)]
        others = range(1, self._num_players)
        each += [self._choose(group, lanes, player, starts) for player in others]
        super().send(group, np.concatenate(each, axis=1), with_info=with_info)

    def _begin_matches(self, lanes: range) -> NDArray[np.bool_]:
        """Report the matches that have ended, draw rivals, and return whether matches begin, (n,).

        A match that was lost to a fault is played again, against the same rival.
        """
        arrays = self._arrays
        begins = np.zeros(len(lanes), np.bool_)
        with self._lock:
            for i, lane in enumerate(lanes):
                ended = bool(arrays.terminated[lane] or arrays.truncated[lane])
                begins[i] = self._is_new[lane] or ended
                result = float(arrays.episode[lane, self._result])
                if self._is_new[lane] or (ended and not np.isnan(result)):
                    if not self._is_new[lane]:
                        self.rivals.report(self._names[lane], result)
                    self._names[lane] = self.rivals.draw(lane)
                self._is_new[lane] = False
        return begins

    def _choose(
        self, group: int, lanes: range, player: int, starts: NDArray[np.bool_]
    ) -> NDArray[Any]:
        """Return the actions of one of the other players in each match of a group, (n, A)."""
        matches: dict[str, list[int]] = defaultdict(list)
        for i, lane in enumerate(lanes):
            matches[self._names[lane]].append(i)
        draws = self._generators[group].random((len(lanes), self._draws), np.float32)
        actions: NDArray[Any] | None = None
        for name, members in matches.items():
            with self._lock:
                rival, device = self.rivals.player(name)
            keys = [(lanes[i], player) for i in members]
            for i, key in zip(members, keys, strict=True):
                if starts[i]:
                    self._states[key] = rival.initial_state(1).to(device)
            where = [lanes[i] for i in members]
            obs = as_tensors(
                {name: part[where] for name, part in own_parts(self._arrays.obs, player).items()},
                device,
            )
            with single_thread(), torch.no_grad():
                decision = rival.act(
                    obs,
                    torch.cat([self._states[key] for key in keys], dim=1),
                    torch.from_numpy(starts[members]).to(device),
                    torch.from_numpy(draws[members]).to(device),
                )
            for key, state in zip(keys, decision.memory_state.split(1, dim=1), strict=True):
                self._states[key] = state
            chosen = decision.actions.cpu().numpy().reshape(len(members), -1)
            if actions is None:
                actions = np.zeros((len(lanes), chosen.shape[1]), chosen.dtype)
            actions[members] = chosen
        assert actions is not None, "a group has at least one match"
        return actions

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every environment once; see `SharedVectorEnv.step`."""
        *result, infos = super().step(actions)
        for lane in np.flatnonzero(infos.get("_final_obs", ())):
            parts = own_parts(infos["final_obs"][lane])
            infos["final_obs"][lane] = parts.get("obs", parts)
        return *result, infos

    def _views(self, lanes: slice) -> Transition:
        joint = super()._views(lanes)
        return joint._replace(obs=own_parts(joint.obs), final_obs=own_parts(joint.final_obs))

    def _batch(self, parts: dict[str, NDArray[Any]]) -> Any:
        return super()._batch(own_parts(parts))
