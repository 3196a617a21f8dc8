"""Objectives: auxiliary losses, with which features learn more than the agent's loss teaches.

To add one, write a file with a subclass of `ObjectiveConfig` and one of `Objective`, and add a line
to `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.objectives.adversarial import Adversarial, AdversarialConfig
from agents.objectives.consistency import Noise, NoiseConfig, Shift, ShiftConfig
from agents.objectives.contrastive import Contrastive, ContrastiveConfig
from agents.objectives.depth import Depth, DepthConfig
from agents.objectives.distill import Distill, DistillConfig
from agents.objectives.labels import Labels, LabelsConfig
from agents.objectives.masked import Masked, MaskedConfig
from agents.objectives.next_frame import NextFrame, NextFrameConfig
from agents.objectives.next_latent import NextLatent, NextLatentConfig
from agents.objectives.objective import Objective, ObjectiveConfig
from agents.objectives.pixel_control import PixelControl, PixelControlConfig
from agents.objectives.rnd import RND, RNDConfig
from agents.objectives.variables import Variables, VariablesConfig
from agents.policy import Policy

OBJECTIVES: dict[str, tuple[type[ObjectiveConfig], type[Objective[Any]]]] = {
    "variables": (VariablesConfig, Variables),
    "contrastive": (ContrastiveConfig, Contrastive),
    "next_latent": (NextLatentConfig, NextLatent),
    "next_frame": (NextFrameConfig, NextFrame),
    "masked": (MaskedConfig, Masked),
    "pixel_control": (PixelControlConfig, PixelControl),
    "rnd": (RNDConfig, RND),
    "depth": (DepthConfig, Depth),
    "labels": (LabelsConfig, Labels),
    "distill": (DistillConfig, Distill),
    "adversarial": (AdversarialConfig, Adversarial),
    "noise": (NoiseConfig, Noise),
    "shift": (ShiftConfig, Shift),
}
"""Objectives by name: configuration and class."""


def make_objectives(
    policy: Policy, configs: Mapping[str, ObjectiveConfig], target_names: tuple[str, ...]
) -> dict[str, Objective[Any]]:
    """Return new objectives for a policy, by name.

    Args:
        policy: the policy to train, already on its device.
        configs: configurations, by names in `OBJECTIVES`.
        target_names: names of the numeric infos that the environments report.

    Raises:
        AgentError: If the environments or the policy do not support one of the objectives.
    """
    return {
        name: OBJECTIVES[name][1](policy, config, target_names) for name, config in configs.items()
    }


__all__ = [
    "OBJECTIVES",
    "RND",
    "Adversarial",
    "AdversarialConfig",
    "Contrastive",
    "ContrastiveConfig",
    "Depth",
    "DepthConfig",
    "Distill",
    "DistillConfig",
    "Labels",
    "LabelsConfig",
    "Masked",
    "MaskedConfig",
    "NextFrame",
    "NextFrameConfig",
    "NextLatent",
    "NextLatentConfig",
    "Noise",
    "NoiseConfig",
    "Objective",
    "ObjectiveConfig",
    "PixelControl",
    "PixelControlConfig",
    "RNDConfig",
    "Shift",
    "ShiftConfig",
    "Variables",
    "VariablesConfig",
    "make_objectives",
]
