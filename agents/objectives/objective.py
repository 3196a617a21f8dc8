"""The interface of objectives: losses that are added to an agent's own.

Axes: T rollout length, N environments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from torch import Tensor, nn

from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch, Rollout

GROUP = "objectives/"
"""What the names of all metrics of objectives start with."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The configuration of an objective; each has its own subclass.

    Raises:
        ValueError: If the coefficient is negative.
    """

    coef: float = 0.1
    """Weight of the loss, relative to the agent's own. 0: the objective is not computed."""
    coef_schedule: Literal["constant", "linear"] = "constant"
    """Whether the weight stays the same, or falls linearly to zero over the training."""

    def __post_init__(self) -> None:
        """Check the coefficient."""
        if not self.coef >= 0:
            raise ValueError(f"coef must not be negative, got {self.coef}")

    def scale(self, done: float) -> float:
        """Return the factor on the weight, in [0, 1].

        Args:
            done: the share of the training that is done, in [0, 1].
        """
        return 1.0 - done if self.coef_schedule == "linear" else 1.0


def check_positive(config: ObjectiveConfig, *names: str) -> None:
    """Check that fields of a configuration are greater than 0.

    Raises:
        ValueError: If one is not.
    """
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be greater than 0, got {getattr(config, name)}")


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
        uses_output: whether `loss` uses the policy's output for the minibatch. One that is not
            splittable and only encodes images of its own sets it to False, and may get None, which
            saves a pass through the policy.
        sequence_length: the number of consecutive env steps that `loss` compares. If it is more
            than 1, minibatches consist of whole sequences, (T, n), also without memory.
        targets: names of the numeric infos that `loss` needs in `Minibatch.targets`.
        averaged: names of buffers that `observe` computes as means over environments; if several
            processes learn together, they become the means over all of them.
        of_envs: names of buffers with an element for each environment, which `set_num_envs` makes.

    Raises:
        AgentError: If the environments or the policy do not support the objective.
    """

    splittable: ClassVar[bool] = True
    uses_output: ClassVar[bool] = True
    averaged: ClassVar[tuple[str, ...]] = ()
    of_envs: ClassVar[tuple[str, ...]] = ()
    sequence_length: int = 1
    targets: tuple[str, ...] = ()

    def __init__(self, policy: Policy, config: ConfigT, target_names: tuple[str, ...]) -> None:
        super().__init__()
        self.config = config

    def set_num_envs(self, num_envs: int) -> None:
        """Make what depends on the number of environments; called once, by the agent.

        Args:
            num_envs: N.
        """

    def observe(self, policy: Policy, rollout: Rollout) -> None:
        """Update statistics; called before each update with a rollout.

        Args:
            policy: the policy.
            rollout: the rollout.
        """

    def targets_of(self, policy: Policy, rollout: Rollout) -> dict[str, Tensor]:
        """Return further targets of a rollout, by names that begin with the objective's own.

        It is called once, before each update with a rollout, in the order of rollouts.

        Args:
            policy: the policy.
            rollout: the rollout.

        Returns:
            (T, N, ...) each; they are in `Minibatch.targets` when `loss` is called.
        """
        return {}

    def advantages(self, rollout: Rollout) -> Tensor | None:
        """Return advantages to add to those of the environments' rewards, for learning only.

        It is called once, before each update with a rollout. The agent multiplies them by the
        factor of the schedule; `rollout.rewards` and the critic's targets stay as they are.

        Args:
            rollout: the rollout, with the targets that `targets_of` returned.

        Returns:
            (T, N) float32, or None if there are none.
        """
        return None

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


def add_losses(
    loss: Tensor,
    metrics: dict[str, Tensor],
    objectives: Mapping[str, Objective[Any]],
    coefs: Mapping[str, float],
    policy: Policy,
    output: PolicyOutput,
    batch: Minibatch,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a loss with weighted objectives added, and metrics with those of objectives added.

    Args:
        loss: a scalar.
        metrics: metrics.
        objectives: the objectives by name.
        coefs: their weights by name.
        policy: the policy.
        output: the policy's output for the minibatch.
        batch: the minibatch.
    """
    for name, objective in objectives.items():
        more, its_metrics = objective.loss(policy, output, batch)
        loss = loss + coefs[name] * more
        its_metrics = {"loss": more, **its_metrics}
        metrics = metrics | {f"{GROUP}{name}/{key}": each for key, each in its_metrics.items()}
    return loss, metrics
