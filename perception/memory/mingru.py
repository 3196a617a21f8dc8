"""minGRU (Feng et al. 2024, "Were RNNs All We Needed?"): a linear recurrence, scanned in parallel.

The gate and the proposed state depend on the input alone, so a step is h = a * h + b with a and b
known in advance, and a whole sequence takes log2(T) operations instead of T.

Axes: T time, N environments, D features in, M features out, S layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception.encoders.encoder import orthogonal
from perception.memory.memory import MAX_LAYERS, Memory
from perception.memory.recurrent import RecurrentConfig

_LONGEST = 64  # Env steps that the slowest units remember at first.


@dataclass(frozen=True, kw_only=True)
class MinGRUConfig(RecurrentConfig):
    """The configuration of minGRU."""

    memory_layers: int = 2
    """Number of layers, each of which sees the memory of the one below."""

    def __post_init__(self) -> None:
        """Check sizes.

        Raises:
            ValueError: If a size is not positive.
        """
        super().__post_init__()
        if not 1 <= self.memory_layers <= MAX_LAYERS:
            raise ValueError(
                f"memory_layers must be between 1 and {MAX_LAYERS}, got {self.memory_layers}"
            )


class MinGRU(Memory):
    """Layers of minGRU; the state is one row for each.

    Weights are orthogonal. The gates' biases make units forget at different speeds, over 1 to 64
    env steps, as many on each scale (after the chrono initialisation of Tallec and Ollivier 2018,
    section 3, in which most units are slow).
    """

    is_recurrent = True

    def __init__(self, config: MinGRUConfig, num_inputs: int) -> None:
        super().__init__(config, num_inputs)
        size = config.memory_size
        sizes = [num_inputs, *[size] * (config.memory_layers - 1)]
        self.gates = nn.ModuleList(orthogonal(nn.Linear(s, size), 1.0) for s in sizes)
        self.proposals = nn.ModuleList(orthogonal(nn.Linear(s, size), 1.0) for s in sizes)
        for gate in self.gates:
            assert isinstance(gate, nn.Linear)
            # A gate of 1 / (1 + n) replaces the state within about n steps: its logit is -log(n).
            nn.init.uniform_(gate.bias, -math.log(_LONGEST), 0.0)
        self.state_shape = (config.memory_layers, size)
        self.num_features = size

    def forward(
        self, features: Tensor, state: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Memory.forward`."""
        keep = (~episode_starts).float()[..., None]
        last = []
        for gate, propose, before in zip(self.gates, self.proposals, state, strict=True):
            assert isinstance(gate, nn.Linear)
            inputs = features.to(gate.weight.dtype)
            update = gate(inputs).float().sigmoid()
            features = scan((1 - update) * keep, update * propose(inputs).float(), before)
            last.append(features[-1])
        return features, torch.stack(last)


def scan(decay: Tensor, inputs: Tensor, state: Tensor) -> Tensor:
    """Return the states of h[t] = decay[t] * h[t - 1] + inputs[t], computed in log2(T) operations.

    A decay of 0 clears the state (Hillis and Steele 1986; Lu et al. 2023, section 3.2, for resets).

    Args:
        decay: (T, N, M) float32, in [0, 1].
        inputs: (T, N, M) float32.
        state: (N, M) float32, before the first step.

    Returns:
        (T, N, M) float32.
    """
    first = torch.addcmul(inputs[0], decay[0], state)
    states = torch.cat((first[None], inputs[1:]))
    reach = 1  # Each state includes the inputs of this many steps.
    while reach < len(decay):
        states = torch.cat(
            (states[:reach], torch.addcmul(states[reach:], decay[reach:], states[:-reach]))
        )
        decay = torch.cat((decay[:reach], decay[reach:] * decay[:-reach]))
        reach *= 2
    return states
