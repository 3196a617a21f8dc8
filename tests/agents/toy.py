"""Environments whose correct answers are known, with ids as in `tests.agents.toy:Counter-v0`.

Workers of a vector environment import this module by that name, so it must not import torch.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

from envs import EnvConfig, make


class Counter(gym.Env):
    """Observes (seed, steps so far); the reward is ten times the step's number plus the action.

    An episode has 3 + seed % 5 steps; even seeds terminate, odd seeds are truncated.
    """

    observation_space = spaces.Box(0.0, 1e6, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._seed, self._step = seed, 0
        return self._observe(), self._info()

    def step(self, action):
        assert action in self.action_space
        reward = 10.0 * self._step + float(action)
        self._step += 1
        over = self._step == counter_length(self._seed)
        terminated, truncated = over and self._seed % 2 == 0, over and self._seed % 2
        return self._observe(), reward, terminated, truncated, self._info()

    def _observe(self):
        return np.array([self._seed, self._step], np.float32)

    def _info(self):
        return {}


def counter_length(seed: int) -> int:
    return 3 + seed % 5


class Gauge(Counter):
    """A `Counter` that observes images and reports four variables; `gauge_info` returns them.

    The first two pixels are the seed and the number of steps. If an enemy is in view, all other
    pixels are bright.
    """

    observation_space = spaces.Box(0, 255, (36, 40, 1), np.uint8)
    info_keys = ("ENEMY_IN_VIEW", "HEALTH", "DEPTH_0_0", "MONSTER_IN_VIEW_0")

    def _observe(self):
        enemy = gauge_info(self._seed, self._step)["ENEMY_IN_VIEW"]
        image = np.full((36, 40, 1), 200 * enemy, np.uint8)
        image[0, :2, 0] = self._seed, self._step
        return image

    def _info(self):
        return gauge_info(self._seed, self._step)


def gauge_info(seed: int, step: int) -> dict[str, float]:
    enemy = float((seed + step) % 3 == 0)
    return {
        "ENEMY_IN_VIEW": enemy,
        "HEALTH": 100.0 - 7 * step - seed % 10,
        "DEPTH_0_0": 4 * enemy,
        "MONSTER_IN_VIEW_0": enemy,
    }


class Constant(gym.Env):
    """Observes 1; the reward is 1 for each of eight steps. The episode then ends as configured."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)
    length = 8

    def __init__(self, *, terminates: bool) -> None:
        self._terminates = terminates

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return np.ones(1, np.float32), {}

    def step(self, action):
        self._step += 1
        over = self._step == self.length
        terminated, truncated = over and self._terminates, over and not self._terminates
        return np.ones(1, np.float32), 1.0, terminated, truncated, {}


