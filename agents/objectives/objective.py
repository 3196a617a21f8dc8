"""The interface of objectives: losses that are added to an agent's own.

Axes: T rollout length, N environments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from torch import Tensor, nn

from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The configuration of an objective; each has its own subclass.

    Raises:
        ValueError: If the coefficient is negative.
    """

    coef: float = 0.1
    """Weight of the loss, relative to the agent's own."""

    def __post_init__(self) -> None:
        """Check the coefficient."""
        if not self.coef >= 0:
            raise ValueError(f"coef must not be negative, got {self.coef}")


ConfigT = TypeVar("ConfigT", bound=ObjectiveConfig)


class Objective(nn.Module, ABC, Generic[ConfigT]):
    """A loss that is multiplied by `coef` and added to an agent's own, for every minibatch.

    The parameters of an objective, its heads, are trained together with the policy and saved in
    checkpoints. They do not belong to the policy and are not saved in policy files.

    Args:
        policy: the policy to train, already on its device.
        config: the configuration.
        target_names: names of the numeric infos that the environments report.

    Attributes:
        config: as above.
        splittable: whether the loss of a minibatch is the mean of the losses of its parts, weighted
            by their sizes. If it is not, `loss` is called with whole minibatches, so that the
            gradient does not depend on the number of CPU threads.
        targets: names of the numeric infos that `loss` needs in `Minibatch.targets`.

    Raises:
        AgentError: If the environments or the policy do not support the objective.
    """

    splittable: ClassVar[bool] = True
    targets: tuple[str, ...] = ()

    def __init__(self, policy: Policy, config: ConfigT, target_names: tuple[str, ...]) -> None:
        super().__init__()
        self.config = config

    def observe(self, targets: dict[str, Tensor]) -> None:
        """Update statistics of the targets; called before each update with a rollout.

        Args:
            targets: by name, each (T, N) float32, see `Rollout.targets`.
        """

    @abstractmethod
    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the mean loss of a minibatch, or of a part of one if `splittable`.

        Args:
            policy: the policy.
            output: the policy's output for the minibatch.
            batch: the minibatch.

        Returns:
            The loss, a scalar that is not multiplied by `coef`, and metrics to log, scalars.
        """
