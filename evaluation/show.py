"""New episodes to be looked at, and where: in a window, or in a terminal.

Axes: H, W a picture.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agents.checkpoint import PolicyFile
from agents.commandline import UsageError
from agents.run import find_policy
from envs import SharedVectorEnv
from envs.cfg import game_spec
from envs.fingerprint import fingerprint
from envs.registry import frames_per_env_step
from envs.shown import ShownEnv
from envs.video import half_blocks
from evaluation.entries import locate
from evaluation.episodes import Recording
from evaluation.protocol import Protocol, check_fits, native, play
from evaluation.replay import Shown

WINDOW = (640, 480)
"""Width and height of what is shown live, in pixels."""


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


def show_window(image: NDArray[np.uint8]) -> bool:
    """Show a picture in a window; tell whether to go on (q or Escape ends it)."""
    cv2.imshow("doomgrad", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)


def show_terminal(image: NDArray[np.uint8]) -> bool:
    """Show a picture in the terminal with half blocks; Ctrl-C ends it."""
    size = os.get_terminal_size() if sys.stdout.isatty() else os.terminal_size((80, 24))
    height, width = image.shape[:2]
    columns = max(16, min(size.columns, (size.lines - 2) * 2 * width // height))
    # Cursor home, not clear: redrawing in place does not flicker.
    sys.stdout.write("\x1b[H" + half_blocks(image, columns) + "\x1b[J\n")
    sys.stdout.flush()
    return True
