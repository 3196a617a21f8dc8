"""Checks whether this machine can run Doom engines, for `python train.py --doctor`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from envs.doom.cfg import game_spec
from envs.doom.engine import (
    RESOLUTIONS,
    SHARED_MEMORY,
    end_engine,
    remove_leftovers,
    start_engine,
)
from envs.doom.senses import NO_OPENAL, has_openal
from envs.errors import EnvError

# The shared memory that an engine really uses.
_BYTES_PER_ENGINE = 11 * 2**20
_USUAL_ENGINES = 16


def check_engines(folder: Path = SHARED_MEMORY) -> Iterator[tuple[bool, str, str]]:
    """Check the requirements of engines, and remove leftovers of killed processes.

    Args:
        folder: where the system keeps shared memory.

    Yields:
        For each check, whether it passed, its name, and what was found and how to fix it.
    """
    yield _check_shared_memory(folder)
    if shutil.which("setpriv"):
        yield True, "setpriv", "engines die with the process that started them"
    else:
        yield False, "setpriv", "is missing (package util-linux): engines outlive a killed process"
    yield _check_start()
    found = "OpenAL is installed" if has_openal() else f"for --sound only: {NO_OPENAL}"
    yield True, "sound", found
    count = remove_leftovers()
    yield True, "leftovers", f"of {count} engines, now removed" if count else "none"


def _check_start() -> tuple[bool, str, str]:
    """Check that an engine starts, which nothing but a start can tell."""
    spec, started = game_spec("basic"), time.monotonic()
    assert spec is not None, "it is a scenario"
    try:
        end_engine(*start_engine(spec, resolution=RESOLUTIONS[0], variables=()))
    except (EnvError, OSError) as error:
        return False, "engine", str(error)
    return True, "engine", f"starts in {time.monotonic() - started:.1f} s"


def _check_shared_memory(folder: Path) -> tuple[bool, str, str]:
    if not folder.is_dir():
        return True, "shared memory", "cannot be measured on this system"
    free = shutil.disk_usage(folder).free
    engines = free // _BYTES_PER_ENGINE
    text = f"{free / 2**20:,.0f} MB free in {folder}, enough for about {engines:,} engines"
    if engines < _USUAL_ENGINES:
        return False, "shared memory", f"{text}; in Docker, add --shm-size=1g"
    return True, "shared memory", text
