"""A plan of a search whose trials train nothing."""

from __future__ import annotations

import numpy as np

from agents.search_space import Choice, Range
from envs import EnvConfig
from evaluation.statistics import summarize
from training.tune.search import Plan

FACTS = {
    "env.env": "CartPole-v1",
    "agent.learning_rate": 0.5,
    "agent.num_epochs": None,
    "seed": 0,
}
START = {"learning_rate": 0.5, "num_epochs": None}
SPACE = {"learning_rate": Range(1e-5, 0.5, log=True), "num_epochs": Choice((None, 1, 2))}


def plan(folder, **changes):
    """Make a plan of a search in `folder`/tune."""
    fields = {
        "facts": FACTS,
        "start": START,
        "space": SPACE,
        "num_trials": 4,
        "env": EnvConfig(env="CartPole-v1"),
        "num_envs": 2,
        "total_env_steps": 100,
        "eval_every": 10,
        "eval_episodes": 4,
        "seed": 0,
    }
    return Plan(folder=folder / "tune", **{**fields, **changes})


def score(value):
    """Make the score of three episodes with the same return."""
    return summarize([np.full(3, value)], 1.0)
