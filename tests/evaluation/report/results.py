"""Results of made-up returns."""

from __future__ import annotations

import numpy as np

from envs import EnvConfig
from evaluation.compare import Comparison, Result, rank
from evaluation.protocol import Protocol
from evaluation.statistics import summarize


def player(name: str, *returns, mode: str = "sampled") -> Result:
    """Make a result from the returns of each training seed."""
    strata = [np.array(of_seed, np.float64) for of_seed in returns]
    return Result(
        entry=name,
        mode=mode,
        contestants=(),
        returns=strata,
        score=summarize(strata, 1.0),
        env_steps_per_s=1.0,
    )


def agent(name: str, num_seeds: int, mean: float) -> Result:
    """Make a result of an agent whose seeds differ little."""
    rng = np.random.default_rng(num_seeds)
    means = mean + 0.1 * rng.normal(size=(num_seeds, 1))
    return player(name, *(means + rng.normal(size=(num_seeds, 50))))


RANDOM = player("random", np.arange(50.0) - 60, mode="")


def compared(*players: Result) -> Comparison:
    """Compare results."""
    return rank(EnvConfig(env="CartPole-v1"), Protocol(), players)
