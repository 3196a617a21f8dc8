"""Recording some episodes of training; `training.evaluation` records those of evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.traces import Trace
from storage.files import FileError
from storage.recording import Episode, Recording, load_recording, save_recording

_BEST, _WORST = "best", "worst"


class TrainingRecorder:
    """Records the first, the best and the worst episode of a training run, and others at intervals.

    Args:
        folder: the folder for recordings: training-first.npz, training-best.npz, ...
        env: fields of the environment's configuration.
        game: returns the fingerprint of the episode of a seed.
        gamma: the discount of the critic for one env step.
        value_unit: returns the native reward that corresponds to a value of 1.
        interval: env steps between episodes that are recorded whatever their return is.
        env_steps: env steps of the training so far.
    """

    def __init__(
        self,
        folder: Path,
        *,
        env: dict[str, Any],
        game: Callable[[int], dict[str, str]],
        gamma: float,
        value_unit: Callable[[], float],
        interval: int,
        env_steps: int,
    ) -> None:
        self._folder, self._env, self._game = folder, env, game
        self._gamma, self._value_unit = gamma, value_unit
        self._interval, self._next = interval, env_steps // interval * interval + interval
        self._unsaved: dict[str, Episode] = {}
        self._returns = {name: self._recorded_return(name) for name in (_BEST, _WORST)}

    def take(self, traces: Sequence[Trace], env_steps: int) -> None:
        """Record some of the episodes that ended since the last call.

        The best and the worst one are written by `save`.

        Args:
            traces: the episodes, in the order in which they ended.
            env_steps: env steps of the training so far.

        Raises:
            OSError: If a recording cannot be written.
        """
        if not traces:
            return
        best, worst = self._returns[_BEST], self._returns[_WORST]
        highest = max(traces, key=lambda trace: trace.statistics["r"])
        lowest = min(traces, key=lambda trace: trace.statistics["r"])
        for name, trace, beats in (
            (_BEST, highest, best is None or highest.statistics["r"] > best),
            (_WORST, lowest, worst is None or lowest.statistics["r"] < worst),
        ):
            if beats:
                self._returns[name] = trace.statistics["r"]
                self._unsaved[name] = self._episode(trace)
        if best is None:
            self._write("first", self._episode(traces[0]))
        if env_steps >= self._next:
            self._next = env_steps // self._interval * self._interval + self._interval
            self._write(f"{env_steps:010d}", self._episode(traces[-1]))

    def save(self) -> None:
        """Write the best and the worst episode, unless the files on disk already contain them.

        Raises:
            OSError: If a recording cannot be written.
        """
        for name in list(self._unsaved):
            self._write(name, self._unsaved[name])
            del self._unsaved[name]

    def _episode(self, trace: Trace) -> Episode:
        arrays: dict[str, Any] = trace.arrays()
        return Episode(
            seed=trace.seed,
            greedy=False,
            actions=arrays["actions"],
            rewards=arrays["rewards"].astype(np.float64),
            values=arrays["values"] * np.float32(self._value_unit()),
            probabilities=arrays["probabilities"],
            terminated=trace.terminated,
            gamma=self._gamma,
            statistics=trace.statistics,
        )

    def _path(self, name: str) -> Path:
        return self._folder / f"training-{name}.npz"

    def _write(self, name: str, episode: Episode) -> None:
        recording = Recording(episode=episode, env=self._env, game=self._game(episode.seed))
        save_recording(self._path(name), recording)

    def _recorded_return(self, name: str) -> float | None:
        """Return the episode return of a recording of this run, or None if there is none."""
        try:
            return load_recording(self._path(name)).episode.episode_return
        except FileError:
            return None
