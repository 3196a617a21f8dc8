"""Toy environments that show what they were given, as `tests.envs.toy:Echo-v0` and the like."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LENGTH = 6  # env steps of an episode


class Toy(gym.Env[Any, Any]):
    """Observes the last action, the step and the seed; pays the step; ends after `LENGTH` steps."""

    def __init__(self, action: spaces.Space[Any], fails_at: int | None = None) -> None:
        self.action_space = action
        self.fails_at = fails_at
        self.width = action.shape[0] if action.shape else 1
        self.observation_space = spaces.Box(-1e6, 1e6, (self.width + 2,), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.seed = 0, -1 if seed is None else seed
        return self.observe(np.zeros(self.width)), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.count += 1
        if self.count == self.fails_at:
            raise ZeroDivisionError("the toy broke")
        ended = self.count == LENGTH
        # Even seeds end, odd ones run out of time.
        return self.observe(action), float(self.count), ended and not self.seed % 2, ended, {}

    def observe(self, action: Any) -> Any:
        return np.array([*np.atleast_1d(action), self.count, self.seed], np.float64)


class Scene(gym.Env[Any, Any]):
    """Observes whatever space it is given, one sample after another."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.shown = [self.observation_space.sample()]
        return self.shown[-1], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.shown.append(self.observation_space.sample())
        return self.shown[-1], 1.0, False, False, {}


def _pixels(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


ACTIONS: dict[str, spaces.Space[Any]] = {
    "Shifted": spaces.Discrete(3, start=5),
    "Bounded": spaces.Box(np.array([0.0, -2.0]), np.array([10.0, 2.0]), dtype=np.float64),
    "Unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "Groups": spaces.MultiDiscrete([2, 3]),
    "Switches": spaces.MultiBinary(3),
    "Written": spaces.Text(5),
    "Matrix": spaces.Box(-1, 1, (2, 2), np.float32),
    "Nested": spaces.Dict({"a": spaces.Discrete(2)}),
}
SCENES: dict[str, spaces.Space[Any]] = {
    "Rgb": _pixels(64, 48, 3),
    "Gray": _pixels(64, 48),
    "OneChannel": _pixels(64, 48, 1),
    "Grid": _pixels(7, 7, 3),
    "Story": spaces.Text(5),
    "Family": spaces.Dict(
        {
            "number": spaces.Discrete(3),
            "vector": spaces.Box(-1, 1, (2, 2), np.float64),
            "pair": spaces.Tuple((spaces.MultiBinary(2), spaces.MultiDiscrete([2, 2]))),
        }
    ),
    "Telling": spaces.Dict({"said": spaces.Text(5), "vector": spaces.Box(-1, 1, (2,))}),
}

for _name, _space in ACTIONS.items():
    gym.register(f"{_name}-v0", entry_point=Toy, kwargs={"action": _space})
for _name, _space in SCENES.items():
    gym.register(f"{_name}-v0", entry_point=Scene, kwargs={"space": _space})
gym.register("Broken-v0", entry_point=Toy, kwargs={"action": spaces.Discrete(2), "fails_at": 3})
