"""An environment that keeps a picture of every env step, for episodes that cannot be repeated.

Outside Doom, the seed and the actions may not determine an episode completely. Its pictures must
then be kept while it is played. Axes: H, W a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.playback import picture
from envs.registry import make
from envs.spaces import observation_parts
from envs.vector.memory import numeric_keys
from envs.vector.pool import StoppedError
from envs.vector.vector import Transition

_JPEG_QUALITY = 95  # Hundreds of uncompressed pictures would take more memory than the training.


class FilmedEnv:
    """One environment in this process, with the interface of a `SharedVectorEnv` of one.

    Args:
        config: configuration of the environment.
        size: (W, H) of the pictures.
        stops: returns whether to stop; `send` then raises StoppedError.
        env: the environment, if it is not made from the configuration alone.
    """

    num_envs = num_groups = 1

    def __init__(
        self,
        config: EnvConfig,
        size: tuple[int, int],
        stops: Callable[[], bool] = lambda: False,
        env: gym.Env[Any, Any] | None = None,
    ) -> None:
        self.config, self._stops = config, stops
        self._env = make(config, render_mode="rgb_array") if env is None else env
        self._size = size
        self.single_observation_space = self._env.observation_space
        self.single_action_space = self._env.action_space
        self.metadata = self._env.metadata
        self.episode_keys = numeric_keys(self._env)[1]
        self._is_plain = "obs" in observation_parts(self.single_observation_space)
        self._seed = 0
        self._pictures: list[NDArray[np.uint8]] = []

    @property
    def episode_seeds(self) -> NDArray[np.int64]:
        """(1,) int64, the seed of the current episode."""
        return np.array([self._seed])

    def reset(self, *, seed: int) -> None:
        """Start an episode, and discard the pictures of the last one."""
        self._seed = seed
        obs, _ = self._env.reset(seed=seed)
        self._obs = self._batch(obs)
        self._pictures = []
        self._keep_picture()

    def current_obs(self, group: int) -> Mapping[str, NDArray[Any]]:
        """Return the current observation by part, each (1, ...)."""
        return self._obs

    def send(self, group: int, actions: NDArray[Any], *, with_info: bool = False) -> None:
        """Take (1, ...) actions; numeric infos are not reported."""
        if self._stops():
            raise StoppedError
        obs, reward, terminated, truncated, info = self._env.step(actions[0])
        self._obs = self._batch(obs)
        self._keep_picture()
        statistics = info["statistics"] if terminated or truncated else {}
        row = [statistics.get(key, 0.0) for key in self.episode_keys]
        self._transition = Transition(
            obs=self._obs,
            rewards=np.array([reward], np.float64),
            terminated=np.array([terminated]),
            truncated=np.array([truncated]),
            final_obs=self._obs,
            episode=np.array([row], np.float64),
        )

    def receive(self, group: int) -> Transition:
        """Return the result of the last actions; the next episode starts with the next `reset`."""
        return self._transition

    def film(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the (H, W, 3) uint8 RGB pictures of the episode: of its start and each env step."""
        for encoded in self._pictures:
            image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
            assert image is not None, "it was encoded here"
            yield np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)

    def close(self) -> None:
        """Close the environment; the pictures remain available."""
        self._env.close()

    def _batch(self, obs: Any) -> dict[str, NDArray[Any]]:
        parts = {"obs": obs} if self._is_plain else obs
        return {name: np.asarray(part)[None] for name, part in parts.items()}

    def _keep_picture(self) -> None:
        image = cv2.cvtColor(picture(self._env, self._size), cv2.COLOR_RGB2BGR)
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        self._pictures.append(cv2.imencode(".jpg", image, quality)[1])
