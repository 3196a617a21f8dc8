"""Multi-layer perceptrons: the encoder of vectors, and the simplest encoder of images.

Axes: B batch, D numbers of a vector, P planes, H, W screen, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception.encoders.encoder import Encoder, EncoderConfig, orthogonal


@dataclass(frozen=True, kw_only=True)
class VectorConfig(EncoderConfig):
    """The configuration of the encoder of vectors."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the tanh layers that encode vectors. Empty: vectors are passed on unchanged."""


@dataclass(frozen=True, kw_only=True)
class MLPConfig(EncoderConfig):
    """The configuration of tanh layers on flattened images."""

    mlp_sizes: tuple[int, ...] = (64, 64)
    """Widths of the tanh layers that encode images."""


class MLP(Encoder):
    """Tanh layers that encode vectors or flattened images.

    Args:
        config: widths of the layers.
        input_shape: shape of one input, (D,) or (P, H, W).
    """

    def __init__(self, config: VectorConfig | MLPConfig, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, input_shape)
        widths = config.hidden_sizes if isinstance(config, VectorConfig) else config.mlp_sizes
        size = int(torch.Size(input_shape).numel())
        layers: list[nn.Module] = [nn.Flatten()]
        for width in widths:
            layers += [orthogonal(nn.Linear(size, width)), nn.Tanh()]
            size = width
        self.layers = nn.Sequential(*layers)
        self.num_features = size

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (B, D) or (B, P, H, W) float32 as (B, F) float32."""
        features: Tensor = self.layers(inputs)
        return features
