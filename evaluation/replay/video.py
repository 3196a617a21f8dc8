"""Episodes as pictures of a video, and as tracks of an HTML page.

Axes: T env steps, H, W a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.doom.env import COUNTERS
from envs.playback import ActionNames
from envs.video import mp4_bytes
from evaluation.replay.overlay import Overlay
from evaluation.replay.page import Event, Track
from evaluation.replay.recorded import ShownEpisode
from storage.files import FileError
from storage.recording import Episode

_PAGE_CRF = 27  # A page contains its videos: a minute of Doom at 640x480 takes about 10 MB.
_SURPRISES, _APART = 3, 10  # Number of surprises that are events, and env steps between them.


def pictures(
    shown: ShownEpisode, size: tuple[int, int], *, overlay: bool
) -> Iterator[NDArray[np.uint8]]:
    """Yield the (H, W, 3) uint8 RGB pictures of an episode.

    Args:
        shown: the episode.
        size: (W, H) of the pictures.
        overlay: whether the return, and the policy's actions and values, are drawn on them.
    """
    episode, total = shown.episode, 0.0
    names = ActionNames(shown.config)
    layer = Overlay(
        rewards=episode.rewards,
        values=episode.values,
        probabilities=episode.probabilities,
        choices=_choices(shown, names),
        actions=tuple(map(names.describe, episode.actions)),
    )
    for moment in shown.moments(size):
        total += moment.reward
        yield layer.draw(moment.image, moment.step, total) if overlay else moment.image


def side_by_side(
    videos: Sequence[Iterable[NDArray[np.uint8]]],
) -> Iterator[NDArray[np.uint8]]:
    """Yield the pictures of several videos of equal height side by side.

    A video that has ended shows its last picture until all have ended.
    """
    iterators = [iter(video) for video in videos]
    current = [next(iterator) for iterator in iterators]
    while True:
        yield np.hstack(current)
        following = [next(iterator, None) for iterator in iterators]
        if all(image is None for image in following):
            return
        current = [
            before if image is None else image
            for before, image in zip(current, following, strict=True)
        ]


def track(shown: ShownEpisode, about: str, size: tuple[int, int], fps: float) -> Track:
    """Return everything that a page shows of an episode.

    Args:
        shown: the episode.
        about: a line about it.
        size: (W, H) of the video.
        fps: pictures per second of the video.

    Raises:
        FileError: If the recording does not fit its environment, or its replay differs.
    """
    episode, names = shown.episode, ActionNames(shown.config)
    variables: dict[str, NDArray[np.float64]] = {}
    died = False

    def images() -> Iterator[NDArray[np.uint8]]:
        nonlocal died
        for moment in shown.moments(size):
            died = moment.died
            for name, value in moment.variables.items():
                variables.setdefault(name, np.zeros(len(episode.rewards)))[moment.step] = value
            yield moment.image

    video = mp4_bytes(images(), fps, crf=_PAGE_CRF, key_frame_every=round(fps))
    return Track(
        name=shown.name,
        about=about,
        video=video,
        rewards=episode.rewards,
        values=episode.values,
        surprises=episode.surprises.astype(np.float32),
        probabilities=episode.probabilities,
        choices=_choices(shown, names),
        actions=tuple(map(names.describe, episode.actions)),
        variables={_readable(name): array for name, array in variables.items() if array.any()},
        events=events(episode, variables, died=died),
    )


def events(episode: Episode, variables: dict[str, Any], *, died: bool) -> tuple[Event, ...]:
    """Return kills, items, death, the end, and the largest surprises of the critic.

    Args:
        episode: the episode.
        variables: (T,) game variables after each env step, by name.
        died: whether the player was dead at the end.
    """
    found = []
    for kind, name in (("kill", COUNTERS["kills"]), ("item", COUNTERS["items"])):
        gains = np.diff(variables.get(name, np.zeros(0)), prepend=0.0)
        found += [Event(step=int(s), kind=kind, text=kind) for s in np.flatnonzero(gains > 0)]
    surprises = episode.surprises.copy()
    for _ in range(_SURPRISES):
        step = int(surprises.argmax())
        if not surprises[step] > 0:
            break
        found.append(Event(step=step, kind="surprise", text=f"surprise {surprises[step]:,.2f}"))
        surprises[max(0, step - _APART) : step + _APART + 1] = 0.0
    last = len(episode.rewards) - 1
    if died:
        found.append(Event(step=last, kind="death", text="death"))
    else:
        text = "end" if episode.terminated else "time is up"
        found.append(Event(step=last, kind="end", text=text))
    return tuple(sorted(found, key=lambda event: event.step))


def _choices(shown: ShownEpisode, names: ActionNames) -> tuple[str, ...]:
    """Return the names of the choices whose probabilities are recorded; empty for baselines.

    Raises:
        FileError: If the number of choices is not that of the environment.
    """
    num = shown.episode.probabilities.shape[1]
    if num not in (0, len(names.choices)):
        raise FileError(
            f"the recording of {shown.name} has probabilities of {num} choices, but "
            f"{shown.config.env} has {len(names.choices)}"
        )
    return names.choices if num else ()


def _readable(name: str) -> str:
    return name.lower().replace("_", " ")
