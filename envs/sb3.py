"""`SharedVectorEnv` with the interface of Stable-Baselines3, for its agents and callbacks.

This module is not imported by the package, and never by a worker, because Stable-Baselines3 imports
torch. Axes: N environments.
"""

from __future__ import annotations

import os

# Has an effect if torch is not imported yet: its idle threads soon sleep, instead of taking cores
# from the environments.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices

from envs.config import EnvConfig
from envs.doom.cfg import game_spec
from envs.errors import EnvError
from envs.own import as_pairs
from envs.registry import canonical_name
from envs.vector.vector import SharedVectorEnv


def make_vec_env(
    env_id: str,
    n_envs: int = 1,
    seed: int | None = None,
    num_workers: int | None = None,
    **options: Any,
) -> SharedVecEnv:
    """Make environments in worker processes, in place of SB3's function of the same name.

    The default of `observation` is `rgb` for Doom, because the networks of Stable-Baselines3 cannot
    interpret palette indices, this project's default.

    Args:
        env_id: a scenario, `doomgrad/Basic-v0`, any Gymnasium id, a Freedoom map or a .cfg.
        n_envs: N.
        seed: environment i has the episodes with seeds seed + i, seed + i + N, ...
        num_workers: worker processes; default: one for each CPU core.
        **options: fields of `EnvConfig`, such as frame_skip=4, width=84, height=84; `env_kwargs`
            may be a dictionary.

    Raises:
        EnvError: If there is no such environment, or the numbers do not fit.
    """
    if game_spec(canonical_name(env_id)) is not None:
        options = {"observation": "rgb", **options}
    if isinstance(kwargs := options.get("env_kwargs"), Mapping):
        options["env_kwargs"] = as_pairs(kwargs)
    config = EnvConfig(env=env_id, **options)
    vec_env = SharedVecEnv(SharedVectorEnv(config, n_envs, num_workers))
    if seed is not None:
        vec_env.seed(seed)
    return vec_env


class SharedVecEnv(VecEnv):
    """A vector environment over shared memory, with the interface of Stable-Baselines3.

    Every `infos[i]` contains the numeric infos of environment i. At the end of an episode it also
    contains `terminal_observation`, `TimeLimit.truncated` and, like that of SB3's `Monitor`,
    `episode` with the native return `r`, the length `l` in env steps and the episode's other
    statistics. `episode` is missing if the environment failed and was restarted. `metadata` has the
    channels of screens.

    Args:
        envs: the environments; they are closed together with this object.
    """

    def __init__(self, envs: SharedVectorEnv) -> None:
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.metadata |= envs.metadata
        self._actions: NDArray[Any] = np.empty(0)

    def reset(self) -> Any:
        """Start an episode in every environment, with the seeds given to `seed`, if any."""
        given = [seed for seed in self._seeds if seed is not None]
        obs, infos = self.envs.reset(seed=given or None)
        self.reset_infos = [_of_lane(infos, i) for i in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep actions until `step_wait` sends them."""
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
        """Return an attribute of environments, sent as JSON; see `SharedVectorEnv.ask`."""
        if attr_name == "render_mode":  # SB3's constructor asks for it; it is None for all.
            return [None] * self.num_envs
        try:
            return self.envs.ask(self._lanes(indices), attr_name)
        except EnvError as error:
            if "AttributeError" in str(error):  # `has_attr` expects it.
                raise AttributeError(str(error)) from error
            raise

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of environments, sent as JSON."""
        self.envs.ask(self._lanes(indices), attr_name, value=value)

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of environments; arguments and results are sent as JSON."""
        return self.envs.ask(self._lanes(indices), method_name, args=args, kwargs=kwargs)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return whether it is `Monitor` that is asked for, because `episode` is reported."""
        return [issubclass(wrapper_class, Monitor)] * len(self._lanes(indices))

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Return no images: worker processes do not render."""
        return [None] * self.num_envs

    def _lanes(self, indices: VecEnvIndices) -> list[int]:
        return [int(i) for i in self._get_indices(indices)]


def _of_lane(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Return environment i's infos from those of all, as Gymnasium arranges them."""
    return {
        key: _of_lane(values, i) if isinstance(values, dict) else values[i].item()
        for key, values in infos.items()
        if f"_{key}" in infos and infos[f"_{key}"][i]
    }
