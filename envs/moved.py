"""Finds the files of an environment again that were moved or copied after a training.

A run notes the SHA-256 of the files that a user named, a .cfg and WADs. Wherever files with the
same content are, they are the same environment.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from envs.doom.cfg import game_spec, split_file, strange_wads
from envs.errors import EnvError
from envs.fingerprint import FILES, fingerprint

_DIGITS = 12  # of a hash, in messages
_MOST_FOLDERS = 16  # in which a file is looked for, from the run upwards
_MOST_PARTS = 8  # of a file's old path, with which it is looked for


def own_files(env: str) -> tuple[str, ...]:
    """Return the SHA-256 of each file of an environment that does not come with ViZDoom.

    Returns:
        Such as `cfg=1f8b...` and `wad=77a0...`, and `map=MAP02` if the environment's name contains
        a map; empty for scenarios, Freedoom maps and Gymnasium ids.

    Raises:
        EnvError: If there is no such file, or it cannot be read.
    """
    file = split_file(env)
    if file is None:
        return ()
    spec, hashes, strange = game_spec(env), fingerprint(env), strange_wads(env)
    own = [name for name in FILES if name == "cfg" or getattr(spec, name) in strange]
    noted = [f"{name}={hashes[name]}" for name in own if name in hashes]
    return (*noted, *([f"map={file[1].upper()}"] if file[1] else []))


def portable_name(env: str) -> str:
    """Return a name of an environment that stays the same wherever its files are."""
    file, files = split_file(env), own_files(env)
    return env if file is None else f"{file[0].name} ({', '.join(files)})"


def difference(env: str, files: Sequence[str]) -> str:
    """Return in which file an environment differs from one that was noted, in words.

    Args:
        env: the environment's name.
        files: what `own_files` returned for the other one.

    Returns:
        The difference; empty if there is none.

    Raises:
        EnvError: If a file does not exist or cannot be read.
    """
    then, now = (
        dict(note.split("=", 1) for note in n if "=" in note) for n in (files, own_files(env))
    )
    for name in (*FILES, "map"):
        if then.get(name) != now.get(name):
            before, after = (n.get(name, "nothing")[:_DIGITS] for n in (then, now))
            if name == "map":
                return f"its map is {after}, not {before}"
            path = getattr(game_spec(env), name, None) or f"its .{name}"
            return f"the SHA-256 of {path} begins with {after}, not {before}"
    return ""


def find_moved(env: str, files: Sequence[str], run: Path) -> str:
    """Return the name of an environment whose files may have been moved since a run was made.

    They are looked for where they were; then beside the run, in the current folder, and in the
    folders above the run, there also by the end of their old path. Only files with the same content
    are accepted.

    Args:
        env: the environment's name when the run was made.
        files: what `own_files` returned then; if it is empty, nothing is looked for.
        run: the run folder, or a file in it.

    Raises:
        EnvError: If no file with the same content is found.
    """
    file = split_file(env)
    if file is None or not files:
        return env
    path, own_map = file
    reason, folder = "", run if run.is_dir() else run.parent
    for candidate in _places(path, run):
        name = f"{candidate}:{own_map}".removesuffix(":")
        try:
            if not candidate.is_file():
                continue
            different = difference(name, files)
        except (OSError, EnvError) as error:
            different = str(error)
        if not different:
            return env if candidate == path else name
        reason = reason or different
    if reason:
        raise EnvError(
            f"{path.name} is not as it was when {run} was made: {reason}; put the original files "
            f"into {folder} or the current folder"
        )
    raise EnvError(
        f"{path} is gone; put it, and its .wad if it has one, into {folder} or the current folder"
    )


def _places(path: Path, run: Path) -> Iterator[Path]:
    """Yield where a file may be now, the most likely place first."""
    yield path
    here = run.absolute() if run.is_dir() else run.absolute().parent
    folders = [here, *here.parents][:_MOST_FOLDERS]
    ends = [Path(*path.parts[-n:]) for n in range(1, min(len(path.parts), _MOST_PARTS + 1))]
    for end, folder in itertools.product(ends or [path], [*folders[:2], Path.cwd(), *folders[2:]]):
        yield folder / end
