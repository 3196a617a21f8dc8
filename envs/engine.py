"""The life and death of an engine: one child process of ViZDoom for each game.

What can go wrong is worked around here, once. The engine writes files where it is started and
silently obeys files lying there, so it starts in an empty scratch folder. It outlives a parent that
is killed, so on Linux it is started through `setpriv --pdeathsig KILL`, which ties its life to the
parent's. Its shared memory would outlive both, so its names are removed as soon as it is open;
where its owner was killed even before that, and left its scratch folder, `remove_leftovers` clears
up. Paths in commands to it may not exceed about 100 characters, so none is ever sent. If it hangs,
whoever waits for it waits for ever, until somebody else calls `kill_engine`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import vizdoom
from vizdoom import Button, DoomGame, GameVariable, Mode, ScreenFormat, ScreenResolution

from envs.cfg import ENGINE_FOLDER, GameSpec
from envs.errors import EnvError

# 4:3 screens the engine can draw, smallest first, as (width, height).
RESOLUTIONS: tuple[tuple[int, int], ...] = (
    *((160, 120), (200, 150), (256, 192), (320, 240), (400, 300), (512, 384), (640, 480)),
    *((800, 600), (1024, 768), (1280, 960), (1600, 1200)),
)

_STARTS = 3  # Starting many engines at once can fail; the next attempt succeeds.
_SCRATCH_PREFIX = "doomgrad-engine-"
# In the scratch folder: the engine's process number and arguments; a file its owner has locked.
_RECORD, _OWNER = "engine", "owner"
_INSTANCE = re.compile(r"viz_instance_id (\w+)")
_BORN_WITHIN_S = 60.0  # A folder older than this without its files will not get them any more.
ENGINE_ERRORS = (
    vizdoom.ViZDoomErrorException,
    vizdoom.ViZDoomUnexpectedExitException,
    vizdoom.FileDoesNotExistException,
    vizdoom.MessageQueueException,
    vizdoom.SharedMemoryException,
)
SHARED_MEMORY = Path("/dev/shm")  # Where Linux keeps it; elsewhere nothing is found there.
_working_directory = threading.Lock()
_locks: dict[Path, int] = {}  # File descriptors of what this process has locked, by scratch folder.


def smallest_resolution(width: int, height: int) -> tuple[int, int]:
    """Choose the smallest screen that holds (width, height) pixels, or the largest there is."""
    fitting = (r for r in RESOLUTIONS if r[0] >= width and r[1] >= height)
    return next(fitting, RESOLUTIONS[-1])


def start_engine(
    spec: GameSpec,
    *,
    resolution: tuple[int, int],
    variables: tuple[str, ...],
    buffers: tuple[str, ...] = (),
) -> tuple[DoomGame, Path]:
    """Start an engine that draws palette indices and waits for the first episode.

    Args:
        spec: what it plays.
        resolution: (width, height) of the screen in pixels, one of `RESOLUTIONS`.
        variables: names of the game variables in each state, in this order.
        buffers: further buffers to draw: `depth`, `labels`, `automap`.

    Returns:
        The running game and its scratch folder, both to be handed to `end_engine`.

    Raises:
        EnvError: If no engine could be started.
    """
    scratch = _scratch_folder()
    game = DoomGame()
    try:
        _configure(game, spec, scratch, resolution, variables, buffers)
        for attempt in range(_STARTS):
            try:
                with _inside(scratch):
                    game.init()
                break
            except vizdoom.ViZDoomErrorException:
                if attempt == _STARTS - 1:
                    raise
    except ENGINE_ERRORS as error:
        end_engine(game, scratch)
        raise EnvError(f"the Doom engine did not start: {error}") from error
    _forget_names(game.get_instance_id())
    return game, scratch


def end_engine(game: DoomGame, scratch: Path) -> None:
    """End an engine and remove what it wrote; harmless where it has already ended."""
    game.close()
    shutil.rmtree(scratch, ignore_errors=True)
    with contextlib.suppress(KeyError):  # It may be ended twice.
        os.close(_locks.pop(scratch))


def kill_engine(scratch: Path) -> None:
    """Kill an engine that hangs: who waits for it is told that it died. Harmless if it is gone."""
    with contextlib.suppress(OSError, ValueError):
        record = (scratch / _RECORD).read_text()
        pid, instance = int(record.split()[0]), _INSTANCE.findall(record)
        # Its number may meanwhile be another process's.
        if instance and instance[0].encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def abandon_engine(scratch: Path) -> None:
    """Kill an engine and remove what it wrote; its owner ends without `end_engine`."""
    kill_engine(scratch)
    shutil.rmtree(scratch, ignore_errors=True)


def _leftovers() -> list[Path]:
    """List the scratch folders of engines whose owners are dead, and were this user's."""
    found = []
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH_PREFIX}*"):
        with contextlib.suppress(OSError):
            about = folder.stat()
            if about.st_uid != os.getuid():
                continue
            try:
                with (folder / _OWNER).open() as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Fails while the owner lives.
            except FileNotFoundError:
                if time.time() - about.st_mtime < _BORN_WITHIN_S:
                    continue
            found.append(folder)
    return found


