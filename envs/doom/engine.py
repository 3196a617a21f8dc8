"""Starts and ends engines: ViZDoom's process, one for each environment.

Workarounds for the engine's faults are collected here:

- It writes files into its working directory and silently obeys files found there, so it starts in
  an empty scratch folder.
- It outlives a parent that is killed, so it is started by `start_engine.sh`, which on Linux has it
  killed when its parent dies. The script is part of the project, not written into the scratch
  folder: programs may not be run in some folders for temporary files.
- Its named shared memory would outlive both processes, so the names are removed as soon as both
  have opened it. If the parent is killed before that, the scratch folder remains, and
  `remove_leftovers` removes both.
- Commands to it may not contain paths longer than about 100 characters, so no path is ever sent.
- If it hangs, calls to it never return, unless another thread calls `kill_engine`.
- A WAD can make it need gigabytes, or print pages when it crashes: its memory is limited, and what
  it prints is discarded.
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
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import vizdoom
from vizdoom import (
    Button,
    DoomGame,
    GameVariable,
    Mode,
    SamplingRate,
    ScreenFormat,
    ScreenResolution,
)

from envs.doom.cfg import ENGINE_FOLDER, GameSpec
from envs.doom.maps.source import WAD_NAME, MapSource
from envs.doom.senses import SAMPLING_RATE
from envs.errors import EnvError

# 4:3 screens that the engine can draw, smallest first, as (width, height).
RESOLUTIONS: tuple[tuple[int, int], ...] = (
    (160, 120),
    (200, 150),
    (256, 192),
    (320, 240),
    (400, 300),
    (512, 384),
    (640, 480),
    (800, 600),
    (1024, 768),
    (1280, 960),
    (1600, 1200),
)

# Of an engine's addresses: it needs 260 MB, whatever the screen and the map.
MAX_MEMORY_KB = 2**20
_START_ATTEMPTS = 3  # Starting many engines at once can fail; the next attempt succeeds.
_SCRATCH_PREFIX = "doomgrad-engine-"
_START = Path(__file__).with_name("start_engine.sh")
_ENGINE = ENGINE_FOLDER / "vizdoom"
# Files in the scratch folder: the engine's process id and arguments, written by the script; its
# owner's process id and what to start, on which the owner holds a lock.
_RECORD, _OWNER = "engine", "owner"
_INSTANCE = re.compile(r"viz_instance_id (\w+)")
_LOCKED_WITHIN_S = 60.0  # A scratch folder that has no lock for longer than this has no owner.
ENGINE_ERRORS = (
    vizdoom.ViZDoomErrorException,
    vizdoom.ViZDoomUnexpectedExitException,
    vizdoom.FileDoesNotExistException,
    vizdoom.MessageQueueException,
    vizdoom.SharedMemoryException,
)
SHARED_MEMORY = Path("/dev/shm")  # Where Linux keeps it; other systems have no such folder.
_STARTED_WITHIN_S = 10.0  # A process that ends waits no longer for an engine that starts.
_LOOK_EVERY_S = 0.002  # Whether the process of an engine exists.
_working_directory = threading.Lock()  # Held while an engine starts.
_locks: dict[Path, int] = {}  # File descriptors of this process's locks, by scratch folder.


def smallest_resolution(width: int, height: int) -> tuple[int, int]:
    """Return the smallest resolution of at least (width, height) pixels, or the largest one."""
    fitting = (r for r in RESOLUTIONS if r[0] >= width and r[1] >= height)
    return next(fitting, RESOLUTIONS[-1])


def start_engine(
    spec: GameSpec,
    *,
    resolution: tuple[int, int],
    variables: tuple[str, ...],
    buffers: tuple[str, ...] = (),
    recent_frames: int = 1,
    maps: MapSource | None = None,
) -> tuple[DoomGame, Path]:
    """Start an engine that draws palette indices and waits for the first episode.

    Args:
        spec: what it plays.
        resolution: (width, height) of the screen in pixels, one of `RESOLUTIONS`.
        variables: names of the game variables in each state, in this order.
        buffers: further buffers to fill: `depth`, `labels`, `automap`, `audio`, `notifications`.
        recent_frames: how many of the last frames the last two of them cover.
        maps: if maps are generated, their source, whose WAD is put into the scratch folder.

    Returns:
        The running game and its scratch folder; pass both to `end_engine`.

    Raises:
        EnvError: If the engine could not be started.
    """
    game, scratch = prepare_engine(
        spec,
        resolution=resolution,
        variables=variables,
        buffers=buffers,
        recent_frames=recent_frames,
        maps=maps,
    )
    try:
        for attempt in range(_START_ATTEMPTS):
            try:
                with _inside(scratch):
                    game.init()
                    _remove_shared_memory_names(game.get_instance_id())
                break
            except vizdoom.ViZDoomErrorException:
                if attempt == _START_ATTEMPTS - 1:
                    raise
    except ENGINE_ERRORS as error:
        end_engine(game, scratch)
        raise EnvError(f"the Doom engine did not start: {error}") from error
    return game, scratch


def prepare_engine(
    spec: GameSpec,
    *,
    resolution: tuple[int, int],
    variables: tuple[str, ...],
    buffers: tuple[str, ...] = (),
    recent_frames: int = 1,
    maps: MapSource | None = None,
) -> tuple[DoomGame, Path]:
    """Return a game that is ready to start, and its scratch folder; see `start_engine`."""
    check_executable()
    scratch = _scratch_folder()
    game = DoomGame()
    if maps is not None:
        maps.place(scratch / WAD_NAME)
        spec = replace(spec, wad=scratch / WAD_NAME)
    try:
        _configure(game, spec, scratch, resolution, variables, buffers)
        game.set_notifications_buffer_size(recent_frames)
        game.set_audio_buffer_size(recent_frames)
        game.set_audio_sampling_rate(SamplingRate.__members__[f"SR_{SAMPLING_RATE}"])
        if "audio" in buffers:
            # Effects of rooms abort the engine with some versions of OpenAL.
            game.add_game_args("+snd_efx 0")
    except ENGINE_ERRORS as error:
        end_engine(game, scratch)
        raise EnvError(f"the Doom engine did not start: {error}") from error
    return game, scratch


def start_engines(prepared: Sequence[tuple[DoomGame, Path]], threads: Sequence[Executor]) -> None:
    """Start engines that wait for each other: one that hosts a match, then those that join it.

    Args:
        prepared: what `prepare_engine` returned for each. On failure all of them are ended.
        threads: for each engine, an executor in which it starts.

    Raises:
        EnvError: If one could not be started.
    """
    starting: list[Future[Any]] = []
    try:
        for (game, scratch), thread in zip(prepared, threads, strict=True):
            # The host does not return before the others have joined: an engine has its working
            # directory as soon as its process exists.
            with _inside(scratch):
                starting.append(thread.submit(game.init))
                until = time.monotonic() + _STARTED_WITHIN_S
                while not (scratch / _RECORD).exists() and not starting[-1].done():
                    if time.monotonic() > until:
                        raise EnvError("the Doom engine did not start: its process does not exist")
                    time.sleep(_LOOK_EVERY_S)
        for each in starting:
            each.result()
    except (*ENGINE_ERRORS, EnvError) as error:
        for _, scratch in prepared:
            kill_engine(scratch)
        wait(starting)
        for game, scratch in prepared:
            end_engine(game, scratch)
        raise EnvError(f"the Doom engines did not start: {error}") from error
    for game, _ in prepared:
        _remove_shared_memory_names(game.get_instance_id())


def check_executable() -> None:
    """Check that the files which start an engine may be executed.

    Raises:
        EnvError: If one may not.
    """
    for file in (_START, _ENGINE):
        if not os.access(file, os.X_OK):
            raise EnvError(
                f"{file} may not be executed; allow it (chmod +x), or install where programs may "
                "be run (not on a file system mounted with noexec)"
            )


def end_engine(game: DoomGame, scratch: Path) -> None:
    """End an engine and remove its files; does nothing if it has already ended."""
    game.close()
    shutil.rmtree(scratch, ignore_errors=True)
    with contextlib.suppress(KeyError):  # It was ended before.
        os.close(_locks.pop(scratch))


def kill_engine(scratch: Path) -> None:
    """Kill an engine that hangs; does nothing if it has already ended.

    A call that waits for the engine, in another thread, then raises one of `ENGINE_ERRORS`.
    """
    with contextlib.suppress(OSError, ValueError):
        record = (scratch / _RECORD).read_text()
        pid, instance = int(record.split()[0]), _INSTANCE.findall(record)
        # The process id may have been reused by another process.
        if instance and instance[0].encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def abandon_engine(scratch: Path) -> None:
    """Kill an engine and remove its files, if its owner ends without calling `end_engine`."""
    kill_engine(scratch)
    with contextlib.suppress(OSError):
        for instance_id in _INSTANCE.findall((scratch / _RECORD).read_text()):
            _remove_shared_memory_names(instance_id)
    shutil.rmtree(scratch, ignore_errors=True)


def abandon_engines() -> None:
    """Abandon every engine of this process, which then ends; also one that is just being started.

    Until an engine has started, nobody knows the names of its shared memory.
    """
    is_free = _working_directory.acquire(timeout=_STARTED_WITHIN_S)
    for scratch in list(_locks):
        abandon_engine(scratch)
    if is_free:
        _working_directory.release()


def _leftovers() -> list[Path]:
    """Return the scratch folders of this user's engines whose owners are dead."""
    found = []
    for folder in _temporary_folder().glob(f"{_SCRATCH_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = folder.stat()
            if status.st_uid != os.getuid():
                continue
            try:
                with (folder / _OWNER).open() as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Fails while the owner lives.
            except FileNotFoundError:
                if time.time() - status.st_mtime < _LOCKED_WITHIN_S:
                    continue
            found.append(folder)
    return found


def remove_leftovers() -> int:
    """Remove engines, shared memory and scratch folders that killed processes left behind.

    Returns:
        The number of engines whose leftovers were removed.
    """
    folders = _leftovers()
    for folder in folders:
        abandon_engine(folder)  # Without `setpriv` it outlives its owner.
    return len(folders)


def _temporary_folder() -> Path:
    """Return the absolute path of the folder for temporary files, which may be given as `.`."""
    with _working_directory:
        return Path(tempfile.gettempdir()).absolute()


def _scratch_folder() -> Path:
    """Create a folder with a file that stays locked as long as this process lives."""
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH_PREFIX, dir=_temporary_folder()))
    temporary = scratch / f"{_OWNER}.tmp"
    temporary.write_text(f"{os.getpid()}\n{MAX_MEMORY_KB}\n{_ENGINE}\n")
    _locks[scratch] = os.open(temporary, os.O_RDWR)
    fcntl.flock(_locks[scratch], fcntl.LOCK_EX)
    temporary.rename(scratch / _OWNER)  # It never has this name without being locked.
    return scratch


def _configure(
    game: DoomGame,
    spec: GameSpec,
    scratch: Path,
    resolution: tuple[int, int],
    variables: tuple[str, ...],
    buffers: tuple[str, ...],
) -> None:
    game.set_vizdoom_path(str(_START))
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
    # The environment counts the tics itself, because the engine draws no frame after a timeout.
    game.set_episode_timeout(0)
    game.set_mode(Mode.PLAYER)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_screen_format(ScreenFormat.DOOM_256_COLORS8)
    game.set_screen_resolution(ScreenResolution.__members__["RES_{}X{}".format(*resolution)])
    for buffer in buffers:
        getattr(game, f"set_{buffer}_buffer_enabled")(True)


def _remove_shared_memory_names(instance_id: str) -> None:
    """Remove the names of an engine's shared memory, once both processes have opened it.

    The system frees memory without a name when the last process that has it open ends, however
    that process ends.
    """
    for kind in ("SM", "MQCtr", "MQDoom"):
        (SHARED_MEMORY / f"ViZDoom{kind}{instance_id}").unlink(missing_ok=True)


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Change the working directory for a moment: an engine inherits it when it starts."""
    with _working_directory:
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
