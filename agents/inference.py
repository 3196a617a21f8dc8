"""The copy of a policy that plays while, or before, the policy itself learns.

Axes: as in `agents.policy`.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from agents.policy import Decision, Obs, Policy


class InferencePolicy:
    """Acts as a policy does, with the weights it had when they were last taken.

    Its modules hold their weights at the precision they compute with, so that casting them is paid
    once a rollout instead of once a step.

    Args:
        policy: whose weights are taken.
    """

    def __init__(self, policy: Policy) -> None:
        self._copy = copy.deepcopy(policy).requires_grad_(requires_grad=False)
        perception = self._copy.perception
        for module in perception.heavy_modules:
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.dtype == torch.float32:  # Statistics are kept in float64.
                    tensor.data = tensor.data.to(perception.precision)
        perception.precision = torch.float32  # What is left needs no casting.
        self._theirs = list(policy.state_dict().values())
        self._mine = list(self._copy.state_dict().values())

    @property
    def device(self) -> torch.device:
        """Where the copy is."""
        return self._copy.device

    def take_weights(self) -> None:
        """Become what the policy is now."""
        for mine, theirs in zip(self._mine, self._theirs, strict=True):
            mine.copy_(theirs)

    def initial_state(self, num_envs: int) -> Tensor:
        """See `Policy.initial_state`."""
        return self._copy.initial_state(num_envs)

    def act(
        self, obs: Obs, memory_state: Tensor, episode_starts: Tensor, draws: Tensor | None
    ) -> Decision:
        """See `Policy.act`."""
        return self._copy.act(obs, memory_state, episode_starts, draws)

    def value(self, obs: Obs, memory_state: Tensor, episode_starts: Tensor) -> Tensor:
        """See `Policy.value`."""
        return self._copy.value(obs, memory_state, episode_starts)
