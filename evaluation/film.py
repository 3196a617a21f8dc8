"""Episodes as films: pictures with what the policy did and expected, and tracks for a page.

Axes: T env steps, H, W a picture.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.checkpoint import FileError
from envs.doom import COUNTERS
from envs.replay import ActionNames
from envs.video import write_mp4
from evaluation.episodes import Episode
from evaluation.overlay import Overlay
from evaluation.page import Event, Track
from evaluation.replay import Shown

_PAGE_CRF = 27  # A page carries its videos: a minute of Doom at 640x480 is to stay near 10 MB.
_SURPRISES, _APART = 3, 10  # So many of an episode are pointed out, at least so many steps apart.


def pictures(shown: Shown, size: tuple[int, int], *, overlay: bool) -> Iterator[NDArray[np.uint8]]:
    """Give the (H, W, 3) uint8 RGB pictures of an episode, with an overlay if asked for."""
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
    films: Sequence[Iterable[NDArray[np.uint8]]],
) -> Iterator[NDArray[np.uint8]]:
    """Show several films of one height beside each other; shorter ones stand at their end."""
    iterators = [iter(film) for film in films]
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


def track(shown: Shown, about: str, size: tuple[int, int], fps: float) -> Track:
    """Play an episode again and gather all that a page shows of it."""
    episode, names = shown.episode, ActionNames(shown.config)
    variables: dict[str, NDArray[np.float64]] = {}
    died = False

    def film() -> Iterator[NDArray[np.uint8]]:
        nonlocal died
        for moment in shown.moments(size):
            died = moment.died
            for name, value in moment.variables.items():
                variables.setdefault(name, np.zeros(len(episode.rewards)))[moment.step] = value
            yield moment.image

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.mp4"
        write_mp4(path, film(), fps, crf=_PAGE_CRF, key_frame_every=round(fps))
        video = path.read_bytes()
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
    """Point out kills, items, death, the end, and where the critic was surprised most."""
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


def _choices(shown: Shown, names: ActionNames) -> tuple[str, ...]:
    """Name the choices that probabilities are recorded of; a player that learned nothing has none.

    Raises:
        FileError: If they are of another number of choices than the world has.
    """
    num = shown.episode.probabilities.shape[1]
    if num not in (0, len(names.choices)):
        raise FileError(
            f"{shown.name} recorded probabilities of {num} choices, {shown.config.env} has "
            f"{len(names.choices)}"
        )
    return names.choices if num else ()


def _readable(name: str) -> str:
    return name.lower().replace("_", " ")
