"""Episodes as pictures of a video, and as tracks of an HTML page.

Axes: T env steps, H, W a picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from envs.doom.env import COUNTERS
from envs.doom.maps import MapConfig
from envs.doom.maps.source import MapSource
from envs.doom.maps.top_view import top_view
from envs.playback import ActionNames, pictures_per_env_step, playback_fps
from envs.video import mp4_bytes
from evaluation.replay.overlay import Caption, Overlay
from evaluation.replay.page import Event, Track, page
from evaluation.replay.recorded import ShownEpisode
from storage.files import FileError
from storage.recording import Episode

T = TypeVar("T")
_PAGE_CRF = 27  # A page contains its videos: a minute of Doom at 640x480 takes about 10 MB.
_CELL = 24  # pixels of a cell on a map from above
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
    for image, _ in with_captions(shown, size, overlay=overlay):
        yield image


def with_captions(
    shown: ShownEpisode, size: tuple[int, int], *, overlay: bool
) -> Iterator[tuple[NDArray[np.uint8], Caption]]:
    """Yield what `pictures` yields, each with its caption."""
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
        image = layer.draw(moment.image, moment.step, total) if overlay else moment.image
        yield image, layer.caption(moment.step, total)


def side_by_side(
    videos: Sequence[Iterable[NDArray[np.uint8]]],
) -> Iterator[NDArray[np.uint8]]:
    """Yield the pictures of several videos of equal height side by side.

    A video that has ended shows its last picture until all have ended.
    """
    for images in together(videos):
        yield np.hstack(images)


def together(videos: Sequence[Iterable[T]]) -> Iterator[list[T]]:
    """Yield what several videos show at the same time; one that has ended repeats its last item."""
    iterators = [iter(video) for video in videos]
    current = [next(iterator) for iterator in iterators]
    while True:
        yield current
        following = [next(iterator, None) for iterator in iterators]
        if all(item is None for item in following):
            return
        current = [
            before if item is None else item
            for before, item in zip(current, following, strict=True)
        ]


def page_of(
    shown: Sequence[ShownEpisode],
    size: tuple[int, int],
    *,
    explained: Mapping[str, Any] | None = None,
    interventions: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the page about an episode, or about the same episode of two policies.

    Args:
        shown: one or two episodes of one environment.
        size: (W, H) of the videos.
        explained: maps that are shown over the first video, see `Track`.
        interventions: see `page`.

    Raises:
        FileError: If a recording does not fit its environment, or its replay differs.
    """
    config = shown[0].config
    fps = playback_fps(config)
    tracks = []
    for s in shown:
        mode = "greedy" if s.episode.greedy else "sampled"
        tracks.append(track(s, f"seed {s.episode.seed} · {mode}", size, fps))
    tracks[0] = replace(tracks[0], explained=explained)
    each = pictures_per_env_step(config)
    return page(config.env, tracks, fps=fps, pictures_per_step=each, interventions=interventions)


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
    died, path = False, list[tuple[float, float]]()

    def images() -> Iterator[NDArray[np.uint8]]:
        nonlocal died
        for moment in shown.moments(size):
            died = moment.died
            for name, value in moment.variables.items():
                variables.setdefault(name, np.zeros(len(episode.rewards)))[moment.step] = value
            if moment.position is not None:
                path.append(moment.position)
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
        map=_map_from_above(shown, path),
    )


def _map_from_above(shown: ShownEpisode, path: Sequence[tuple[float, float]]) -> bytes:
    """Return a generated map with the player's path as a PNG file; empty for other maps."""
    config = shown.config
    if not isinstance(config.map, MapConfig):
        return b""
    level = MapSource(config.env, config.map).level(shown.episode.seed)
    _, content = cv2.imencode(".png", top_view(level, _CELL, path)[..., ::-1])
    return content.tobytes()


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
    """Return the name of a game variable as words: `damage taken`, `ammo 2`."""
    return re.sub(r"(?<=[a-z])(\d+)$", r" \1", name.lower().replace("_", " "))
