"""Predicting which kinds of objects are visible where (Lample and Chaplot 2017, "game features").

The paper predicts whether a kind is visible at all. In many scenarios something always is, so here
it is predicted for strips of the screen, from left to right: features must then hold where to aim.
The targets are computed from the engine's labels buffer, see `envs.doom.sight`, in some of the
environments.

Axes: t and n steps and environments of a minibatch, T rollout length, N environments, K targets,
one for each kind and strip, F features.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.errors import AgentError
from agents.objectives.objective import ObjectiveConfig
from agents.objectives.reported import LEAST_SHARE, ReportedObjective, mean_reported
from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch, Rollout
from perception.encoders import orthogonal

_OF_A_STRIP = "_IN_VIEW_"  # Between the kind and the number of the strip.
_LEAST_ENTROPY = 0.01  # In nats; the unit of the loss where almost nothing is ever seen.


@dataclass(frozen=True, kw_only=True)
class LabelsConfig(ObjectiveConfig):
    """Predicting which kinds of objects are where on the screen: features of where to aim."""

    coef: float = 0.5
    """Weight of the loss, relative to the agent's own. 0: the objective is not computed."""


class Labels(ReportedObjective[LabelsConfig]):
    """Predicts in which strips kinds of objects are; the loss is a binary cross-entropy.

    Most strips are empty, and little is lost by always saying so. The loss is therefore divided by
    what a prediction costs that knows how often each strip has each kind, but not the image. Below
    1, something is seen.

    The metrics are, for each kind, the share of strips, in [0, 1], in which its presence is
    predicted correctly.

    Attributes:
        present: (K,) float32, the share of the last rollout's env steps for which each target was
            reported to be present; divided by `share`, it is how often it was.
    """

    averaged = (*ReportedObjective.averaged, "present")
    present: Tensor

    def __init__(self, policy: Policy, config: LabelsConfig, target_names: tuple[str, ...]) -> None:
        super().__init__(policy, config, target_names)
        self.targets = tuple(name for name in target_names if _OF_A_STRIP in name)
        if not self.targets:
            raise AgentError(
                "the objective labels needs the kinds of visible objects, which the environment "
                "does not report; add --kind-targets in Doom, or remove the objective"
            )
        # The number of strips by kind; the strips of a kind follow each other.
        self.kinds = Counter(name.partition(_OF_A_STRIP)[0].lower() for name in self.targets)
        self.head = orthogonal(nn.Linear(policy.perception.num_features, len(self.targets)), 0.01)
        self.register_buffer("present", torch.zeros(len(self.targets)), persistent=False)
        self.to(policy.device)

    def observe(self, policy: Policy, rollout: Rollout) -> None:
        """See `Objective.observe`."""
        super().observe(policy, rollout)
        targets = torch.stack([rollout.targets[name] for name in self.targets], dim=-1)
        self.present = targets.clamp(min=0).mean((0, 1))

    @property
    def frequencies(self) -> Tensor:
        """How often each target was present in the last rollout, (K,) float32 in [0, 1]."""
        often = self.present / self.share.clamp(min=LEAST_SHARE)
        return often.clamp(max=1.0)  # It may be above by rounding.

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
        known = self.frequencies
        entropy = F.binary_cross_entropy(known, known).clamp(min=_LEAST_ENTROPY)
        loss = mean_reported(losses.mean(-1), reported, self.share) / entropy
        by_kind = right.split(list(self.kinds.values()), dim=-1)
        metrics = {
            kind: mean_reported(strips.mean(-1), reported, self.share)
            for kind, strips in zip(self.kinds, by_kind, strict=True)
        }
        return loss, metrics
