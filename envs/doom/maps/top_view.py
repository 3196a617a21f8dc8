"""Draws maps from above, from their geometry."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from envs.doom.maps.grid import SOLID
from envs.doom.maps.level import (
    ARMOR,
    ARMOR_BONUS,
    BLUE_KEY,
    BLUE_TORCH,
    CLIP,
    MEDIKIT,
    PLAYER,
    RED_KEY,
    RED_TORCH,
    ZOMBIE,
    Level,
)

_SOLID = (38, 38, 42)
_DOOR = (150, 110, 60)
_PATH = (20, 20, 20)
_EDGE = (255, 255, 255)
_COLOURS = {
    PLAYER: (60, 110, 220),
    ZOMBIE: (200, 60, 50),
    ARMOR: (40, 160, 70),
    ARMOR_BONUS: (40, 160, 70),
    MEDIKIT: (245, 245, 245),
    CLIP: (200, 170, 60),
    BLUE_KEY: (50, 90, 230),
    RED_KEY: (220, 50, 50),
    BLUE_TORCH: (120, 150, 250),
    RED_TORCH: (250, 130, 120),
}
_OTHER = (170, 80, 190)
_DARKEST, _LIGHTEST = 120, 215  # of floors


def top_view(
    level: Level, pixels: int = 32, path: Sequence[tuple[float, float]] = ()
) -> NDArray[np.uint8]:
    """Draw a map from above, north at the top.

    Rooms are the brighter the more light they have. The player's start is a blue triangle, monsters
    are red, items have their own colours.

    Args:
        level: the map.
        pixels: width of a cell in the picture.
        path: positions, x and y in map units, that are joined by a line.

    Returns:
        (R * pixels, C * pixels, 3) uint8 RGB.
    """
    height, width = level.rooms.shape
    picture = np.empty((height, width, 3), np.uint8)
    for row in range(height):
        for column in range(width):
            room = int(level.rooms[row, column])
            picture[height - 1 - row, column] = _floor(level, room)
    picture = picture.repeat(pixels, axis=0).repeat(pixels, axis=1)
    scale = pixels / level.cell_size

    def point(x: float, y: float) -> tuple[int, int]:
        return round(x * scale), round(height * pixels - y * scale)

    for thing in level.things:
        x, y = level.position(thing)
        colour, radius = _COLOURS.get(thing.kind, _OTHER), max(2, pixels // 6)
        if thing.kind == PLAYER:
            turns = np.radians(thing.angle + np.array([0, 140, 220]))
            away = level.cell_size / 4
            corners = [point(x + away * np.cos(t), y + away * np.sin(t)) for t in turns]
            cv2.fillPoly(picture, [np.array(corners, np.int32)], colour, cv2.LINE_AA)
        else:
            cv2.circle(picture, point(x, y), radius, colour, cv2.FILLED, cv2.LINE_AA)
            cv2.circle(picture, point(x, y), radius, _PATH, 1, cv2.LINE_AA)
    if len(path) > 1:
        line = np.array([point(x, y) for x, y in path], np.int32)
        cv2.polylines(picture, [line], False, _EDGE, max(2, pixels // 8), cv2.LINE_AA)
        cv2.polylines(picture, [line], False, _PATH, max(1, pixels // 16), cv2.LINE_AA)
    return picture


def _floor(level: Level, room: int) -> tuple[int, int, int]:
    if room == SOLID:
        return _SOLID
    look = level.looks[room]
    if look.lock is not None:
        return _DOOR
    grey = _DARKEST + (_LIGHTEST - _DARKEST) * look.light // 255
    # Neighbouring rooms of equal light are still told apart.
    tint = 9 * (room % 3)
    if look.special:
        return grey - 60, grey - tint, grey - 60
    return grey, grey - tint, grey - 18 + tint
