"""Draw the pictures of docs/maps.md.

    python -m docs.map_pictures

For each kind of generated maps, three maps as a player sees them at the start, and from above; and
one view of a map along each axis of change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs import EnvConfig
from envs.doom.env import DoomEnv
from envs.doom.maps import MAPS, PREFIX
from envs.doom.maps.top_view import top_view

PICTURES = Path(__file__).parent / "images" / "maps"
WIDTH, HEIGHT = 240, 180
_BACKGROUND = 38
_SEEDS = (0, 1, 2)
# One change at a time, as `evaluate.py generalise` makes them.
AXES: dict[str, dict[str, Any]] = {
    "unchanged": {},
    "textures": {"textures": "test"},
    "light": {"light": (96, 128)},
    "gamma": {"colour_gamma": 2.0},
    "exchanged": {"swapped_colours": True},
    "monsters": {"monster_look": "marine"},
    "view": {"field_of_view": 120},
    "status bar": {"hud": True},
}


def first_view(kind: str, seed: int, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what a player sees at the start, and the map from above, as RGB."""
    config = EnvConfig(env=f"{PREFIX}{kind}", map=dict(options), width=320, height=240)
    with contextlib.closing(DoomEnv(config, "rgb_array")) as env:
        env.reset(seed=seed)
        for _ in range(3):
            env.step(env.action_space.sample() * 0)
        screen = env.render()
        assert screen is not None
        assert env.level is not None
        return cv2.resize(screen, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), top_view(
            env.level
        )


def framed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture of any size in the middle of one of (HEIGHT, WIDTH)."""
    scale = min(HEIGHT / picture.shape[0], WIDTH / picture.shape[1])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    frame = np.full((HEIGHT, WIDTH, 3), _BACKGROUND, np.uint8)
    top, left = (HEIGHT - small.shape[0]) // 2, (WIDTH - small.shape[1]) // 2
    frame[top : top + small.shape[0], left : left + small.shape[1]] = small
    return frame


def main() -> None:
    """Write the pictures."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for kind in MAPS:
        pairs = [first_view(kind, seed, {}) for seed in _SEEDS]
        rows = [
            np.hstack([screen for screen, _ in pairs]),
            np.hstack([framed(t) for _, t in pairs]),
        ]
        write(kind, np.vstack(rows))
    views = [first_view("arena", 1, options)[0] for options in AXES.values()]
    write("axes", np.vstack([np.hstack(views[:4]), np.hstack(views[4:])]))


def write(name: str, picture: NDArray[np.uint8]) -> None:
    """Write a picture as a JPEG file."""
    Image.fromarray(picture).save(PICTURES / f"{name}.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()
