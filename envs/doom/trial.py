"""Checks that files which a user names can be played, before an engine starts in this process.

Maps, scripts and definitions can end any engine. An engine that ends while it starts takes along
the process that started it, because ViZDoom's library then reads memory that it does not have. So
it is first started in a process of its own, once for the same files: what ends an engine there
would end every engine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from envs.doom.cfg import ENGINE_FOLDER, GameSpec, game_spec, split_file, strange_wads
from envs.doom.engine import MAX_MEMORY_KB, remove_leftovers
from envs.doom.wad import check_start, check_textures, maps
from envs.errors import EnvError
from processes.child import start_python

# An environment variable, which worker processes inherit, so that none repeats a trial: hashes of
# what was played successfully.
_PLAYED = "DOOMGRAD_PLAYED"
_MOST_REMEMBERED = 100
_TRIAL = "from envs.doom.trial import main; main()"
_WITHIN_S = 60.0  # Starting an engine takes about a second.
_STEPS = 5
_REFUSED = 2  # exit status of a trial that found a reason
_LONGEST_REASON = 300
_MOST_PRINTED_BLOCKS = 128  # of 512 bytes each


def check_playable(env: str) -> None:
    """Check that the engine can play an environment.

    Only files that a user names are checked; scenarios and Freedoom maps are known to work.

    Raises:
        EnvError: If the map has no start for a single player, a texture is too large, or the engine
            ends or hangs in the first env steps.
    """
    spec = None if split_file(env) is None else game_spec(env)
    if spec is None:
        return
    key, played = _key(spec), os.environ.get(_PLAYED, "").split()
    if key in played:
        return
    strange = strange_wads(env)
    for wad in strange:
        check_textures(wad)
    has_map = spec.wad is not None and spec.map.upper() in maps(spec.wad)
    check_start(spec.wad if spec.wad is not None and has_map else spec.iwad, spec.map)
    played = [*played[-_MOST_REMEMBERED:], key]
    if strange:
        _try(str(Path(env).absolute()), spec, " ".join(played))
    os.environ[_PLAYED] = " ".join(played)


def _key(spec: GameSpec) -> str:
    """Return a hash of which files are played, and of their sizes and times."""
    files = [path for path in (spec.cfg, spec.wad, spec.iwad) if path is not None]
    status = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(repr((status, spec.map)).encode()).hexdigest()[:16]


def _try(env: str, spec: GameSpec, played: str) -> None:
    """Play a few env steps in a process of its own.

    Args:
        env: the environment, an absolute path.
        spec: what the engine plays.
        played: what counts as played there.

    Raises:
        EnvError: If the engine ends or hangs.
    """
    with tempfile.TemporaryDirectory(prefix="doomgrad-trial-") as folder:
        trial = start_python(
            _TRIAL,
            [env],
            environment={_PLAYED: played},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the main process only.
        )
        try:
            _, said = trial.communicate(timeout=_WITHIN_S)
        except subprocess.TimeoutExpired:
            trial.kill()
            trial.communicate()
            remove_leftovers()
            raise EnvError(f"{env} cannot be played: the engine hangs when it starts") from None
        if trial.returncode == 0:
            return
        remove_leftovers()
        reason = said.decode(errors="replace") if trial.returncode == _REFUSED else ""
        reason = reason or _complaint(spec, folder) or f"the engine ended when {spec.map} started"
    reason = " ".join(reason.split()).removeprefix(f"{env}: ")[:_LONGEST_REASON]
    raise EnvError(f"{env} cannot be played: {reason}")


def _complaint(spec: GameSpec, folder: str) -> str:
    """Return what the engine prints when it starts without ViZDoom's library; `""` if nothing.

    With the library, it ends without printing the reason.
    """
    files = [] if spec.wad is None else ["-file", str(spec.wad)]
    engine = [str(ENGINE_FOLDER / "vizdoom"), "-iwad", str(spec.iwad), *files]
    engine += ["-config", "engine.ini", "-nosound", "+map", spec.map, "+viz_noconsole", "1"]
    engine += ["+viz_nosound", "1", "+viz_window_hidden", "1", "+viz_noxserver", "1", "+quit"]
    limits = f"ulimit -v {MAX_MEMORY_KB}; ulimit -f {_MOST_PRINTED_BLOCKS}"
    printed = Path(folder) / "printed"
    with printed.open("wb") as file, contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            ["/bin/sh", "-c", f'{limits}; exec "$@"', "sh", *engine],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            timeout=_WITHIN_S,
            start_new_session=True,
            check=False,
        )
    return printed.read_text(errors="replace")


def main() -> None:
    """Play an environment for a few env steps; exits with status 2 if that fails for a reason."""
    from envs.config import EnvConfig
    from envs.doom.env import DoomEnv

    try:
        env = DoomEnv(EnvConfig(env=sys.argv[1]))
        env.reset(seed=0)
        for _ in range(_STEPS):
            if any(env.advance(env.action_space.sample())[1:]):
                env.reset(seed=0)
        env.close()
    except EnvError as error:
        sys.stderr.write(str(error))
        sys.exit(_REFUSED)
