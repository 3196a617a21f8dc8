"""The network of supervised training: perception as agents have it, and a head.

Axes: T time, B examples, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from agents.policy import Specs
from perception import Perception, PerceptionConfig


class Network(nn.Module):
    """Perception, dropout and a head.

    Args:
        specs: parts of an observation by name.
        config: encoders and memory.
        make_head: returns the head for a number of features.
        normalize_obs: whether images are normalised by statistics, see `Perception`.
        dropout: share of the features that are dropped in training (Srivastava et al. 2014).
        precision: precision of the products in image encoders and memory.

    Attributes:
        specs: as above.
        config: as above.
        normalize_obs: as above.
        perception: the perception.
        head: the head.

    Raises:
        PerceptionError: If images are too small for the encoder.
    """

    def __init__(
        self,
        specs: Specs,
        config: PerceptionConfig[Any, Any],
        make_head: Callable[[int], nn.Module],
        *,
        normalize_obs: bool = False,
        dropout: float = 0.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.specs = dict(specs)
        self.config = config
        self.normalize_obs = normalize_obs
        self.perception = Perception(specs, config, normalize_obs, precision)
        self.dropout = nn.Dropout(dropout)
        self.head = make_head(self.perception.num_features)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    def features(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return the features of sequences that begin with the memory cleared.

        Args:
            obs: parts by name, each (T, B, ...).

        Returns:
            (T, B, F) float32, some of them zero in training, by dropout.
        """
        length, count = next(iter(obs.values())).shape[:2]
        starts = torch.zeros(length, count, dtype=torch.bool, device=self.device)
        starts[0] = True
        state = self.perception.memory.initial_state(count).to(self.device)
        features, _ = self.perception(obs, state, starts)
        dropped: Tensor = self.dropout(features)
        return dropped


def build_network(
    specs: Specs,
    config: PerceptionConfig[Any, Any],
    make_head: Callable[[int], nn.Module],
    *,
    device: torch.device | None = None,
    **kwargs: Any,
) -> Network:
    """Return a new `Network` with weights in the fastest memory format.

    Args:
        specs: see `Network`.
        config: see `Network`.
        make_head: see `Network`.
        device: device of its parameters. None: the CPU.
        **kwargs: see `Network`.

    Raises:
        PerceptionError: If images are too small for the encoder.
    """
    network = Network(specs, config, make_head, **kwargs)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in PyTorch's annotations
    return network
