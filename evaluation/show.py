"""New episodes to be looked at, and where: in a window, or in a terminal.

Axes: H, W a picture.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray

from agents.checkpoint import PolicyFile
from agents.commandline import UsageError
from agents.run import find_policy
from envs import SharedVectorEnv
from envs.cfg import game_spec
from envs.fingerprint import fingerprint
from envs.registry import frames_per_env_step
from envs.replay import playback_fps
from envs.shown import ShownEnv
from envs.video import half_blocks
from evaluation.entries import locate
from evaluation.episodes import Recording
from evaluation.film import pictures, side_by_side
from evaluation.protocol import Protocol, check_fits, native, play
from evaluation.replay import Shown

WINDOW = (640, 480)
"""Width and height of what is shown live, in pixels."""
Show = Callable[[NDArray[np.uint8]], bool]
"""Shows a (H, W, 3) picture and tells whether to go on."""


def play_new(
    file: PolicyFile, path: Path, protocol: Protocol, *, greedy: bool, trust: bool
) -> list[Shown]:
    """Let a policy play episodes that are to be shown."""
    config = native(file, path, trust=trust)
    game, shown = fingerprint(config.env), []
    for number in range(protocol.episodes):
        one = replace(protocol, episodes=1, seed=protocol.seed + number)
        # Doom repeats itself, at any size; of other worlds pictures are kept as they are played.
        envs = SharedVectorEnv(config, 1) if game_spec(config.env) else ShownEnv(config, WINDOW)
        with contextlib.closing(envs):
            check_fits(file, envs, path)
            (episode,) = play(file, envs, one, greedy=greedy)
        recording = Recording(episode=episode, env=vars(config), game=game)
        film = envs.film if isinstance(envs, ShownEnv) else None
        shown.append(Shown(name=str(path), recording=recording, config=config, film=film))
    return shown


def opponent(path: Path, shown: Shown, trust: bool) -> Shown:
    """Let another policy play the same seed, in the same way.

    Raises:
        UsageError: If it was trained in another world, or shows more or fewer frames of it.
    """
    file, _ = find_policy(locate(path))
    theirs, ours = native(file, path, trust=trust), shown.config
    if theirs.env != ours.env or frames_per_env_step(theirs) != frames_per_env_step(ours):
        raise UsageError(
            f"{path} plays {theirs.env} with frame_skip {frames_per_env_step(theirs)}, "
            f"{shown.name} {ours.env} with {frames_per_env_step(ours)}: they cannot be shown "
            "side by side"
        )
    episode = shown.episode
    protocol = Protocol(episodes=1, seed=episode.seed, num_envs=1)
    (other,) = play_new(file, path, protocol, greedy=episode.greedy, trust=trust)
    return other


@contextlib.contextmanager
def window() -> Iterator[Show]:
    """Open a window for pictures; q, Escape, or its own button end the show.

    Raises:
        UsageError: If none can be opened.
    """
    # Qt ends the process that it cannot serve: a process of its own finds out.
    probe = [sys.executable, "-c", "import cv2; cv2.namedWindow('doomgrad')"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        raise UsageError("no window can be opened on this display; add --terminal")
    # OpenCV brings Qt without fonts, which it says of each. None is needed, any will do.
    os.environ["QT_QPA_FONTDIR"] = f"{matplotlib.get_data_path()}/fonts/ttf"
    name = "doomgrad"
    cv2.namedWindow(name, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)

    def show(image: NDArray[np.uint8]) -> bool:
        cv2.imshow(name, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 0xFF
        is_open = cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) >= 1
        return is_open and key not in (ord("q"), 27)

    try:
        yield show
    finally:
        cv2.destroyAllWindows()


def show_terminal(image: NDArray[np.uint8]) -> bool:
    """Show a picture in the terminal with half blocks; Ctrl-C ends it."""
    size = os.get_terminal_size() if sys.stdout.isatty() else os.terminal_size((80, 24))
    height, width = image.shape[:2]
    columns = max(16, min(size.columns, (size.lines - 2) * 2 * width // height))
    # Cursor home, not clear: redrawing in place does not flicker.
    sys.stdout.write("\x1b[H" + half_blocks(image, columns) + "\x1b[J\n")
    sys.stdout.flush()
    return True


def show_live(shown: Sequence[Shown], show: Show, *, speed: float, overlay: bool) -> bool:
    """Show episodes side by side as fast as they would be played; tell whether to go on."""
    fps = playback_fps(shown[0].config) * speed
    films = [pictures(s, WINDOW, overlay=overlay) for s in shown]
    started = time.monotonic()
    for number, image in enumerate(side_by_side(films)):
        if not show(image):
            return False
        time.sleep(max(0.0, started + number / fps - time.monotonic()))
    return True
