"""Predicting which kinds of objects are visible (Lample and Chaplot 2017, "game features").

The targets are computed from the engine's labels buffer, see `envs.doom.sight`, in some of the
environments.

Axes: t and n steps and environments of a minibatch, T rollout length, N environments, K kinds,
F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.errors import AgentError
from agents.objectives.objective import ObjectiveConfig
from agents.objectives.reported import ReportedObjective, mean_reported
from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch
from perception.encoders import orthogonal

_SUFFIX = "_IN_VIEW"
_ENEMY = "ENEMY_IN_VIEW"  # Reported by every environment, for the objective `variables`.


@dataclass(frozen=True, kw_only=True)
class LabelsConfig(ObjectiveConfig):
    """The configuration of the prediction of visible kinds."""


class Labels(ReportedObjective[LabelsConfig]):
    """Predicts the presence of K kinds of objects; the loss is the mean binary cross-entropy.

    The metrics are, for each kind, the share of env steps, in [0, 1], in which its presence is
    predicted correctly.
    """

    def __init__(self, policy: Policy, config: LabelsConfig, target_names: tuple[str, ...]) -> None:
        super().__init__(policy, config, target_names)
        self.targets = tuple(n for n in target_names if n.endswith(_SUFFIX) and n != _ENEMY)
        if not self.targets:
            raise AgentError(
                "the objective labels needs the kinds of visible objects, which the environment "
                "does not report; add --kind-targets in Doom, or remove the objective"
            )
        self.head = orthogonal(nn.Linear(policy.perception.num_features, len(self.targets)), 0.01)
        self.to(policy.device)

    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`."""
        targets = torch.stack([batch.targets[name] for name in self.targets], dim=-1)  # (t, n, K)
        presence = targets.clamp(min=0)
        logits = self.head(output.features)
        losses = F.binary_cross_entropy_with_logits(logits, presence, reduction="none")
        right = ((logits > 0) == (presence > 0)).float()
        reported = targets[..., 0]
        loss = mean_reported(losses.mean(-1), reported, self.share)
        metrics = {
            name.removesuffix(_SUFFIX).lower(): mean_reported(right[..., i], reported, self.share)
            for i, name in enumerate(self.targets)
        }
        return loss, metrics
