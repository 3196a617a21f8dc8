"""One second of foreign frames, and how long a policy needs to recover from it.

Beside the policy, a clean twin looks on that saw the true frames in that second. Afterwards, both
see the same frames, and differ in nothing but what their memory holds: the distance between their
distributions over actions says whether the policy has recovered. Without memory it is 0 at once.

Axes: N environments, F foreign env steps, H, W, C an image, E episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents import RandomPlayer
from agents.collector import as_tensors
from agents.distributions import num_draws
from agents.policy import Decision, Obs, Policy
from envs import EnvConfig
from envs.doom.env import FRAMES_PER_SECOND
from envs.registry import frames_per_env_step
from evaluation.playing import CountingPlayer
from evaluation.protocol import vector_env
from evaluation.robustness.player import total_variation

RECOVERED = 0.05
"""Total variation between a policy and its clean twin below which the policy has recovered."""
_OTHERS = ("health_gathering", "basic")
_SHOWN = 36  # Env steps of the mean curve after the foreign frames.


def foreign_steps(config: EnvConfig) -> int:
    """Return F, the number of env steps in a second."""
    return max(1, round(FRAMES_PER_SECOND / frames_per_env_step(config)))


def foreign_images(config: EnvConfig, names: list[str]) -> dict[str, Tensor]:
    """Return a second of another scenario, played at random.

    Args:
        config: a scenario; the other one is observed in the same way.
        names: parts of its observations that are images.

    Returns:
        By name, (F, H, W, C) uint8.
    """
    other = next(env for env in _OTHERS if env != config.env)
    generator, images = torch.Generator().manual_seed(0), []
    with vector_env(replace(config, env=other, time_limit=None), 1, 1) as envs:
        player = RandomPlayer(envs.single_action_space)
        envs.reset(seed=0)
        for _ in range(foreign_steps(config)):
            obs = as_tensors(envs.current_obs(0), torch.device("cpu"))
            images.append({name: obs[name][0].clone() for name in names})
            draws = torch.rand(1, num_draws(envs.single_action_space), generator=generator)
            decision = player.act(obs, player.initial_state(1), torch.zeros(1).bool(), draws)
            envs.send(0, decision.actions.numpy())
            envs.receive(0)
    return {name: torch.stack([each[name] for each in images]) for name in names}


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How a policy recovers from foreign frames.

    Attributes:
        episodes: E, the number of episodes that were still going on after the foreign frames.
        during: mean total variation between policy and twin while the frames are foreign.
        curve: mean total variation in each env step afterwards, of episodes that last so long.
        recovered: share of the episodes in which it fell below `RECOVERED`.
        median_steps: median number of env steps until then, of those episodes; None if none.
    """

    episodes: int
    during: float
    curve: tuple[float, ...]
    recovered: float
    median_steps: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary, for JSON."""
        return {**vars(self), "curve": list(self.curve)}


class InterruptedPlayer(CountingPlayer):
    """Plays with a policy that sees foreign frames for a second of each episode; see `Player`.

    They begin after half a second.

    Args:
        policy: the policy.
        images: by name, (F, H, W, C) uint8.
    """

    def __init__(self, policy: Policy, images: Mapping[str, Tensor]) -> None:
        self._policy, self._images = policy, images
        self._count = len(next(iter(images.values())))
        self._first = self._count // 2
        self._twin: Tensor | None = None
        self._steps: Tensor | None = None
        self._during: list[float] = []
        self._after: list[list[float]] = []  # Of each episode, in the order of their starts.
        self._current: list[list[float]] = []

    def initial_state(self, num_envs: int) -> Tensor:
        """See `Player.initial_state`."""
        return self._policy.initial_state(num_envs)

    def act(
        self, obs: Obs, memory_state: Tensor, episode_starts: Tensor, draws: Tensor | None
    ) -> Decision:
        """Choose actions; see `Policy.act`."""
        num = len(episode_starts)
        counted = [True] * num if self.counted is None else self.counted.tolist()
        if self._steps is None or self._twin is None:
            self._steps, self._twin = (
                torch.zeros_like(episode_starts, dtype=torch.long),
                memory_state,
            )
            self._current = [[] for _ in range(num)]
        self._steps = torch.where(episode_starts, 0, self._steps)
        for lane in episode_starts.nonzero().flatten().tolist():
            self._current[lane] = []
            if counted[lane]:
                self._after.append(self._current[lane])
        place = self._steps - self._first
        is_foreign = (place >= 0) & (place < self._count)
        seen = dict(obs)
        for name, images in self._images.items():
            foreign = images.to(place.device)[place.clamp(0, self._count - 1)]
            seen[name] = torch.where(is_foreign[:, None, None, None], foreign, obs[name])
        decision = self._policy.act(seen, memory_state, episode_starts, draws)
        twin = self._policy.act(obs, self._twin, episode_starts, draws)
        distances = total_variation(self._policy, decision.probabilities, twin.probabilities)
        for lane, (at, distance) in enumerate(zip(place.tolist(), distances.tolist(), strict=True)):
            if 0 <= at < self._count and counted[lane]:
                self._during.append(distance)
            elif at >= self._count:
                self._current[lane].append(distance)
        self._twin, self._steps = twin.memory_state, self._steps + 1
        return decision

    def recovery(self) -> Recovery:
        """Return how the policy has recovered in all episodes so far."""
        after = [curve for curve in self._after if curve]
        times = [
            next((step for step, distance in enumerate(curve) if distance < RECOVERED), None)
            for curve in after
        ]
        found = [time for time in times if time is not None]
        longest = min(_SHOWN, max(map(len, after), default=0))
        curve = [
            float(np.mean([each[step] for each in after if len(each) > step]))
            for step in range(longest)
        ]
        return Recovery(
            episodes=len(after),
            during=float(np.mean(self._during)) if self._during else 0.0,
            curve=tuple(curve),
            recovered=len(found) / len(after) if after else 0.0,
            median_steps=float(np.median(found)) if found else None,
        )
