"""Losses of targets that only some of the environments report, because reporting them takes time.

Axes: t and n steps and environments of a minibatch, T rollout length, N environments.
"""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

import torch
from torch import Tensor

from agents.objectives.objective import ConfigT, Objective
from agents.policy import Policy
from agents.rollout import Rollout

NOT_REPORTED = -1.0
"""The value of these targets in all other environments."""
LEAST_SHARE = 1e-9  # Divided by where nothing is reported and the sum is 0.


def share_reported(target: Tensor) -> Tensor:
    """Return the share of a rollout's env steps for which a target is reported, a scalar in [0, 1].

    Args:
        target: (T, N) float32.
    """
    return (target != NOT_REPORTED).float().mean()


def mean_reported(values: Tensor, target: Tensor, share: Tensor) -> Tensor:
    """Return the mean of values over the env steps of a minibatch with targets, a scalar.

    The sum is divided by the number of targets that are expected in a minibatch of this size, not
    by the number in this one. So every target has the same weight, and a minibatch may be split.

    Args:
        values: (t, n) float32.
        target: (t, n) float32, one of the targets; where it is not reported, values do not count.
        share: a scalar, the share of the whole rollout's env steps for which it is reported.
    """
    is_reported = target != NOT_REPORTED
    return values.where(is_reported, 0.0).sum() / (values.numel() * share.clamp(min=LEAST_SHARE))


class ReportedObjective(Objective[ConfigT], ABC):
    """An objective whose targets are reported together, by some of the environments.

    Attributes:
        share: the share of the last rollout's env steps for which they are, a scalar.
    """

    averaged: ClassVar[tuple[str, ...]] = ("share",)
    share: Tensor

    def __init__(self, policy: Policy, config: ConfigT, target_names: tuple[str, ...]) -> None:
        super().__init__(policy, config, target_names)
        self.register_buffer("share", torch.ones(()), persistent=False)

    def observe(self, policy: Policy, rollout: Rollout) -> None:
        """See `Objective.observe`."""
        self.share = share_reported(rollout.targets[self.targets[0]])
