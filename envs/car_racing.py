"""Gymnasium's CarRacing, drawn in a fraction of the time: the same pixels, rewards and ends.

Nearly all of its time goes to drawing. Gymnasium moves all polygons of grass and track into view in
Python, of which most are out of sight, and draws each frame of an action, of which only the last
one is observed. Axes: P polygons.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.envs.box2d import car_racing
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

_OBSERVED = "state_pixels"  # Gymnasium's name of the render mode of observations.


class CarRacing(car_racing.CarRacing):
    """Holds an action for several frames, draws the last one, and leaves out what is out of sight.

    Args:
        frame_skip: frames for which an action is held.
        time_limit: frames after which an episode is truncated.
        **options: Gymnasium's.
    """

    def __init__(self, *, frame_skip: int = 1, time_limit: int, **options: Any) -> None:
        super().__init__(**options)
        EzPickle.__init__(self, frame_skip=frame_skip, time_limit=time_limit, **options)
        self._frame_skip, self._time_limit = frame_skip, time_limit
        self._frames = 0
        self._is_observed, self._shown_reward = True, 0.0
        self._grass = _grass()
        self._grass_corners = np.array(self._grass)
        self._road_corners = np.empty((0, 4, 2))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold an action, or draw the first frame if it is None, which Gymnasium's `reset` does."""
        if action is None:
            self._frames, self._is_observed = 0, True
            first: tuple[Any, float, bool, bool, dict[str, Any]] = super().step(None)  # type: ignore[arg-type] # as Gymnasium does
            return first
        total = 0.0
        for left in reversed(range(self._frame_skip)):
            self._is_observed = left == 0
            _, reward, terminated, truncated, info = super().step(action)
            total += float(reward)
            self._frames += 1
            truncated = truncated or self._frames >= self._time_limit
            if terminated or truncated:
                break
        if not self._is_observed:  # The episode ended early.
            self._is_observed = True
            reward, self.reward = self.reward, self._shown_reward
            self.state = self._render(_OBSERVED)
            self.reward = reward
        return self.state, total, terminated, truncated, info

    def _create_track(self) -> bool:
        is_complete: bool = super()._create_track()  # type: ignore[no-untyped-call] # Gymnasium's
        if is_complete:
            self._road_corners = np.array([corners for corners, _ in self.road_poly])
        return is_complete

    def _render(self, mode: str) -> Any:
        if mode == _OBSERVED and not self._is_observed:
            self._shown_reward = self.reward  # Gymnasium draws it before it has paid for the frame.
            return self.state
        return super()._render(mode)

    def _render_road(self, zoom: float, translation: tuple[float, float], angle: float) -> None:
        """Draw as Gymnasium does, in the same order, without what is out of sight."""
        view = zoom, translation, angle
        draw: Any = self._draw_colored_polygon
        far = car_racing.PLAYFIELD
        field = [(far, far), (far, -far), (-far, -far), (-far, far)]
        draw(self.surf, field, self.bg_color, *view, clip=False)
        for i in _in_sight(self._grass_corners, *view):
            draw(self.surf, self._grass[i], self.grass_color, *view)
        for i in _in_sight(self._road_corners, *view):
            corners, colour = self.road_poly[i]
            draw(self.surf, corners, [int(c) for c in colour], *view)


def _grass() -> list[list[tuple[float, float]]]:
    """Return the corners of the squares of lighter grass, as Gymnasium lists them."""
    side, squares = car_racing.GRASS_DIM, []
    for x in range(-20, 20, 2):
        for y in range(-20, 20, 2):
            left, right, low, high = side * x, side * x + side, side * y, side * y + side
            squares.append([(right, low), (left, low), (left, high), (right, high)])
    return squares


def _in_sight(
    corners: NDArray[np.float64], zoom: float, translation: tuple[float, float], angle: float
) -> list[int]:
    """Return which polygons have a corner that may be in sight, in ascending order.

    Args:
        corners: (P, 4, 2), in the units of the track.
        zoom: pixels of a unit.
        translation: pixels, after turning and zooming.
        angle: by which the track is turned, in radians.
    """
    cos, sin = math.cos(angle), math.sin(angle)
    turned = corners @ np.array([[cos, sin], [-sin, cos]])
    x, y = np.moveaxis(turned * zoom + translation, -1, 0)
    # Gymnasium's own margin, and one pixel because it rounds differently.
    margin = car_racing.MAX_SHAPE_DIM + 1
    near_x = (x >= -margin) & (x <= car_racing.WINDOW_W + margin)
    near_y = (y >= -margin) & (y <= car_racing.WINDOW_H + margin)
    seen: list[int] = np.flatnonzero((near_x & near_y).any(1)).tolist()
    return seen
