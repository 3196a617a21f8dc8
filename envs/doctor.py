"""What this machine has for games, for `python train.py --doctor`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from envs.engine import SHARED_MEMORY, remove_leftovers

# What an engine shares with its game, as far as it is really used.
_BYTES_OF_AN_ENGINE = 11 * 2**20
_USUAL_GAMES = 16


def findings() -> Iterator[tuple[bool, str, str]]:
    """Tell whether it is well, what it is about, and what was found or is to be done.

    What engines of killed processes left is removed.
    """
    yield _shared_memory(SHARED_MEMORY)
    if shutil.which("setpriv"):
        yield True, "setpriv", "engines die with the process that started them"
    else:
        yield False, "setpriv", "is missing (package util-linux): engines outlive a killed process"
    left = remove_leftovers()
    yield True, "leftovers", f"of {left} engines, now removed" if left else "none"


def _shared_memory(folder: Path) -> tuple[bool, str, str]:
    if not folder.is_dir():
        return True, "shared memory", "cannot be looked at on this system"
    free = shutil.disk_usage(folder).free
    games = free // _BYTES_OF_AN_ENGINE
    text = f"{free / 2**20:,.0f} MB free in {folder}, enough for about {games:,} games"
    if games < _USUAL_GAMES:
        return False, "shared memory", f"{text}; in Docker, add --shm-size=1g"
    return True, "shared memory", text
