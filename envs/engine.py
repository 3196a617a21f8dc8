"""The life and death of an engine: one child process of ViZDoom for each game.

What can go wrong is worked around here, once. The engine writes files where it is started and
silently obeys files lying there, so it starts in an empty scratch folder. It outlives a parent that
is killed, so on Linux it is started through `setpriv --pdeathsig KILL`, which ties its life to the
parent's. Its shared memory would outlive both, so its names are removed as soon as it is open.
Paths in commands to it may not exceed about 100 characters, so none is ever sent.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
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
_ENGINE_ERRORS = (
    vizdoom.ViZDoomErrorException,
    vizdoom.ViZDoomUnexpectedExitException,
    vizdoom.FileDoesNotExistException,
    vizdoom.MessageQueueException,
    vizdoom.SharedMemoryException,
)
_SHARED_MEMORY = Path("/dev/shm")  # Where Linux keeps it; elsewhere nothing is found there.
_working_directory = threading.Lock()


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
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH_PREFIX))
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
    except _ENGINE_ERRORS as error:
        end_engine(game, scratch)
        raise EnvError(f"the Doom engine did not start: {error}") from error
    _forget_names(game.get_instance_id())
    return game, scratch


def end_engine(game: DoomGame, scratch: Path) -> None:
    """End an engine and remove what it wrote; harmless where it has already ended."""
    game.close()
    shutil.rmtree(scratch, ignore_errors=True)


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
        (_SHARED_MEMORY / f"ViZDoom{kind}{instance_id}").unlink(missing_ok=True)


def _engine_command(scratch: Path) -> Path:
    """Write the command that starts the engine; it dies with the thread that started it."""
    engine = ENGINE_FOLDER / "vizdoom"
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return engine
    command = scratch / "vizdoom"
    command.write_text(f'#!/bin/sh\nexec "{setpriv}" --pdeathsig KILL "{engine}" "$@"\n')
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
