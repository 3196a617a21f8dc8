"""Checks whether an environment is still the one in which an episode was recorded.

Doom repeats an episode exactly if the same engine plays the same files, so every recording contains
the files' hashes and the engine's version.
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

from envs.doom.cfg import game_spec
from envs.doom.wad import MAX_WAD_BYTES
from envs.errors import EnvError
from envs.files import open_regular
from envs.registry import canonical_name

FILES = ("cfg", "wad", "iwad")
_DIGITS = 12  # of a hash, in messages
_PART = 2**20  # Bytes of a file that are hashed at a time.


def fingerprint(env: str) -> dict[str, str]:
    """Return the SHA-256 of each file of an environment, and the versions of its packages.

    Args:
        env: the environment's canonical name.

    Raises:
        EnvError: If there is no such environment, or a file cannot be read.
    """
    spec = game_spec(env)
    if spec is None:
        return _versions("gymnasium", _package(env))
    files = {name: getattr(spec, name) for name in FILES}
    try:
        hashes = {
            name: _sha256(path, path.stat().st_mtime_ns) for name, path in files.items() if path
        }
    except OSError as error:
        raise EnvError(f"{error.filename} cannot be read: {error.strerror}") from error
    return hashes | _versions("vizdoom")


def refuse_other_files(env: str, recorded: Mapping[str, str]) -> None:
    """Check that an environment's files are those with which an episode was recorded.

    Args:
        env: the environment's canonical name.
        recorded: its fingerprint when the episode was recorded.

    Raises:
        EnvError: If a file has changed since.
    """
    now, spec = fingerprint(env), game_spec(env)
    for name in FILES:
        then, here = (hashes.get(name, "nothing")[:_DIGITS] for hashes in (recorded, now))
        if then != here:
            path = getattr(spec, name, None) or f"its .{name}"
            raise EnvError(
                f"{path} is not the file that was recorded with: its SHA-256 begins with "
                f"{here}, not {then}; restore the original file"
            )


def changed_versions(env: str, recorded: Mapping[str, str]) -> str:
    """Return which versions differ from the recorded ones, such as `vizdoom 1.2.4, now 1.3.2`."""
    now = fingerprint(env)
    names = [name for name in now if name not in FILES and name in recorded]
    changed = [n for n in names if recorded[n] != now[n]]
    return ", ".join(f"{name} {recorded[name]}, now {now[name]}" for name in changed)


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, mtime_ns: int) -> str:
    content = hashlib.sha256()
    with open_regular(path, MAX_WAD_BYTES) as file:
        while part := file.read(_PART):
            content.update(part)
    return content.hexdigest()


def _package(env: str) -> str:
    """Return the name of the package that contains a Gymnasium environment."""
    spec = gym.spec(canonical_name(env).rpartition(":")[2])
    entry = spec.entry_point
    module = entry if isinstance(entry, str) else getattr(entry, "__module__", "")
    return re.split(r"[.:]", module)[0]


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):  # A user's own module has no version.
            found[package] = version(package)
    return found
