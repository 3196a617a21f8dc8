"""Worlds whose right answers are known, registered so that `tests.agents.toy:Name-v0` names one.

Workers of a vector environment import this module by that name.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

from envs import EnvConfig, make


class Counter(gym.Env):
    """Observes (seed, steps so far); pays ten times the step's number plus the action.

    An episode lasts 3 + seed % 5 steps; even seeds terminate, odd ones are truncated.
    """

    observation_space = spaces.Box(0.0, 1e6, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._seed, self._step = seed, 0
        return self._observe(), {}

    def step(self, action):
        assert action in self.action_space
        reward = 10.0 * self._step + float(action)
        self._step += 1
        over = self._step == counter_length(self._seed)
        return self._observe(), reward, over and self._seed % 2 == 0, over and self._seed % 2, {}

    def _observe(self):
        return np.array([self._seed, self._step], np.float32)


def counter_length(seed: int) -> int:
    return 3 + seed % 5


class Constant(gym.Env):
    """Observes 1 and pays 1 for eight steps, then ends in the way it was told to."""

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
    """Observes what action is asked for; pays up to 1 for it. Episodes last 16 steps.

    Wanted choices are observed one-hot, wanted switches and numbers as they are.
    """

    length = 16

    def __init__(self, *, actions: spaces.Space[Any]) -> None:
        self.action_space = actions
        size = spaces.flatdim(actions)
        self.observation_space = spaces.Box(-1.0, 1.0, (size,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._ask(), {}

    def step(self, action):
        if isinstance(self.action_space, spaces.Box):
            reward = 1.0 - float(np.abs(action - self._wanted).mean())
        else:
            reward = float((np.asarray(action) == self._wanted).mean())
        self._step += 1
        return self._ask(), reward, False, self._step == self.length, {}

    def _ask(self):
        space = self.action_space
        if isinstance(space, spaces.Box):
            self._wanted = self.np_random.uniform(-0.8, 0.8, space.shape).astype(np.float32)
            return self._wanted
        if isinstance(space, spaces.MultiBinary):
            self._wanted = self.np_random.integers(2, size=space.shape)
        elif isinstance(space, spaces.MultiDiscrete):
            self._wanted = self.np_random.integers(space.nvec)
        else:
            self._wanted = self.np_random.integers(space.n)
        return spaces.flatten(space, self._wanted).astype(np.float32)


class Recall(gym.Env):
    """Shows a bit, hides it, and pays 1 if the action of the last step repeats it."""

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


ACTION_SPACES: dict[str, spaces.Space[Any]] = {
    "Discrete": spaces.Discrete(3),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(2),
    "Box": spaces.Box(-1.0, 1.0, (2,), np.float32),
}

gym.register("Counter-v0", entry_point=Counter)
gym.register("Truncated-v0", entry_point=Constant, kwargs={"terminates": False})
gym.register("Terminated-v0", entry_point=Constant, kwargs={"terminates": True})
gym.register("Recall-v0", entry_point=Recall)
gym.register("RecallLater-v0", entry_point=Recall, kwargs={"length": 20})
gym.register("MaskedCartPole-v1", entry_point=MaskedCartPole, max_episode_steps=500)
for _name, _space in ACTION_SPACES.items():
    gym.register(f"Identity{_name}-v0", entry_point=Identity, kwargs={"actions": _space})


class Transition(NamedTuple):
    """See `agents.sampler.Transition`."""

    obs: dict[str, Any]
    rewards: Any
    terminated: Any
    truncated: Any
    final_obs: dict[str, Any]
    episode: Any


def sent_first(sent):
    return sent[0]


class LocalEnvs:
    """Environments in this process, as `agents.sampler.GroupedEnvs` asks for.

    A small world answers sooner than a message to another process. Seeds are dealt out as
    `envs.SharedVectorEnv` does.

    Args:
        env_id: what every environment is.
        num_envs: N.
        num_groups: into how many groups, of equal size, the environments are split.
        ready: which of the groups that were sent actions, in order of sending, is ready first.
        num_teams: into how many teams the groups are split.
    """

    episode_keys = ("r", "l")

    def __init__(
        self, env_id: str, num_envs: int, num_groups: int = 1, ready=sent_first, num_teams: int = 1
    ) -> None:
        self.num_envs, self.num_groups = num_envs, num_groups
        self.teams = [list(range(num_groups))[team::num_teams] for team in range(num_teams)]
        self._envs = [make(EnvConfig(env=env_id)) for _ in range(num_envs)]
        self.single_observation_space = self._envs[0].observation_space
        self.single_action_space = self._envs[0].action_space
        shape = (num_envs, *self.single_observation_space.shape)
        self._obs, self._final_obs = np.zeros((2, *shape), np.float32)
        self._rewards = np.zeros(num_envs)
        self._terminated, self._truncated = np.zeros((2, num_envs), np.bool_)
        self._episode = np.zeros((num_envs, 2))
        self._seeds = np.arange(num_envs)
        self._ready, self._sent = ready, []

    @property
    def episode_seeds(self):
        return self._seeds.copy()

    def reset(self, *, seed):
        self._seeds[:] = seed + np.arange(self.num_envs)
        for lane in range(self.num_envs):
            self._begin(lane)

    def current_obs(self, group):
        return {"obs": self._obs[self._lanes(group)]}

    def send(self, group, actions):
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
                self._seeds[lane] += self.num_envs
                self._begin(lane)
            else:
                self._obs[lane] = obs

    def wait(self, team=0):
        return self._ready([group for group in self._sent if group in self.teams[team]])

    def receive(self, group):
        self._sent.remove(group)
        lanes = self._lanes(group)
        return Transition(
            self.current_obs(group),
            self._rewards[lanes],
            self._terminated[lanes],
            self._truncated[lanes],
            {"obs": self._final_obs[lanes]},
            self._episode[lanes],
        )

    def _lanes(self, group):
        size = self.num_envs // self.num_groups
        return slice(group * size, (group + 1) * size)

    def _begin(self, lane):
        self._obs[lane] = self._envs[lane].reset(seed=int(self._seeds[lane]))[0]


class Chancy(gym.Env[Any, Any]):
    """A world that does not repeat itself: what is paid is not decided by the seed."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)
    _moods = np.random.default_rng()

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._step += 1
        return np.zeros(2, np.float32), self._moods.random(), self._step == 6, False, {}

    def render(self):
        return np.full((48, 64, 3), 40 * self._step, np.uint8)


gym.register("Chancy-v0", entry_point=Chancy)
