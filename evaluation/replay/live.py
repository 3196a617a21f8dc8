"""Playing new episodes, and showing them in a window; `terminal` shows them in a terminal.

Axes: H, W a picture.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray

from envs import EnvConfig, SharedVectorEnv
from envs.filmed import FilmedEnv
from envs.fingerprint import episode_fingerprint
from envs.playback import playback_fps
from envs.registry import frames_per_env_step, is_plain_doom
from evaluation.entries import locate
from evaluation.errors import EvaluationError
from evaluation.protocol import Protocol, check_fits, native, play
from evaluation.replay.overlay import Caption
from evaluation.replay.recorded import ShownEpisode
from evaluation.replay.video import together, with_captions
from processes.child import start_python
from storage.onnx_file import PlayableFile
from storage.recording import Recording
from storage.run_folder import find_player

WINDOW = (640, 480)
"""Width and height of pictures that are shown live, in pixels."""
Show = Callable[[Sequence[NDArray[np.uint8]], Sequence[Caption]], bool]
"""Shows (H, W, 3) pictures of several episodes, and returns whether to continue."""


def play_new(
    file: PlayableFile, path: Path, protocol: Protocol, *, greedy: bool, trust: bool
) -> list[ShownEpisode]:
    """Play episodes with a policy, to show them.

    Args:
        file: the policy.
        path: path of its file, for messages.
        protocol: which episodes are played.
        greedy: whether the most likely actions are taken instead of sampling.
        trust: whether a package that the file names may be imported.

    Raises:
        FileError: If the policy does not fit its environment.
    """
    config = native(file, path, trust=trust)
    shown = []
    for number in range(protocol.episodes):
        one = replace(protocol, episodes=1, seed=protocol.seed + number)
        # Doom is deterministic: an episode can be simulated again at any size. Elsewhere, and in a
        # user's wrappers, pictures are kept as the episode is played.
        repeats = is_plain_doom(config)
        envs = SharedVectorEnv(config, 1) if repeats else FilmedEnv(config, WINDOW)
        with contextlib.closing(envs):
            check_fits(file, envs, path)
            (episode,) = play(file, envs, one, greedy=greedy)
        game = episode_fingerprint(config, episode.seed)
        recording = Recording(episode=episode, env=asdict(config), game=game)
        video = envs.film if isinstance(envs, FilmedEnv) else None
        episode_shown = ShownEpisode(
            name=str(path), recording=recording, config=config, video=video
        )
        shown.append(episode_shown)
    return shown


def opponent(path: Path, shown: ShownEpisode, trust: bool) -> ShownEpisode:
    """Play the seed of an episode with another policy, in the same mode.

    Args:
        path: run folder or policy file of the other policy.
        shown: the episode.
        trust: whether a package that the file names may be imported.

    Raises:
        EvaluationError: If the policies have different environments or frame skips.
    """
    file, _ = find_player(locate(path), trust=trust)
    theirs, ours = native(file, path, trust=trust), shown.config
    if theirs.files == ours.files != ():  # Copies of the same files are one environment.
        theirs = replace(theirs, env=ours.env)
    task, own_task = _task(theirs), _task(ours)
    if task != own_task:
        raise EvaluationError(
            f"{path} plays {task}, but {shown.name} plays {own_task}; name a policy with the same "
            "environment and frame_skip"
        )
    episode = shown.episode
    protocol = Protocol(episodes=1, seed=episode.seed, num_envs=1)
    (other,) = play_new(file, path, protocol, greedy=episode.greedy, trust=trust)
    return other


def _task(config: EnvConfig) -> str:
    """Return what has to be the same if two policies are shown side by side."""
    made = f" made with {' '.join(config.env_kwargs)}" if config.env_kwargs else ""
    return f"{config.env}{made} with frame_skip {frames_per_env_step(config)}"


@contextlib.contextmanager
def window() -> Iterator[Show]:
    """Open a window for pictures, which is closed by q, Escape or its close button.

    Raises:
        EvaluationError: If no window can be opened.
    """
    # Qt ends a process in which it cannot open a window, so another process tries first.
    probe = start_python(
        "import cv2; cv2.namedWindow('doomgrad')",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if probe.wait():
        raise EvaluationError("no window can be opened on this display; add --terminal")
    # The Qt of OpenCV has no fonts, and prints a warning for each one that is missing. Any folder
    # of fonts prevents that; none of them is used.
    os.environ["QT_QPA_FONTDIR"] = f"{matplotlib.get_data_path()}/fonts/ttf"
    name = "doomgrad"
    cv2.namedWindow(name, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)

    def show(images: Sequence[NDArray[np.uint8]], captions: Sequence[Caption]) -> bool:
        cv2.imshow(name, cv2.cvtColor(np.hstack(images), cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 0xFF
        is_open = cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) >= 1
        return is_open and key not in (ord("q"), 27)

    try:
        yield show
    finally:
        cv2.destroyAllWindows()


def show_live(shown: Sequence[ShownEpisode], show: Show, *, speed: float, overlay: bool) -> bool:
    """Show episodes side by side, and return whether to continue.

    Args:
        shown: the episodes.
        show: shows a picture.
        speed: 1 is the environment's own speed.
        overlay: whether the return, and the policy's actions and values, are drawn on the pictures.
    """
    fps = playback_fps(shown[0].config) * speed
    videos = [with_captions(s, WINDOW, overlay=overlay) for s in shown]
    started = time.monotonic()
    for number, current in enumerate(together(videos)):
        if not show([image for image, _ in current], [caption for _, caption in current]):
            return False
        time.sleep(max(0.0, started + number / fps - time.monotonic()))
    return True
