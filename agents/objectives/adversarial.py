"""The same decision for the worst images nearby (SA-PPO, Zhang et al. 2020, section 3.2).

An attack changes each pixel by at most `epsilon` so that the policy's actions differ as much as
possible from those for the real images; the loss is this difference. As in the paper, it is the KL
divergence. The paper's steps are those of Langevin dynamics (SGLD); here they are those of
projected gradient ascent from a random start, which is the method of attacks on trained policies.
At the real images the divergence has no gradient, which is why the start is random. With memory,
the images of a whole sequence are changed together, with gradients through the memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.attacks import Pixels, pgd, step_size, uniform_noise
from agents.distributions import Distribution
from agents.objectives.consistency import Consistency, ConsistencyConfig, images_of
from agents.objectives.objective import check_positive
from agents.policy import Policy
from agents.rollout import Minibatch


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(ConsistencyConfig):
    """Robustness against attacks: the same decision for the worst images nearby."""

    coef: float = 1.0
    """Weight of the loss, relative to the agent's own. 0: the objective is not computed."""
    value_weight: float = 0.0
    """Weight of the squared difference of values, relative to the KL divergence of actions."""
    epsilon: float = 1.0
    """Largest change of a pixel, in 255ths of the brightest one."""
    steps: int = 1
    """Steps of the attack; each costs a pass through the network, forward and backward."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_positive(self, "epsilon", "steps")


class Adversarial(Consistency[AdversarialConfig]):
    """The same decision for the images that an attack finds within `epsilon`."""

    name = "adversarial"

    def changed(self, policy: Policy, clean: Distribution, batch: Minibatch) -> dict[str, Tensor]:
        """See `Consistency.changed`."""
        images, epsilon = images_of(policy, batch), self.config.epsilon / 255.0

        def divergence(pixels: Pixels) -> Tensor:
            output = policy({**batch.obs, **pixels}, batch.memory_state, batch.episode_starts)
            return clean.kl(output.distribution)

        return pgd(
            divergence,
            images,
            epsilon,
            steps=self.config.steps,
            size=step_size(epsilon, self.config.steps),
            start=uniform_noise(images, epsilon, torch.default_generator),
        )
