"""Predicting the next image from features and action (Oh et al. 2015, "Action-Conditional Video").

Features from which the consequence of an action can be predicted contain what moves, and what the
agent controls. Unlike in the paper, images are small, only one step ahead is predicted, and of it
the change, because most of an image stays as it is.

Axes: t and n steps and environments of a minibatch, F features, D numbers of all thumbnails.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agents.objectives.objective import Objective, ObjectiveConfig, check_positive
from agents.objectives.sequences import (
    encoded_actions,
    mean_where,
    num_action_inputs,
    same_episode,
    sample_pairs,
)
from agents.objectives.thumbnails import Thumbnails, require_images
from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch, Rollout
from perception.encoders import orthogonal
from perception.normalization import RunningMeanStd

_LEAST_CHANGE = 1e-6  # Of squared numbers in [0, 1], where no image changes.


@dataclass(frozen=True, kw_only=True)
class NextFrameConfig(ObjectiveConfig):
    """Predicting the next image: features of what moves, and of what the actions change."""

    coef: float = 0.2
    """Weight of the loss, relative to the agent's own. 0: the objective is not computed."""
    cell_size: int = 4
    """Side of the squares whose mean colours are predicted, in pixels."""
    hidden_size: int = 256
    """Width of the layer between features and image."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_positive(self, "cell_size", "hidden_size")


class NextFrame(Objective[NextFrameConfig]):
    """Predicts how a thumbnail changes; the loss is the squared error in units of `changes.mean`.

    The last step of an episode and that of a rollout have no next image. `repeat` is the loss of
    predicting that nothing changes, about 1.

    Attributes:
        changes: the statistics of squared changes of thumbnails, whose numbers are in [0, 1].
    """

    sequence_length = 2

    def __init__(
        self, policy: Policy, config: NextFrameConfig, target_names: tuple[str, ...]
    ) -> None:
        super().__init__(policy, config, target_names)
        require_images(policy, "next_frame")
        self.thumbnails = Thumbnails(policy, config.cell_size)
        inputs = policy.perception.num_features + num_action_inputs(policy.action_space)
        self.head = nn.Sequential(
            orthogonal(nn.Linear(inputs, config.hidden_size)),
            nn.ReLU(),
            orthogonal(nn.Linear(config.hidden_size, self.thumbnails.size), 0.01),
        )
        self.changes = RunningMeanStd(1)
        self.to(policy.device)

    @torch.no_grad()
    def observe(self, policy: Policy, rollout: Rollout) -> None:
        """See `Objective.observe`."""
        pairs, same = sample_pairs(rollout)
        before, after = self.thumbnails.flat(pairs)  # (s, N, D) each
        self.changes.update(((after - before).square().mean(-1) * same).reshape(-1, 1))

    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`."""
        with torch.no_grad():
            images = self.thumbnails.flat(batch.obs)  # (t, n, D)
        num_steps, mask = len(images), same_episode(batch.episode_starts, 1)
        predicted = self.predict(policy, output.features[:-1], batch.actions[:-1])
        scale = self.changes.mean.clamp(min=_LEAST_CHANGE).sqrt().float()
        change = (images[1:] - images[:-1]) / scale
        errors = (predicted - change).square().mean(-1)
        changes = change.square().mean(-1)
        loss = mean_where(errors, mask, num_steps)
        return loss, {"repeat": mean_where(changes, mask, num_steps)}

    def predict(self, policy: Policy, features: Tensor, actions: Tensor) -> Tensor:
        """Return the predicted changes of thumbnails in units of the usual one, (t, n, D) float32.

        Args:
            policy: the policy.
            features: (t, n, F) float32.
            actions: (t, n) or (t, n, A), see `Minibatch`.
        """
        inputs = (features, encoded_actions(policy.action_space, actions))
        predicted: Tensor = self.head(torch.cat(inputs, dim=-1))
        return predicted
