"""The same decision for changed images: the base of objectives for robustness and augmentation.

The agent's own loss keeps to the images that were really seen: with changed ones, PPO's ratio would
compare two policies on different observations. Beside it, the policy learns to decide about changed
images as it decides about the real ones, which are not changed by this loss (DrAC, Raileanu et al.
2021, equations 4 to 6).

Axes: t and n steps and environments of a minibatch, H, W, C an image, P planes of pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from agents.distributions import Distribution
from agents.objectives.contrastive import randomly_shifted
from agents.objectives.objective import Objective, ObjectiveConfig, check_positive
from agents.objectives.thumbnails import require_images
from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig(ObjectiveConfig):
    """The configuration of an objective about changed images."""

    value_weight: float = 1.0
    """Weight of the squared difference of values, relative to the KL divergence of actions."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not self.value_weight >= 0:
            raise ValueError(f"value_weight must not be negative, got {self.value_weight}")


@dataclass(frozen=True, kw_only=True)
class NoiseConfig(ConsistencyConfig):
    """Random noise on pixels: decisions that do not depend on it."""

    strength: float = 8.0
    """Standard deviation of the noise, in 255ths of the brightest pixel."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_positive(self, "strength")


@dataclass(frozen=True, kw_only=True)
class ShiftConfig(ConsistencyConfig):
    """Random shifts of images: decisions that do not depend on a few pixels."""

    max_shift: int = 4
    """Largest shift in each direction, in pixels; 4 in DrQ."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_positive(self, "max_shift")


ConfigT = TypeVar("ConfigT", bound=ConsistencyConfig)


class Consistency(Objective[ConfigT]):
    """The mean KL divergence between the actions for real and for changed images, and of values.

    Real images determine what is right: no gradient flows through the policy's output for them.
    """

    splittable: ClassVar[bool] = False  # It draws random numbers.
    name: ClassVar[str]

    def __init__(self, policy: Policy, config: ConfigT, target_names: tuple[str, ...]) -> None:
        super().__init__(policy, config, target_names)
        require_images(policy, self.name)

    @abstractmethod
    def changed(self, policy: Policy, clean: Distribution, batch: Minibatch) -> dict[str, Tensor]:
        """Return the images of a minibatch, changed.

        Args:
            policy: the policy.
            clean: its (t, n) distributions for the real images; without gradient.
            batch: the minibatch.

        Returns:
            By name, each (t, n, H, W, C) uint8, or (t, n, H, W, P) pixels.
        """

    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`."""
        with torch.no_grad():
            clean = policy.actor(output.features)
        obs = {**batch.obs, **self.changed(policy, clean, batch)}
        changed = policy(obs, batch.memory_state, batch.episode_starts)
        divergence = clean.kl(changed.distribution).mean()
        value_error = (changed.values - output.values.detach()).square().mean()
        loss = divergence + self.config.value_weight * value_error
        return loss, {"divergence": divergence, "value_error": value_error}


class Noise(Consistency[NoiseConfig]):
    """The same decision with normally distributed noise on every pixel."""

    name = "noise"

    def changed(self, policy: Policy, clean: Distribution, batch: Minibatch) -> dict[str, Tensor]:
        """See `Consistency.changed`."""
        deviation = self.config.strength / 255.0
        return {
            name: (image + deviation * torch.randn(image.shape).to(image.device)).clamp(0.0, 1.0)
            for name, image in images_of(policy, batch).items()
        }


class Shift(Consistency[ShiftConfig]):
    """The same decision for shifted images (DrQ, Kostrikov et al. 2021).

    All images of a sequence are shifted alike, so that what moves in them moves as before.
    """

    name = "shift"

    def changed(self, policy: Policy, clean: Distribution, batch: Minibatch) -> dict[str, Tensor]:
        """See `Consistency.changed`."""
        shifted = {}
        for name in policy.perception.image_names:
            images = batch.obs[name].movedim(0, 3)  # (n, H, W, t, C)
            moved = randomly_shifted(images.flatten(3), self.config.max_shift)
            shifted[name] = moved.view(images.shape).movedim(3, 0)
        return shifted


def images_of(policy: Policy, batch: Minibatch) -> dict[str, Tensor]:
    """Return the images of a minibatch as pixels, by name, each (t, n, H, W, P) float32."""
    pixels = policy.perception.pixels(batch.obs)
    return {name: pixels[name] for name in policy.perception.image_names}
