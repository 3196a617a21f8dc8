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

from envs.config import EnvConfig
from envs.doom.cfg import game_spec
from envs.doom.maps import MapConfig
from envs.doom.maps.source import map_hash
from envs.doom.wad import MAX_WAD_BYTES
from envs.errors import EnvError
from envs.files import open_regular
from envs.registry import canonical_name

FILES = ("cfg", "wad", "iwad")
MAP = "map"
"""What the hash of a generated map is called in the fingerprint of an episode."""
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


def episode_fingerprint(
    config: EnvConfig, seed: int, game: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the fingerprint of an episode: with the SHA-256 of its map, if that is generated.

    Args:
        config: its environment.
        seed: its seed.
        game: the fingerprint of the environment, if it is known already.

    Raises:
        EnvError: If there is no such environment, or a file cannot be read.
    """
    game = fingerprint(config.env) if game is None else game
    if not isinstance(config.map, MapConfig):
        return dict(game)
    return {**game, MAP: map_hash(config.env, config.map, seed)}


def refuse_other_map(config: EnvConfig, seed: int, recorded: Mapping[str, str]) -> None:
    """Check that an episode's generated map is the one on which it was recorded.

    Args:
        config: its environment.
        seed: its seed.
        recorded: its fingerprint when it was recorded.

    Raises:
        EnvError: If the map is another one now.
    """
    now = episode_fingerprint(config, seed, {}).get(MAP, "nothing")[:_DIGITS]
    then = recorded.get(MAP, "nothing")[:_DIGITS]
    if now != then:
        raise EnvError(
            f"the map that {config.env} makes of seed {seed} is not the one that was recorded on: "
            f"its SHA-256 begins with {now}, not {then}; use the version of doomgrad with which it "
            "was recorded"
        )


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
    names = [name for name in now if name not in (*FILES, MAP) and name in recorded]
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
