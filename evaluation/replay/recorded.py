"""Replaying recorded episodes, and checking that the environment still behaves as recorded.

Axes: T env steps, H, W a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs import EnvConfig
from envs.fingerprint import changed_versions, refuse_other_files, refuse_other_map
from envs.playback import Moment, fitted, resimulate
from envs.video import read_mp4
from evaluation.errors import EvaluationError
from evaluation.protocol import env_config
from storage.files import FileError
from storage.recording import Episode, Recording, load_recording

HIGHLIGHT = "highlight"
"""Names the episode that is shown by default: the best one of at least `_LONG` env steps."""
_LONG = 10  # Shorter episodes are over before one can see what the policy does.
_TOLERANCE = 1e-5  # Rewards of training were float32.


class DivergedError(FileError):
    """A replay differs from the recording: the environment is not deterministic, or has changed."""


@dataclass(frozen=True, kw_only=True)
class ShownEpisode:
    """An episode that is to be shown.

    Attributes:
        name: name of the policy.
        recording: the recorded episode.
        config: its environment.
        video: returns the (H, W, 3) pictures that were kept, one at the start and one for each env
            step; None if the episode can be simulated again from its seed and actions.
    """

    name: str
    recording: Recording
    config: EnvConfig
    video: Callable[[], Iterator[NDArray[np.uint8]]] | None = None

    @property
    def episode(self) -> Episode:
        """The recorded episode without its environment."""
        return self.recording.episode

    def moments(self, size: tuple[int, int]) -> Iterator[Moment]:
        """Yield pictures of (W, H) pixels: those that were kept, or those of `replay_recording`.

        Raises:
            FileError: If those that were kept are too many or too few.
        """
        if self.video is None:
            yield from replay_recording(self.recording, self.config, size)
            return
        rewards, number = self.episode.rewards, -1
        for number, image in enumerate(self.video()):
            if number > len(rewards):
                break
            step = max(0, number - 1)
            yield Moment(
                image=fitted(image, size),
                step=step,
                reward=float(rewards[step]) if number else 0.0,
                terminated=self.episode.terminated and number == len(rewards),
            )
        if number != len(rewards):
            raise FileError(
                f"the video of {self.name}'s episode with seed {self.episode.seed} does not have "
                f"one picture for each of its {len(rewards):,} env steps"
            )


def showable(folder: Path, pattern: str = "*.npz") -> list[Path]:
    """Return the recordings in a folder that can be shown, in the order of their names.

    Where the environment is not deterministic, videos are kept, and other recordings cannot be
    shown.
    """
    videos = {video.stem for video in folder.glob("*.mp4")}
    return [f for f in sorted(folder.glob(pattern)) if not videos or f.stem in videos]


def recorded_episodes(folder: Path, *, name: str, trust: bool) -> list[ShownEpisode]:
    """Return the recordings of a run to choose from, by seed.

    They are the scored episodes with sampled actions if there are any, else those with greedy
    actions, else those of evaluations during training, else those of the training itself. If the
    folder holds videos, they are only the episodes with a video.

    Args:
        folder: folder of the recordings.
        name: name of the policy.
        trust: whether packages that recordings name may be imported.

    Raises:
        FileError: If a recording is damaged.
    """
    kinds = ("score-sampled-*.npz", "score-*.npz", "evaluation-*.npz", "*.npz")
    files = next((found for kind in kinds if (found := showable(folder, kind))), [])
    return [read(file, name=name, trust=trust) for file in files]


def read(file: Path, *, name: str, trust: bool) -> ShownEpisode:
    """Read a recording, with the video beside it if there is one.

    Args:
        file: the recording.
        name: name of the policy.
        trust: whether a package that the recording names may be imported.

    Raises:
        FileError: If the recording is damaged.
    """
    recording, video = load_recording(file), file.with_suffix(".mp4")
    return ShownEpisode(
        name=name,
        recording=recording,
        config=env_config(recording.env, file, trust=trust),
        video=partial(read_mp4, video) if video.is_file() else None,
    )


def is_long(shown: ShownEpisode) -> bool:
    """Return whether an episode is long enough to see what the policy does."""
    return len(shown.episode.rewards) >= _LONG


def by_interest(recorded: Sequence[ShownEpisode]) -> list[ShownEpisode]:
    """Sort episodes: first the long ones, best first, then the others, longest first.

    The best episode alone may be one of two env steps, where a task is to be quick. Among equally
    good episodes, and among equally long ones, the longer and the better one comes first.
    """

    def interest(shown: ShownEpisode) -> tuple[bool, float, float]:
        steps, total = len(shown.episode.rewards), shown.episode.episode_return
        return (True, total, steps) if is_long(shown) else (False, steps, total)

    return sorted(recorded, key=interest, reverse=True)


def choose(recorded: Sequence[ShownEpisode], wanted: str, count: int) -> list[ShownEpisode]:
    """Choose recorded episodes.

    Args:
        recorded: the episodes to choose from, at least one.
        wanted: `highlight`, `best`, `worst`, `last`, or the seed of the first episode.
        count: number of episodes, if there are as many.

    Raises:
        EvaluationError: If there is no such episode.
    """
    if wanted == HIGHLIGHT:
        return by_interest(recorded)[:count]
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
    raise EvaluationError(
        f"no episode {wanted!r} is recorded; name highlight, best, worst, last, a seed "
        f"from {seeds[0]} to {seeds[-1]}, or a file in episodes/ without its suffix, as in "
        "training-first"
    )


def replay_recording(
    recording: Recording, config: EnvConfig, size: tuple[int, int]
) -> Iterator[Moment]:
    """Simulate a recorded episode again, and compare every reward with the recorded one.

    Args:
        recording: the recorded episode.
        config: its environment, as described by `recording.env`.
        size: (W, H) of the pictures.

    Yields:
        The picture at the start, and one for every frame, as `resimulate` does.

    Raises:
        EnvError: If a file of the environment differs from the recorded one, or the engine dies.
        DivergedError: At the first env step that differs, or if the episode ends at another one.
    """
    refuse_other_files(config.env, recording.game)
    episode = recording.episode
    refuse_other_map(config, episode.seed, recording.game)
    paid, step, terminated = 0.0, 0, False
    for moment in resimulate(config, episode.seed, episode.actions, size):
        if moment.step != step:
            check_reward(recording, config, step, paid)
            paid, step = 0.0, moment.step
        paid += moment.reward
        terminated = moment.terminated
        yield moment
    check_reward(recording, config, step, paid)
    if (terminated, step + 1) != (episode.terminated, len(episode.rewards)):
        recorded = "terminated" if episode.terminated else "was truncated"
        raise _diverged(
            recording,
            config,
            f"it ends after {step + 1} env steps, but the recorded one {recorded} after "
            f"{len(episode.rewards)}",
        )


def check_reward(recording: Recording, config: EnvConfig, step: int, paid: float) -> None:
    """Check that an env step of an episode that is simulated again pays what was recorded.

    Args:
        recording: the recorded episode.
        config: its environment.
        step: the env step.
        paid: its native reward.

    Raises:
        DivergedError: If it pays something else, or there was no such env step.
    """
    if step >= len(recording.episode.rewards):
        raise _diverged(recording, config, f"it goes on after env step {step - 1}")
    recorded = float(recording.episode.rewards[step])
    if not np.isclose(paid, recorded, rtol=_TOLERANCE, atol=_TOLERANCE):
        what = f"the reward of env step {step} is {paid:g}, but {recorded:g} was recorded"
        raise _diverged(recording, config, what)


def _diverged(recording: Recording, config: EnvConfig, what: str) -> DivergedError:
    changed = changed_versions(config.env, recording.game)
    why = f"; it was recorded with {changed}" if changed else ""
    return DivergedError(
        f"the replay of seed {recording.episode.seed} differs from the recording: {what}{why}"
    )
