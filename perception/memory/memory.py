"""The interface of memories, and the memory that remembers nothing.

Axes: T time, N environments, D features in, M features out, S rows of the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MAX_LAYERS = 64
"""Layers of a memory; a stranger's file may ask for any number."""


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """The configuration of a memory; each has its own subclass."""


class Memory(nn.Module):
    """Carries a state from one env step to the next, and clears it where an episode starts.

    Args:
        config: sizes.
        num_inputs: D.

    Attributes:
        is_recurrent: whether there is a state.
        state_shape: (S, M).
        num_features: the number of features out.
    """

    is_recurrent: bool = True
    state_shape: tuple[int, int]
    num_features: int

    def __init__(self, config: Any, num_inputs: int) -> None:
        super().__init__()

    def initial_state(self, num_envs: int) -> Tensor:
        """Return the state at the start of an episode, (S, N, M) float32 zeros."""
        rows, size = self.state_shape
        device = next((p.device for p in self.parameters()), None)
        return torch.zeros(rows, num_envs, size, device=device)

    def forward(
        self, features: Tensor, state: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Process a sequence.

        Args:
            features: (T, N, D) float32.
            state: (S, N, M) float32, the state before the first step.
            episode_starts: (T, N) bool; where true, the state is cleared before that step.

        Returns:
            (T, N, num_features) float32, and the (S, N, M) float32 state after the last step.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class NoMemoryConfig(MemoryConfig):
    """The configuration of no memory."""


class NoMemory(Memory):
    """Returns features unchanged; its state is empty."""

    is_recurrent = False

    def __init__(self, config: NoMemoryConfig, num_inputs: int) -> None:
        super().__init__(config, num_inputs)
        self.num_features = num_inputs
        self.state_shape = (0, 0)

    def forward(
        self, features: Tensor, state: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the features and the state unchanged."""
        return features, state
