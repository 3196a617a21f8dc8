"""How far a training run is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from evaluation.seeds import TRAINING
from training.config import AnyTrainConfig

_LAST_SEED = 2**31
EVALUATED = ("next_evaluation", "best_score", "evaluations_since_best", "lacks_evaluation")
"""The attributes of `Progress` that evaluations change."""


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
        lacks_evaluation: whether the last evaluation was interrupted, and is to be repeated.

    Raises:
        ValueError: If a value is out of range.
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
    lacks_evaluation: bool = False

    def __post_init__(self) -> None:
        """Check ranges: a checkpoint may come from a stranger."""
        counters = {n: v for n, v in vars(self).items() if type(v) is int}
        for name, value in counters.items():
            if not 0 <= value < 2**53:
                raise ValueError(f"{name} cannot be {value}")
        if not TRAINING <= self.next_episode_seed < _LAST_SEED:
            raise ValueError(f"next_episode_seed cannot be {self.next_episode_seed}")
        for name in ("seconds", "other_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} cannot be {getattr(self, name)}")


def is_finished(config: AnyTrainConfig, progress: Progress) -> bool:
    """Return whether a training run has reached its total env steps, or has stopped improving.

    It is not finished before its last evaluation was made.
    """
    if progress.lacks_evaluation and config.eval_envs != "none":
        return False
    return has_ended(progress, config.total_env_steps, config.patience)


def has_ended(progress: Progress, total_env_steps: int, patience: int | None) -> bool:
    """Return whether the env steps are done or the patience is used up.

    Total env steps and patience are those of the configuration.
    """
    stagnates = patience and progress.evaluations_since_best >= patience
    return progress.env_steps >= total_env_steps or bool(stagnates)
