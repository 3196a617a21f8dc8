"""Playing recorded episodes again, and checking that the game is still the one they were played in.

Axes: T env steps, H, W a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.checkpoint import FileError
from agents.commandline import UsageError
from envs import EnvConfig
from envs.fingerprint import changed_versions, refuse_other_files
from envs.replay import Moment, resimulate, resized
from envs.video import read_mp4
from evaluation.episodes import Episode, Recording, load_recording
from evaluation.protocol import world

# Rewards of training went through float32.
_TOLERANCE = 1e-5


class DivergedError(FileError):
    """A game does not repeat itself: it pays something else than it was recorded to pay."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An episode to be shown.

    Attributes:
        name: who plays.
        recording: what was played.
        config: its world.
        film: gives the pictures that were kept, where the game does not repeat itself: one at the
            beginning, and one for each env step.
    """

    name: str
    recording: Recording
    config: EnvConfig
    film: Callable[[], Iterator[NDArray[np.uint8]]] | None = None

    @property
    def episode(self) -> Episode:
        """What was played."""
        return self.recording.episode

    def moments(self, size: tuple[int, int]) -> Iterator[Moment]:
        """Give pictures of (W, H) pixels with what they mean: kept ones, or by `play_again`."""
        if self.film is None:
            yield from play_again(self.recording, self.config, size)
            return
        rewards = self.episode.rewards
        for number, image in enumerate(self.film()):
            step = max(0, number - 1)
            yield Moment(
                image=resized(image, size),
                step=step,
                reward=float(rewards[step]) if number else 0.0,
                terminated=self.episode.terminated and number == len(rewards),
            )


def recorded_episodes(folder: Path, *, name: str, trust: bool) -> list[Shown]:
    """Read the recordings to choose from, by seed: scored ones if there are any.

    Those whose actions were drawn come before those that took the most likely ones, and both before
    those of evaluations during training, and these before those of training itself.

    Raises:
        FileError: If a recording is damaged.
    """
    kinds = ("score-sampled-*.npz", "score-*.npz", "evaluation-*.npz", "*.npz")
    # Games that do not repeat themselves are shown by what pictures there are.
    films = [film.with_suffix(".npz") for film in sorted(folder.glob("*.mp4"))]
    files = films or next((found for kind in kinds if (found := sorted(folder.glob(kind)))), [])
    return [read(file, name=name, trust=trust) for file in files]


def read(file: Path, *, name: str, trust: bool) -> Shown:
    """Read one recording and the world it was made in."""
    recording, film = load_recording(file), file.with_suffix(".mp4")
    return Shown(
        name=name,
        recording=recording,
        config=world(recording.env, file, trust=trust),
        film=partial(read_mp4, film) if film.is_file() else None,
    )


def choose(recorded: Sequence[Shown], wanted: str, count: int) -> list[Shown]:
    """Choose the best, worst or last episodes, or those from a seed on.

    Raises:
        UsageError: If there is no such episode.
    """
    if wanted == "last":
        return list(recorded[-count:])
    if wanted in ("best", "worst"):
        ordered = sorted(
            recorded, key=lambda shown: shown.episode.episode_return, reverse=wanted == "best"
        )
        return ordered[:count]
    for place, shown in enumerate(recorded):
        if str(shown.episode.seed) == wanted:
            return list(recorded[place : place + count])
    seeds = sorted({shown.episode.seed for shown in recorded})
    raise UsageError(
        f"no episode {wanted!r} is recorded; there are best, worst, last, the seeds {seeds[0]} to "
        f"{seeds[-1]}, and the files in episodes/ by name, as in training-first"
    )


def play_again(recording: Recording, config: EnvConfig, size: tuple[int, int]) -> Iterator[Moment]:
    """Play a recording again, comparing every env step's reward with the recorded one.

    Args:
        recording: what was played.
        config: its world, as `recording.env` describes it.
        size: (W, H) of the pictures.

    Yields:
        The picture at the beginning, and one for every frame since, as `resimulate` does.

    Raises:
        EnvError: If a file of the world is another one than was recorded with, or the engine dies.
        DivergedError: At the first env step that differs, or if the episode ends sooner.
    """
    refuse_other_files(config.env, recording.game)
    episode = recording.episode
    paid, step, terminated = 0.0, 0, False
    for moment in resimulate(config, episode.seed, episode.actions, size):
        if moment.step != step:
            _expect(recording, config, step, paid)
            paid, step = 0.0, moment.step
        paid += moment.reward
        terminated = moment.terminated
        yield moment
    _expect(recording, config, step, paid)
    if (terminated, step + 1) != (episode.terminated, len(episode.rewards)):
        raise _diverged(recording, config, f"it ends after {step + 1} env steps")


def _expect(recording: Recording, config: EnvConfig, step: int, paid: float) -> None:
    recorded = float(recording.episode.rewards[step])
    if not np.isclose(paid, recorded, rtol=_TOLERANCE, atol=_TOLERANCE):
        what = f"env step {step} pays {paid:g}, recorded is {recorded:g}"
        raise _diverged(recording, config, what)


def _diverged(recording: Recording, config: EnvConfig, what: str) -> DivergedError:
    changed = changed_versions(config.env, recording.game)
    why = f"; it was recorded with {changed}" if changed else ""
    return DivergedError(
        f"the game differs from the recording of seed {recording.episode.seed}: {what}{why}"
    )
