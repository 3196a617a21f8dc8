"""How Doom's game variables are scaled before an agent observes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BOUND = 10.0  # Scaled variables are clipped to +- this.

# A variable is divided by its scale, so that usual values lie between 0 and 1.
_SCALES = {
    "HEALTH": 100.0,
    "ARMOR": 100.0,
    "ANGLE": 360.0,
    "PITCH": 90.0,
    "ROLL": 180.0,
    "SELECTED_WEAPON": 10.0,
    "ATTACK_READY": 1.0,
    "ALTATTACK_READY": 1.0,
    "ON_GROUND": 1.0,
}
_SCALES_BY_PREFIX = {
    "AMMO": 50.0,
    "SELECTED_WEAPON_AMMO": 50.0,
    "WEAPON": 1.0,
    "POSITION": 1000.0,
    "VELOCITY": 20.0,
    "CAMERA": 1000.0,
    "USER": 100.0,
}
_OTHER_SCALE = 10.0


def scales(variables: Sequence[str]) -> NDArray[np.float32]:
    """Return what each game variable is divided by, (V,) float32."""
    return np.array([_scale(name) for name in variables], np.float32)


def _scale(variable: str) -> float:
    if variable in _SCALES:
        return _SCALES[variable]
    by_prefix = (s for prefix, s in _SCALES_BY_PREFIX.items() if variable.startswith(prefix))
    return next(by_prefix, _OTHER_SCALE)
