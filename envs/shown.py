"""An environment that keeps pictures of what it played, for worlds that do not repeat themselves.

Where a seed and actions are not the whole of an episode, its pictures have to be kept as it is
played. Axes: H, W a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.registry import make
from envs.replay import picture
from envs.shared import numeric_keys, observation_parts
from envs.vector import Transition

_JPEG_QUALITY = 95  # Several hundred raw pictures would take more memory than a training.


class ShownEnv:
    """One environment in this process, that is played as a `SharedVectorEnv` of one is.

    Args:
        config: the world.
        size: (W, H) of the pictures.
    """

    num_envs = num_groups = 1

    def __init__(self, config: EnvConfig, size: tuple[int, int]) -> None:
        self.config = config
        self._env = make(config, render_mode="rgb_array")
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
        """(1,) int64, the running episode's."""
        return np.array([self._seed])

    def reset(self, *, seed: int) -> None:
        """Begin an episode, and forget the pictures of the one before."""
        self._seed = seed
        obs, _ = self._env.reset(seed=seed)
        self._obs = self._batch(obs)
        self._pictures = []
        self._keep_picture()

    def current_obs(self, group: int) -> Mapping[str, NDArray[Any]]:
        """Give the current observation by part, each (1, ...)."""
        return self._obs

    def send(self, group: int, actions: NDArray[Any]) -> None:
        """Take (1, ...) actions."""
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
        """Give what the last actions led to; the next episode begins with the next `reset`."""
        return self._transition

    def film(self) -> Iterator[NDArray[np.uint8]]:
        """Give the (H, W, 3) uint8 RGB pictures of the episode: its beginning and each env step."""
        for encoded in self._pictures:
            image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
            assert image is not None, "what was encoded here can be decoded"
            yield np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)

    def close(self) -> None:
        """Close the environment; the pictures stay."""
        self._env.close()

    def _batch(self, obs: Any) -> dict[str, NDArray[Any]]:
        parts = {"obs": obs} if self._is_plain else obs
        return {name: np.asarray(part)[None] for name, part in parts.items()}

    def _keep_picture(self) -> None:
        image = cv2.cvtColor(picture(self._env, self._size), cv2.COLOR_RGB2BGR)
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        self._pictures.append(cv2.imencode(".jpg", image, quality)[1])
