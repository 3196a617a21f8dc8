"""What is on Doom's screen, read from the engine's labels and depth buffers.

Axes: H, W the screen of the buffers; K kinds of objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

KINDS = ("monster", "item", "projectile")
"""The kinds of objects; in a class map, 0 is the background and kind k is k + 1."""
MONSTER, ITEM, PROJECTILE = 1, 2, 3
CLASSES = ("background", *KINDS)

# The engine's `object_category` of each label, which it derives from the definition of an actor
# (`actors/doom/*.txt` in ViZDoom's vizdoom.pk3). Corpses are in Gore, so monsters are alive.
_CATEGORIES = {
    "Monster": MONSTER,
    **dict.fromkeys(("Health", "Armor", "Ammo", "Weapon", "Powerup", "Key", "Artifact"), ITEM),
    "Explosive": PROJECTILE,
}
# In Explosive, but no projectiles: what they leave behind, and an arch-vile's fire.
_EFFECTS = {"BulletPuff", "ArchvileFire", "BFGExtra", "RevenantTracerSmoke"}

UNITS_PER_DEPTH = (320_000 - 500) / 255 * 384 / 65_536
"""Map units per value of the depth buffer, 7.34: in the engine's r_things.cpp, a sprite's value is
255 / (320,000 - 500) of `dc_iscale`, which is 65,536 / 384 per unit on a screen of 640x480. A value
is the distance along the view's axis, rounded down. It does not grow beyond `FARTHEST`."""
FARTHEST = 470.0
"""Map units beyond which all sprites have the same depth, on the engine's screen of 160x120."""

DEPTH_SHAPE = (4, 16)
"""Rows and columns of the coarse depth map (Mirowski et al. 2017, section 3.2)."""
DEPTH_BOUNDS = (50.0, 100.0, 150.0, 200.0, 300.0, 400.0, 600.0)
"""Bounds of the classes of depth in map units: eight bands as in the paper, wider when farther."""
NUM_BANDS = len(DEPTH_BOUNDS) + 1

DEPTH_KEYS = tuple(f"DEPTH_{r}_{c}" for r in range(DEPTH_SHAPE[0]) for c in range(DEPTH_SHAPE[1]))
"""Names of the numeric infos that hold the coarse depth map."""
KIND_COLUMNS = 16
"""Strips into which the screen is divided from left to right, for `KIND_KEYS`."""
KIND_KEYS = tuple(f"{kind.upper()}_IN_VIEW_{c}" for kind in KINDS for c in range(KIND_COLUMNS))
"""Names of the numeric infos that are 1 where a kind of object is visible in a strip of the screen,
and 0 otherwise."""
NOT_DRAWN = -1.0
"""The value of these infos in an environment that does not draw the buffers."""
_NO_DEPTH = dict.fromkeys(DEPTH_KEYS, NOT_DRAWN)
_NO_KINDS = dict.fromkeys(KIND_KEYS, NOT_DRAWN)


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where the player is and looks.

    Attributes:
        x: position in map units, to the east.
        y: position in map units, to the north.
        angle: direction of the view in degrees, counter-clockwise from the east.
        VARIABLES: the engine's game variables that hold these.
    """

    VARIABLES: ClassVar[tuple[str, ...]] = ("POSITION_X", "POSITION_Y", "ANGLE")

    x: float
    y: float
    angle: float


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What is visible. An object counts as visible if it has at least one pixel.

    Attributes:
        classes: (H, W) uint8, the class of each pixel, an index of `CLASSES`.
        counts: (K,) int64, how many objects of each kind are visible.
        bearing: of the visible monster that is nearest, in degrees from the centre of the view,
            positive to the right; NaN without monsters. It is computed from positions, so that it
            is right for a monster of which only a part is visible.
        distance: of that monster in map units, computed from positions; NaN without monsters.
        depth_distance: the same, but from the depth buffer, so at most `FARTHEST` along the axis.
    """

    classes: NDArray[np.uint8]
    counts: NDArray[np.int64]
    bearing: float
    distance: float
    depth_distance: float

    @property
    def presence(self) -> NDArray[np.bool_]:
        """(K,) bool, whether each kind is visible."""
        return self.counts > 0


def class_of(name: str, category: str) -> int:
    """Return the class of an object, 0 if it is of no kind.

    Args:
        name: the label's `object_name`.
        category: the label's `object_category`.
    """
    return 0 if name in _EFFECTS else _CATEGORIES.get(category, 0)


