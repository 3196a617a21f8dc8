"""How far a training run is."""

from __future__ import annotations

from dataclasses import dataclass, field

from evaluation.seeds import TRAINING
from training.config import AnyTrainConfig


@dataclass
class Progress:
    """How far a training run is; saved with every checkpoint.

    Attributes:
        env_steps: so far, over all environments.
        episodes: that have ended.
        seconds: spent collecting and learning.
        other_seconds: spent evaluating, logging and saving.
        next_episode_seed: a seed that no episode has had yet.
        next_evaluation: env steps at which the next evaluation is due.
        skipped_updates: updates that were not finite.
        restarts: restarts of environments that failed.
        returns: returns of the last episodes.
        lengths: lengths of the last episodes, in env steps.
        best_score: mean return of the best evaluation.
        evaluations_since_best: evaluations without improvement.
    """

    env_steps: int = 0
    episodes: int = 0
    seconds: float = 0.0
    other_seconds: float = 0.0
    next_episode_seed: int = TRAINING
    next_evaluation: int = 0
    skipped_updates: int = 0
    restarts: int = 0
    returns: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    best_score: float | None = None
    evaluations_since_best: int = 0


def is_finished(config: AnyTrainConfig, progress: Progress) -> bool:
    """Return whether a training run has reached its total env steps, or has stopped improving."""
    stagnates = config.patience and progress.evaluations_since_best >= config.patience
    return progress.env_steps >= config.total_env_steps or bool(stagnates)