def remove_leftovers() -> int:
    """Remove what killed owners of engines left: engines, shared memory, scratch folders.

    Returns:
        How many engines' leftovers there were.
    """
    folders = _leftovers()
    for folder in folders:
        kill_engine(folder)  # Where it is not bound to its owner's life.
        with contextlib.suppress(OSError):
            for instance_id in _INSTANCE.findall((folder / _RECORD).read_text()):
                _forget_names(instance_id)
        shutil.rmtree(folder, ignore_errors=True)
    return len(folders)


def _scratch_folder() -> Path:
    """Make a folder that is locked as long as this process lives."""
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH_PREFIX))
    unborn = scratch / f"{_OWNER}.tmp"
    _locks[scratch] = os.open(unborn, os.O_CREAT | os.O_RDWR)
    fcntl.flock(_locks[scratch], fcntl.LOCK_EX)
    unborn.rename(scratch / _OWNER)  # Nobody ever sees it without its lock.
    return scratch


def _configure(
    game: DoomGame,
    spec: GameSpec,
    scratch: Path,
    resolution: tuple[int, int],
    variables: tuple[str, ...],
    buffers: tuple[str, ...],
) -> None:
    game.set_vizdoom_path(str(_engine_command(scratch)))
    game.set_doom_config_path(str(scratch / "_vizdoom.ini"))
    game.set_doom_game_path(str(spec.iwad))
    if spec.wad is not None:
        game.set_doom_scenario_path(str(spec.wad))
    game.set_doom_map(spec.map)
    for name, value in spec.settings.items():
        getattr(game, f"set_{name}")(value)
    if spec.arguments:
        game.set_game_args(spec.arguments)
    game.set_available_buttons([Button.__members__[name] for name in spec.buttons])
    game.set_available_game_variables([GameVariable.__members__[name] for name in variables])
    # The environment keeps the time itself, so that a last frame can be seen after time is up.
    game.set_episode_timeout(0)
    game.set_mode(Mode.PLAYER)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_screen_format(ScreenFormat.DOOM_256_COLORS8)
    game.set_screen_resolution(ScreenResolution.__members__["RES_{}X{}".format(*resolution)])
    for buffer in buffers:
        getattr(game, f"set_{buffer}_buffer_enabled")(True)


def _forget_names(instance_id: str) -> None:
    """Remove the names of the memory that engine and game share, once both hold it.

    What has no name goes with the last process that holds it, however that process ends.
    """
    for kind in ("SM", "MQCtr", "MQDoom"):
        (SHARED_MEMORY / f"ViZDoom{kind}{instance_id}").unlink(missing_ok=True)


def _engine_command(scratch: Path) -> Path:
    """Write the command that starts the engine; it dies with the thread that started it."""
    setpriv = shutil.which("setpriv")
    bound = f'"{setpriv}" --pdeathsig KILL ' if setpriv else ""
    command = scratch / "vizdoom"
    command.write_text(
        f'#!/bin/sh\necho "$$ $*" > "{scratch / _RECORD}"\n'
        f'exec {bound}"{ENGINE_FOLDER / "vizdoom"}" "$@"\n'
    )
    command.chmod(0o700)
    return command


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Be in another working directory for a moment: an engine inherits it when it starts."""
    with _working_directory:
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
