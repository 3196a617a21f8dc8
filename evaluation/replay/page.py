"""An HTML page that shows an episode: the video beside the policy's actions and values.

It is one file that opens from disk, makes no network requests and runs no script but its own.

Axes: T env steps of an episode, A choices.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.replay.overlay import taken_choices

_MAX_CHOICES = 16  # More rows would be too many to read.
_MAX_TRACKS = 2
_SLOT = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event that the page's user can jump to.

    Attributes:
        step: index of the env step in which it happened, 0 to T - 1.
        kind: "kill", "death", "surprise", "item" or "end"; it determines the mark.
        text: short text for the list and the tooltip.
    """

    step: int
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Track:
    """The episode of one policy as a page shows it.

    Attributes:
        name: name of the policy, such as `runs/basic/ppo-seed0`.
        about: a line about the episode.
        video: an .mp4 (H.264) whose picture 0 is the reset, followed by the pictures of each env
            step; the last env step may have fewer.
        rewards: (T,) float64, native.
        values: (T,) float32, the critic's value before each env step, in native reward units.
        surprises: (T,) float32, |TD error| of each env step, in native reward units.
        probabilities: (T, A) float32, of every choice; A is 0 if actions are continuous.
        choices: A names.
        actions: T descriptions of the actions.
        variables: (T,) float64 for each name, a game variable after each env step.
        events: in any order.
        explained: maps of where the policy looks, see `evaluation.explain`; None: none are shown.
        map: a picture (PNG) of the map with the player's path; empty if there is none.

    Raises:
        ValueError: If sizes differ, or there are no env steps.
    """

    name: str
    about: str
    video: bytes
    rewards: NDArray[np.float64]
    values: NDArray[np.float32]
    surprises: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    choices: tuple[str, ...]
    actions: tuple[str, ...]
    variables: Mapping[str, NDArray[np.float64]]
    events: tuple[Event, ...]
    explained: Mapping[str, Any] | None = None
    map: bytes = b""

    def __post_init__(self) -> None:
        steps = len(self.rewards)
        if not steps:
            raise ValueError(f"{self.name}: an episode must have at least one env step")
        sizes = {
            "values": len(self.values),
            "surprises": len(self.surprises),
            "probabilities": len(self.probabilities),
            "actions": len(self.actions),
            **{f"variable {name}": len(values) for name, values in self.variables.items()},
        }
        for name, size in sizes.items():
            if size != steps:
                raise ValueError(f"{self.name} has {steps} rewards, but {size} {name}")
        if self.probabilities.shape != (steps, len(self.choices)):
            raise ValueError(
                f"{self.name} has probabilities of shape {self.probabilities.shape}, but "
                f"{len(self.choices)} names of choices"
            )


def page(
    title: str,
    tracks: Sequence[Track],
    *,
    fps: float,
    pictures_per_step: int,
    interventions: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the page as HTML.

    Args:
        title: title of the page.
        tracks: one episode, or two that are shown side by side.
        fps: pictures per second of every video.
        pictures_per_step: number of pictures of each env step.
        interventions: examples of what the policy does where one thing is different, see
            `evaluation.explain.report.page_interventions`.

    Raises:
        ValueError: If there are no tracks or more than two, or a rate is out of range.
    """
    if not 1 <= len(tracks) <= _MAX_TRACKS:
        raise ValueError(f"a page shows one or two episodes, got {len(tracks)}")
    if not (0 < fps < math.inf and pictures_per_step >= 1):
        raise ValueError(
            f"fps must be greater than 0 and pictures_per_step at least 1, got {fps} and "
            f"{pictures_per_step}"
        )
    template = template_of("page.html")
    data = {
        "fps": fps,
        "picturesPerStep": pictures_per_step,
        "tracks": [_track_data(track) for track in tracks],
        "interventions": list(interventions),
    }
    videos = [
        f'<script type="text/plain" id="video-{number}">{_base64(track.video)}</script>'
        for number, track in enumerate(tracks)
    ]
    content = {"data": inert_json(data), "videos": "\n".join(videos)}
    return filled(template, title, content, allowed=(template,))


def template_of(name: str) -> str:
    """Return a template of this package."""
    return resources.files("evaluation.replay").joinpath(name).read_text(encoding="utf-8")


def filled(template: str, title: str, content: Mapping[str, str], *, allowed: Sequence[str]) -> str:
    """Fill the slots of a template.

    Args:
        template: the template.
        title: title of the page, any text.
        content: HTML for further slots.
        allowed: templates whose scripts and styles may be used on the page.
    """
    slots = {
        "policy": _content_policy(allowed),
        # Paths that are not valid UTF-8 contain lone surrogates, which cannot be written.
        "title": html.escape(title.encode("utf-8", "replace").decode()),
        **content,
    }
    # All slots at once, so that a slot in a title is not filled.
    return _SLOT.sub(lambda match: slots[match[1]], template)


def _content_policy(templates: Sequence[str]) -> str:
    """Return a content security policy for the templates' scripts and styles, and videos, only."""
    together = "\n".join(templates)
    styles = re.findall(r"<style>(.*?)</style>", together, re.DOTALL)
    scripts = re.findall(r"<script>(.*?)</script>", together, re.DOTALL)
    assert len(styles) == len(scripts) == len(templates)
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(map(_source_hash, scripts)),
        "style-src": " ".join(map(_source_hash, styles)),
        "media-src": "blob:",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _source_hash(source: str) -> str:
    return f"'sha256-{_base64(hashlib.sha256(source.encode()).digest())}'"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def inert_json(data: Any) -> str:
    """Return JSON without characters that HTML could interpret as markup."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _track_data(track: Track) -> dict[str, Any]:
    kept = _kept_choices(track.probabilities)
    place = {choice: i for i, choice in enumerate(kept)}
    words = list(dict.fromkeys(track.actions))
    index = {word: i for i, word in enumerate(words)}
    taken = {word: taken_choices(track.choices, word) for word in words}
    return {
        "name": track.name,
        "about": track.about,
        "numSteps": len(track.rewards),
        "rewards": _numbers(track.rewards),
        "values": _numbers(track.values, digits=6),
        "surprises": _numbers(track.surprises, digits=6),
        "numChoices": len(track.choices),
        "choices": [track.choices[choice] for choice in kept],
        "probabilities": [_numbers(track.probabilities[:, c], digits=4) for c in kept],
        "words": words,
        "actions": [index[word] for word in track.actions],
        "taken": [[place[c] for c in taken[word] if c in place] for word in track.actions],
        "variables": [[name, _numbers(values)] for name, values in track.variables.items()],
        "map": f"data:image/png;base64,{_base64(track.map)}" if track.map else "",
        "events": [{"step": e.step, "kind": e.kind, "text": e.text} for e in track.events],
        "explained": track.explained,
    }


def _kept_choices(probabilities: NDArray[np.float32]) -> list[int]:
    """Return the indices of the choices that were likeliest on average, in ascending order."""
    likeliest = np.argsort(-probabilities.mean(axis=0), kind="stable")[:_MAX_CHOICES]
    return sorted(likeliest.tolist())


def _numbers(values: Iterable[Any], digits: int = 9) -> list[float | None]:
    """Round to significant digits; NaN and infinity, which JSON lacks, become None."""
    numbers = (float(value) for value in values)
    return [float(f"{x:.{digits}g}") if math.isfinite(x) else None for x in numbers]
