"""Toy environments that observe the actions they were given, such as `tests.envs.toy:Groups-v0`."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LENGTH = 6  # env steps of an episode


class Toy(gym.Env[Any, Any]):
    """Observes the last action, the step and the seed; the reward is the step."""

    def __init__(self, action: spaces.Space[Any], fault: str = "", fails_at: int = 3) -> None:
        self.action_space = action
        self.fault, self.fails_at = fault, fails_at
        self.width = action.shape[0] if action.shape else 1
        self.observation_space = spaces.Box(-1e6, 1e6, (self.width + 2,), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if self.fault == "never begins":
            raise RuntimeError("it was never alive")
        self.count, self.seed = 0, -1 if seed is None else seed
        return self.observe(np.zeros(self.width)), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.count += 1
        ended = self.count == LENGTH
        obs, reward = self.observe(action), float(self.count)
        if self.count == self.fails_at or self.fault in ("differs", "turns sour"):
            obs, reward = self.fail(obs, reward)
        # Episodes with even seeds are terminated, those with odd seeds truncated.
        return obs, reward, ended and not self.seed % 2, ended, {}

    def fail(self, obs: Any, reward: float) -> tuple[Any, float]:
        match self.fault:
            case "raises":
                raise ZeroDivisionError("the toy broke")
            case "dies":
                os._exit(7)
            case "hangs":
                time.sleep(600)
            case "differs":
                obs[0] = random.random()
            case "turns sour":
                assert not os.path.exists(os.environ["DOOMGRAD_SOUR"]), "it has turned sour"
            case "stumbles":
                mark = os.path.join(os.environ["DOOMGRAD_STUMBLE"], str(self.seed))
                with contextlib.suppress(FileNotFoundError):
                    os.remove(mark)
                    raise ZeroDivisionError("the toy stumbled")
            case "observes NaN":
                obs[0] = np.nan
            case "pays infinity":
                reward = np.inf
        return obs, reward

    def observe(self, action: Any) -> Any:
        return np.array([*np.atleast_1d(action), self.count, self.seed], np.float64)


class Unseen(Toy):
    """Cannot be drawn, stepped where it would be, or closed."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.render_mode = render_mode

    def render(self) -> Any:
        raise RuntimeError("there is no display")

    def close(self) -> None:
        raise RuntimeError("it stays open")


class Scene(gym.Env[Any, Any]):
    """Observes one sample after another of a given space."""

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


class Lives(gym.Env[Any, Any]):
    """Like an Atari game: three lives of `LENGTH` frames each, a new image in each frame.

    The reward of a frame is its number. `shown` has all images, and `taken` all actions.
    """

    action_space = spaces.Discrete(4)
    meanings: ClassVar[list[str]] = ["NOOP", "FIRE", "RIGHT", "LEFT"]

    def __init__(self, space: spaces.Space[Any], meanings: list[str] | None = None) -> None:
        self.observation_space = space
        self.meanings = meanings or Lives.meanings  # type: ignore[misc] # of this game

    def get_action_meanings(self) -> list[str]:
        return self.meanings

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.taken: list[int] = []
        self.shown = [self.observation_space.sample()]
        return self.shown[-1], {"lives": 3}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.taken.append(int(action))
        self.shown.append(self.observation_space.sample())
        lives = 3 - len(self.taken) // LENGTH
        return self.shown[-1], float(len(self.taken)), lives == 0, False, {"lives": lives}


class Claiming(Toy):
    """Uses names that this project uses, too, for other things."""

    metadata: ClassVar[dict[str, Any]] = {"channels": 3, "palette": "warm", "left_out": 7}
    info_keys, episode_keys = ("speed",), ("height",)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        info = {"statistics": 5, "lives": "many", "life_began": 2}
        return *super().step(action)[:4], info


class Breaching(Toy):
    """Breaks a promise of its spaces."""

    def __init__(self, breach: str) -> None:
        super().__init__(spaces.Discrete(2))
        self.breach = breach

    def observe(self, action: Any) -> Any:
        seen = super().observe(action)
        if self.breach == "shape":
            return seen[:1]
        return seen.astype(str) if self.breach == "dtype" else seen

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, *rest = super().step(action)
        return obs, np.zeros(2), *rest  # type: ignore[return-value] # that is the breach


class Tripled(gym.RewardWrapper[Any, Any]):
    """Triples rewards."""

    def reward(self, reward: Any) -> Any:
        return 3 * reward