def class_map(labels: Iterable[Any], buffer: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the class of each pixel, (H, W) uint8.

    The buffer does not distinguish walls, floors and ceilings, nor does it contain them. They are
    background, as are corpses, decorations and the player's own weapon.

    Args:
        labels: the labels of a state, in which each object has a value.
        buffer: (H, W) uint8, the value of the object at each pixel.
    """
    table = np.zeros(256, np.uint8)
    for label in labels:
        table[label.value] = class_of(label.object_name, label.object_category)
    return table[buffer]


def look(
    labels: Iterable[Any], buffer: NDArray[np.uint8], depth: NDArray[np.uint8], pose: Pose
) -> Sight:
    """Return what is visible in a state.

    Args:
        labels: the labels of the state.
        buffer: (H, W) uint8, the labels buffer, possibly of reduced size.
        depth: (H, W) uint8, the depth buffer at the same size.
        pose: the player's.
    """
    labels = list(labels)
    is_drawn = np.bincount(buffer.ravel(), minlength=256) > 0
    visible = [label for label in labels if is_drawn[label.value]]
    classes = [class_of(label.object_name, label.object_category) for label in visible]
    counts = np.bincount(np.array(classes, np.int64), minlength=len(CLASSES))[1:]
    monsters = [label for label, kind in zip(visible, classes, strict=True) if kind == MONSTER]
    nearest = min(monsters, key=lambda label: distance_to(label, pose), default=None)
    bearing = distance = by_depth = math.nan
    if nearest is not None:
        bearing, distance = bearing_of(nearest, pose), distance_to(nearest, pose)
        value = float(np.median(depth[buffer == nearest.value]))
        by_depth = (value + 0.5) * UNITS_PER_DEPTH / math.cos(math.radians(bearing))
    return Sight(
        classes=class_map(visible, buffer),
        counts=counts,
        bearing=bearing,
        distance=distance,
        depth_distance=by_depth,
    )


def shrunk(layer: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return a buffer of the engine at another size, by nearest pixels, as agents observe it."""
    return np.asarray(cv2.resize(layer, (width, height), interpolation=cv2.INTER_NEAREST))


def distance_to(label: Any, pose: Pose) -> float:
    """Return the horizontal distance of an object in map units."""
    return math.hypot(label.object_position_x - pose.x, label.object_position_y - pose.y)


def bearing_of(label: Any, pose: Pose) -> float:
    """Return the bearing of an object in degrees in [-180, 180), positive to the right."""
    east, north = label.object_position_x - pose.x, label.object_position_y - pose.y
    return (pose.angle - math.degrees(math.atan2(north, east)) + 180.0) % 360.0 - 180.0


def bearing_of_column(column: float, width: int, field_of_view: float = 90.0) -> float:
    """Return the bearing of a column of the screen in degrees, positive to the right.

    Args:
        column: in pixels from the left edge; half the width is straight ahead.
        width: W.
        field_of_view: horizontal angle of the whole screen, in degrees.
    """
    half = width / 2
    return math.degrees(
        math.atan((column - half) / half * math.tan(math.radians(field_of_view / 2)))
    )


def depth_bands(depth: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the coarse depth map, `DEPTH_SHAPE` int64: the band of each cell's mean depth.

    As in the paper, the map covers the middle half of the rows, where walls and objects are rather
    than floor and ceiling.

    Args:
        depth: (H, W) uint8, the depth buffer.
    """
    height = len(depth)
    middle = depth[height // 4 : height - height // 4]
    cells = cv2.resize(middle, DEPTH_SHAPE[::-1], interpolation=cv2.INTER_AREA)
    bands: NDArray[np.int64] = np.digitize(cells * UNITS_PER_DEPTH, DEPTH_BOUNDS)
    return bands


def depth_infos(depth: NDArray[np.uint8] | None) -> dict[str, float]:
    """Return the coarse depth map as numeric infos; `NOT_DRAWN` without a depth buffer."""
    if depth is None:
        return _NO_DEPTH
    return dict(zip(DEPTH_KEYS, depth_bands(depth).ravel().astype(float).tolist(), strict=True))


def kind_infos(labels: Iterable[Any], buffer: NDArray[np.uint8] | None) -> dict[str, float]:
    """Return which kinds are visible where, as numeric infos; `NOT_DRAWN` without a buffer.

    Args:
        labels: the labels of a state, in which each object has a value.
        buffer: (H, W) uint8, the value of the object at each pixel.
    """
    if buffer is None:
        return _NO_KINDS
    classes = class_map(labels, buffer)
    starts = np.arange(KIND_COLUMNS) * buffer.shape[1] // KIND_COLUMNS
    drawn = [
        np.logical_or.reduceat((classes == kind).any(axis=0), starts)
        for kind in range(1, len(CLASSES))
    ]
    return dict(zip(KIND_KEYS, np.concatenate(drawn).astype(float).tolist(), strict=True))
