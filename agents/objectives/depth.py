"""Predicting depth from features, as a class for each cell of a coarse map (Mirowski et al. 2017).

The paper's section 3.2: to predict depth, features must hold the geometry of what is in front of
the agent, and classes are learned better than numbers. The targets are computed from the engine's
depth buffer, see `envs.doom.sight`, in some of the environments.

Axes: t and n steps and environments of a minibatch, T rollout length, N environments, D cells of
the depth map, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.errors import AgentError
from agents.objectives.objective import ObjectiveConfig, check_positive
from agents.objectives.reported import ReportedObjective, mean_reported
from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch
from perception.encoders import orthogonal

NUM_BANDS = 8
"""Classes of depth, as in the paper."""
_PREFIX = "DEPTH_"


@dataclass(frozen=True, kw_only=True)
class DepthConfig(ObjectiveConfig):
    """Predicting depth: features of the geometry of what is in front."""

    hidden_size: int = 128
    """Width of the head's hidden layer."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_positive(self, "hidden_size")


class Depth(ReportedObjective[DepthConfig]):
    """Predicts the band of depth of each cell; the loss is the mean cross-entropy, in nats.

    The metric `accuracy` is the share of cells, in [0, 1], that are predicted correctly.
    """

    def __init__(self, policy: Policy, config: DepthConfig, target_names: tuple[str, ...]) -> None:
        super().__init__(policy, config, target_names)
        self.targets = tuple(name for name in target_names if name.startswith(_PREFIX))
        if not self.targets:
            raise AgentError(
                "the objective depth needs depth, which the environment does not report; add "
                "--depth-targets in Doom, or remove the objective"
            )
        self.head = nn.Sequential(
            orthogonal(nn.Linear(policy.perception.num_features, config.hidden_size), 2**0.5),
            nn.ReLU(),
            orthogonal(nn.Linear(config.hidden_size, len(self.targets) * NUM_BANDS), 0.01),
        )
        self.to(policy.device)

    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`."""
        targets = torch.stack([batch.targets[name] for name in self.targets], dim=-1)  # (t, n, D)
        bands = targets.long().clamp(min=0)
        logits = self.head(output.features).unflatten(-1, (len(self.targets), NUM_BANDS))
        losses = F.cross_entropy(logits.flatten(0, 2), bands.flatten(), reduction="none")
        right = (logits.argmax(-1) == bands).float()
        loss, accuracy = (
            mean_reported(values.mean(-1), targets[..., 0], self.share)
            for values in (losses.view_as(right), right)
        )
        return loss, {"accuracy": accuracy}
