"""Our vector environment as one of Stable-Baselines3's: its agents and callbacks run on it.

This module is not imported by the package, and never by a worker: Stable-Baselines3 imports torch.
Axes: N environments.
"""

from __future__ import annotations

import os

# Where torch is not imported yet: threads that wait for each other soon go to sleep, instead of
# taking the cores from the games.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices

from envs.cfg import game_spec
from envs.config import EnvConfig
from envs.errors import EnvError
from envs.registry import canonical_name
from envs.vector import SharedVectorEnv


def make_vec_env(
    env_id: str,
    n_envs: int = 1,
    seed: int | None = None,
    num_workers: int | None = None,
    **options: Any,
) -> SharedVecEnv:
    """Make environments in worker processes, in place of SB3's function of the same name.

    Doom is observed in colour unless `observation` says otherwise: palette indices, the default
    elsewhere, mean nothing to the networks of Stable-Baselines3.

    Args:
        env_id: a scenario, `doomgrad/Basic-v0`, any Gymnasium id, a Freedoom map or a .cfg.
        n_envs: N.
        seed: environment i plays the episodes with seeds seed + i, seed + i + N, ...
        num_workers: processes; default: one for each CPU core.
        **options: fields of `EnvConfig`, as in frame_skip=4, width=84, height=84.

    Raises:
        EnvError: If there is no such world, or the numbers do not fit.
    """
    if game_spec(canonical_name(env_id)) is not None:
        options = {"observation": "rgb", **options}
    config = EnvConfig(env=env_id, **options)
    vec_env = SharedVecEnv(SharedVectorEnv(config, n_envs, num_workers))
    if seed is not None:
        vec_env.seed(seed)
    return vec_env


class SharedVecEnv(VecEnv):
    """A vector environment over shared memory, by the contract of Stable-Baselines3.

    Where an episode ends, `infos[i]` holds `terminal_observation`, `TimeLimit.truncated` and, as
    SB3's `Monitor` writes it, `episode` with the native return `r`, the length `l` in env steps and
    the episode's other statistics; none where the environment broke and was started anew. Every
    `infos[i]` holds the numeric infos of its environment. `metadata` says what screens consist of.

    Args:
        envs: what is played; it is closed with this.
    """

    def __init__(self, envs: SharedVectorEnv) -> None:
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.metadata |= envs.metadata
        self._actions: NDArray[Any] = np.empty(0)

    def reset(self) -> Any:
        """Begin an episode in every environment, at the seeds given to `seed`, if any were."""
        given = [seed for seed in self._seeds if seed is not None]
        obs, infos = self.envs.reset(seed=given or None)
        self.reset_infos = [_of_lane(infos, i) for i in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take actions; they are sent by `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step every environment.

        Returns:
            Observations, (N,) float32 rewards, (N,) bool dones, and infos.
        """
        obs, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        dones = terminated | truncated
        last_infos, last_obs = infos.pop("final_info", {}), infos.pop("final_obs", None)
        each = [_of_lane(last_infos if dones[i] else infos, i) for i in range(self.num_envs)]
        for i in np.flatnonzero(dones):
            each[i]["terminal_observation"] = last_obs[i]
            each[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
            if math.isnan(each[i]["episode"]["r"]):
                del each[i]["episode"]
        return obs, rewards.astype(np.float32), dones, each

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Read an attribute of environments; it travels as JSON, see `SharedVectorEnv.ask`."""
        if attr_name == "render_mode":  # What is asked for at once, and is the same for all.
            return [None] * self.num_envs
        try:
            return self.envs.ask(self._lanes(indices), attr_name)
        except EnvError as error:
            if "AttributeError" in str(error):  # What `has_attr` looks out for.
                raise AttributeError(str(error)) from error
            raise

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of environments; it travels as JSON."""
        self.envs.ask(self._lanes(indices), attr_name, value=value)

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of environments; arguments and results travel as JSON."""
        return self.envs.ask(self._lanes(indices), method_name, args=args, kwargs=kwargs)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Tell whether episodes are monitored, which they are: returns are native ones."""
        return [issubclass(wrapper_class, Monitor)] * len(self._lanes(indices))

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Give no images: nothing is rendered while environments are played in parallel."""
        return [None] * self.num_envs

    def _lanes(self, indices: VecEnvIndices) -> list[int]:
        return [int(i) for i in self._get_indices(indices)]


def _of_lane(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Pick one environment's infos out of those of all, as Gymnasium arranges them."""
    return {
        key: _of_lane(values, i) if isinstance(values, dict) else values[i].item()
        for key, values in infos.items()
        if f"_{key}" in infos and infos[f"_{key}"][i]
    }
