"""Callbacks: code of a user's own that is called while a training runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from agents.collector import Collected
from evaluation.statistics import Score

if TYPE_CHECKING:
    from training.training import Training


class Callback:
    """Is called while a training runs; a subclass overrides the methods that it needs.

    `training.logger.record(tag, value)` logs a value with the current update, and
    `training.stop()` ends the training after it, saved.
    """

    def on_start(self, training: Training) -> None:
        """Is called once, before the first rollout of a run that starts or resumes."""

    def on_update(
        self, training: Training, collected: Collected, metrics: Mapping[str, float]
    ) -> None:
        """Is called after each update, before it is logged.

        Args:
            training: the training; `training.progress` counts the env steps.
            collected: the rollout that was learned from, and the episodes that ended in it.
            metrics: of the update, as they are logged; empty if it was skipped.
        """

    def on_evaluation(self, training: Training, score: Score) -> None:
        """Is called after each evaluation.

        Args:
            training: the training.
            score: of the policy, over the evaluation's episodes.
        """

    def on_end(self, training: Training) -> None:
        """Is called once at the end, before the last save, also after a signal."""