def one_more(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Add 1 to every reward."""
    return gym.wrappers.TransformReward(env, lambda reward: float(reward) + 1)


def no_env(env: gym.Env[Any, Any]) -> None:
    """Return no environment."""


def failing(env: gym.Env[Any, Any]) -> None:
    """Fail."""
    raise RuntimeError("of\ntwo lines")


class Chaos(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole that at random exits, raises, hangs, or returns NaN or infinity."""

    metadata: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.chance = random.Random()  # Independent of the seed: a restarted episode differs.

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        draw = self.chance.random()
        if draw < 1e-4:
            os._exit(7)
        elif draw < 1.3e-4:
            time.sleep(600)
        elif draw < 5e-4:
            raise ZeroDivisionError("chaos")
        elif draw < 8e-4:
            obs = np.full_like(obs, np.nan)
        elif draw < 1e-3:
            reward = np.inf
        return obs, float(reward), terminated, truncated, info


class Slow(Toy):
    """Takes its time for an env step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(0.1)
        return super().step(action)


class Lingering(Toy):
    """Never ends to be closed, in the process of the tests."""

    def close(self) -> None:
        if "pytest" in sys.modules:
            time.sleep(600)


class Broken(Toy):
    """Has a mistake in its step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        raise KeyError("HELTH")


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
    "Robot": spaces.Dict(
        {"arm": spaces.Box(-1, 1, (2,)), "camera": _pixels(64, 48, 3), "grip": spaces.Discrete(2)}
    ),
    "Camera": spaces.Dict({"camera": _pixels(64, 48, 3)}),
    "Stereo": spaces.Dict({"left": _pixels(64, 48, 3), "right": _pixels(64, 48, 3)}),
    "Mounted": spaces.Dict({"head": spaces.Dict({"camera": _pixels(64, 48, 3)})}),
    "ChannelsFirst": _pixels(3, 64, 48),
    "Stacked": _pixels(64, 48, 4),
    "Film": _pixels(64, 48, 9),
    "Signed": spaces.Box(-1, 1, (48, 48), np.float32),
}

for _name, _space in ACTIONS.items():
    gym.register(f"{_name}-v0", entry_point=Toy, kwargs={"action": _space})
for _name, _space in SCENES.items():
    gym.register(f"{_name}-v0", entry_point=Scene, kwargs={"space": _space})
gym.register(
    "Counted-v0",
    entry_point=lambda: gym.wrappers.RecordEpisodeStatistics(Toy(spaces.Discrete(2))),
)
gym.register("Endless-v0", entry_point=Scene, kwargs={"space": SCENES["Grid"]})
gym.register(
    "OwnDoom-v0",
    entry_point=lambda **options: Tripled(gym.make("envs:doomgrad/Basic-v0", **options)),
)
gym.register("Slow-v0", entry_point=Slow, kwargs={"action": spaces.Discrete(2)})
gym.register("Chaos-v0", entry_point=Chaos)
for _kind in (Lingering, Broken):
    gym.register(f"{_kind.__name__}-v0", entry_point=_kind, kwargs={"action": spaces.Discrete(2)})
gym.register("Claiming-v0", entry_point=Claiming, kwargs={"action": spaces.Discrete(2)})
gym.register("Unseen-v0", entry_point=Unseen, kwargs={"action": spaces.Discrete(2)})
for _breach in ("shape", "dtype", "paying"):
    _id = f"{_breach.capitalize()}Breach-v0"
    gym.register(_id, entry_point=Breaching, kwargs={"breach": _breach})
gym.register("Lives-v0", entry_point=Lives, kwargs={"space": SCENES["Rgb"]})
gym.register("RobotLives-v0", entry_point=Lives, kwargs={"space": SCENES["Robot"]})
gym.register(
    "FirelessLives-v0",
    entry_point=Lives,
    kwargs={"space": SCENES["Rgb"], "meanings": ["NOOP", "UP", "RIGHT", "LEFT"]},
)
FAULTS = {
    "Raising": "raises",
    "Dying": "dies",
    "Hanging": "hangs",
    "Blind": "observes NaN",
    "Generous": "pays infinity",
    "Stillborn": "never begins",
    "Moody": "differs",
    "Souring": "turns sour",
    "Stumbling": "stumbles",
}
for _name, _fault in FAULTS.items():
    _kwargs = {"action": spaces.Discrete(2), "fault": _fault}
    gym.register(f"{_name}-v0", entry_point=Toy, kwargs=_kwargs)