class Identity(gym.Env):
    """Observes the right action; the reward is 1 for taking exactly that. Episodes have 16 steps.

    Choices are observed one-hot, switches and numbers as they are.
    """

    length = 16

    def __init__(self, *, actions: spaces.Space[Any]) -> None:
        self.action_space = actions
        size = spaces.flatdim(actions)
        self.observation_space = spaces.Box(-1.0, 1.0, (size,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._observe(), {}

    def step(self, action):
        if isinstance(self.action_space, spaces.Box):
            reward = 1.0 - float(np.abs(action - self._right).mean())
        else:
            reward = float((np.asarray(action) == self._right).mean())
        self._step += 1
        return self._observe(), reward, False, self._step == self.length, {}

    def _observe(self):
        space = self.action_space
        if isinstance(space, spaces.Box):
            self._right = self.np_random.uniform(-0.8, 0.8, space.shape).astype(np.float32)
            return self._right
        if isinstance(space, spaces.MultiBinary):
            self._right = self.np_random.integers(2, size=space.shape)
        elif isinstance(space, spaces.MultiDiscrete):
            self._right = self.np_random.integers(space.nvec)
        else:
            self._right = self.np_random.integers(space.n)
        return spaces.flatten(space, self._right).astype(np.float32)


class Recall(gym.Env):
    """Shows a bit at first only; the reward is 1 if the action of the last step repeats it."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, *, length: int = 2) -> None:
        self._length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._bit, self._step = int(self.np_random.integers(2)), 0
        return np.array([2 * self._bit - 1, 1], np.float32), {}

    def step(self, action):
        self._step += 1
        over = self._step == self._length
        reward = float(over and action == self._bit)
        return np.zeros(2, np.float32), reward, over, False, {}


class MaskedCartPole(CartPoleEnv):
    """CartPole of which only positions are observed: velocities must be inferred over time."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        high = self.observation_space.high[[0, 2]]
        self.observation_space = spaces.Box(-high, high, dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        return observation[[0, 2]], info

    def step(self, action):
        observation, *rest = super().step(action)
        return observation[[0, 2]], *rest


class Chancy(gym.Env[Any, Any]):
    """An environment whose episodes do not repeat: its rewards do not depend on the seed."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)
    _generator = np.random.default_rng()

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._step += 1
        return np.zeros(2, np.float32), self._generator.random(), self._step == 6, False, {}

    def render(self):
        return np.full((48, 64, 3), 40 * self._step, np.uint8)


ACTION_SPACES: dict[str, spaces.Space[Any]] = {
    "Discrete": spaces.Discrete(3),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(2),
    "Box": spaces.Box(-1.0, 1.0, (2,), np.float32),
}

gym.register("Counter-v0", entry_point=Counter)
gym.register("Gauge-v0", entry_point=Gauge)
gym.register("Truncated-v0", entry_point=Constant, kwargs={"terminates": False})
gym.register("Terminated-v0", entry_point=Constant, kwargs={"terminates": True})
gym.register("Recall-v0", entry_point=Recall)
gym.register("RecallLater-v0", entry_point=Recall, kwargs={"length": 20})
gym.register("MaskedCartPole-v1", entry_point=MaskedCartPole, max_episode_steps=500)
gym.register("Chancy-v0", entry_point=Chancy)
for _name, _space in ACTION_SPACES.items():
    gym.register(f"Identity{_name}-v0", entry_point=Identity, kwargs={"actions": _space})


class Result(NamedTuple):
    """See `agents.collector.StepResult`."""

    obs: dict[str, Any]
    rewards: Any
    terminated: Any
    truncated: Any
    final_obs: dict[str, Any]
    episode: Any


def sent_first(sent):
    return sent[0]


class LocalEnvs:
    """Environments in this process, see `agents.collector.GroupedEnvs`; they cannot be restored.

    Args:
        env_id: a Gymnasium id.
        num_envs: N.
        num_groups: the number of groups into which the environments are split.
        ready: returns the group that is ready first, of those that were sent actions, which are
            passed in the order of sending.
        num_teams: the number of teams into which the groups are split.
        as_array: converts each array that is returned, as `torch.from_numpy` does.
        seed_stride: see `SharedVectorEnv`.
        **options: fields of `EnvConfig`.
    """

    episode_keys = ("r", "l")

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        num_groups: int = 1,
        ready=sent_first,
        num_teams: int = 1,
        *,
        as_array=np.asarray,
        seed_stride: int | None = None,
        **options: Any,
    ) -> None:
        self.num_envs, self.num_groups = num_envs, num_groups
        self.teams = [list(range(num_groups))[team::num_teams] for team in range(num_teams)]
        self._envs = [make(EnvConfig(env=env_id, **options)) for _ in range(num_envs)]
        self.single_observation_space = self._envs[0].observation_space
        self.single_action_space = self._envs[0].action_space
        self.info_keys = getattr(self._envs[0].unwrapped, "info_keys", ())
        space = self.single_observation_space
        self._obs, self._final_obs = np.zeros((2, num_envs, *space.shape), space.dtype)
        self._rewards = np.zeros(num_envs)
        self._terminated, self._truncated = np.zeros((2, num_envs), np.bool_)
        self._episode = np.zeros((num_envs, 2))
        self._info = np.full((num_envs, len(self.info_keys)), np.nan)
        self._seeds, self._seed_stride = np.arange(num_envs), seed_stride or num_envs
        self._ready, self._sent = ready, []
        self._as_array = as_array

    @property
    def episode_seeds(self):
        return self._seeds.copy()

    def reset(self, *, seed):
        self._seeds[:] = seed + np.arange(self.num_envs)
        for lane in range(self.num_envs):
            self._info[lane] = self._numeric(self._start(lane))

    def current_obs(self, group):
        return {"obs": self._as_array(self._obs[self._lanes(group)])}

    def current_info(self, group):
        return self._info[self._lanes(group)]

    def send(self, group, actions, *, with_info=False):
        assert group not in self._sent
        self._sent.append(group)
        lanes = range(self.num_envs)[self._lanes(group)]
        for lane, action in zip(lanes, actions, strict=True):
            obs, reward, terminated, truncated, info = self._envs[lane].step(action)
            self._rewards[lane] = reward
            self._terminated[lane], self._truncated[lane] = terminated, truncated
            if terminated or truncated:
                self._final_obs[lane] = obs
                self._episode[lane] = info["statistics"]["r"], info["statistics"]["l"]
                self._seeds[lane] += self._seed_stride
                info = self._start(lane)
            else:
                self._obs[lane] = obs
            # Infos that were not asked for must not be used.
            self._info[lane] = self._numeric(info) if with_info else np.nan

    def wait(self, team=0):
        return self._ready([group for group in self._sent if group in self.teams[team]])

    def receive(self, group):
        self._sent.remove(group)
        lanes = self._lanes(group)
        return Result(
            self.current_obs(group),
            self._as_array(self._rewards[lanes]),
            self._as_array(self._terminated[lanes]),
            self._as_array(self._truncated[lanes]),
            {"obs": self._as_array(self._final_obs[lanes])},
            self._episode[lanes],
        )

    def _lanes(self, group):
        size = self.num_envs // self.num_groups
        return slice(group * size, (group + 1) * size)

    def _start(self, lane):
        self._obs[lane], info = self._envs[lane].reset(seed=int(self._seeds[lane]))
        return info

    def _numeric(self, info):
        return [info[key] for key in self.info_keys]
