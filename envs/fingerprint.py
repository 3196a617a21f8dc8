"""Telling whether a world is still the one that an episode was recorded in.

Doom repeats itself exactly where the same files are played by the same engine: their hashes and its
version stand in every recording.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import gymnasium as gym

from envs.cfg import game_spec
from envs.errors import EnvError
from envs.registry import canonical_name

_FILES = ("cfg", "wad", "iwad")
_DIGITS = 12  # of a hash, for people


def fingerprint(env: str) -> dict[str, str]:
    """Give the SHA-256 of each file a world is made of, and the version of what runs it.

    Args:
        env: the world's canonical name.

    Raises:
        EnvError: If there is no such world, or a file cannot be read.
    """
    spec = game_spec(env)
    if spec is None:
        return _versions("gymnasium", _package(env))
    files = {name: getattr(spec, name) for name in _FILES}
    try:
        hashes = {
            name: _sha256(path, path.stat().st_mtime_ns) for name, path in files.items() if path
        }
    except OSError as error:
        raise EnvError(f"{error.filename} cannot be read: {error.strerror}") from error
    return hashes | _versions("vizdoom")


def refuse_other_files(env: str, recorded: Mapping[str, str]) -> None:
    """Refuse to play again what was recorded with other files.

    Args:
        env: the world's canonical name.
        recorded: its fingerprint then.

    Raises:
        EnvError: If a file has changed since.
    """
    now, spec = fingerprint(env), game_spec(env)
    for name in _FILES:
        then, here = (hashes.get(name, "nothing")[:_DIGITS] for hashes in (recorded, now))
        if then != here:
            path = getattr(spec, name, None) or f"its .{name}"
            raise EnvError(
                f"{path} is not the file that was recorded with: its SHA-256 begins with "
                f"{here}, not {then}; put the other one back"
            )


def changed_versions(env: str, recorded: Mapping[str, str]) -> str:
    """Say which versions differ from the recorded ones, as in `vizdoom 1.2.4, now 1.3.2`."""
    now = fingerprint(env)
    names = [name for name in now if name not in _FILES and name in recorded]
    changed = [n for n in names if recorded[n] != now[n]]
    return ", ".join(f"{name} {recorded[name]}, now {now[name]}" for name in changed)


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, mtime_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _package(env: str) -> str:
    """Name the package that holds a Gymnasium environment."""
    spec = gym.spec(canonical_name(env).rpartition(":")[2])
    entry = spec.entry_point
    module = entry if isinstance(entry, str) else getattr(entry, "__module__", "")
    return re.split(r"[.:]", module)[0]


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):  # A module of the user's own has none.
            found[package] = version(package)
    return found
