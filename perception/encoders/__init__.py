"""Image encoders: they compute features from decoded images.

To add one, write a file with a subclass of `EncoderConfig` and one of `Encoder`, and add a line to
`ENCODERS`.
"""

from __future__ import annotations

from perception.encoders.encoder import Encoder, EncoderConfig, PerceptionError, orthogonal
from perception.encoders.impala import ImpalaConfig, ImpalaResNet
from perception.encoders.mlp import MLP, MLPConfig, VectorConfig
from perception.encoders.nature import BlockConv2d, NatureCNN, NatureConfig

ENCODERS: dict[str, tuple[type[EncoderConfig], type[Encoder]]] = {
    "nature": (NatureConfig, NatureCNN),
    "impala": (ImpalaConfig, ImpalaResNet),
    "mlp": (MLPConfig, MLP),
}
"""Image encoders by name: configuration and class."""

__all__ = [
    "ENCODERS",
    "MLP",
    "BlockConv2d",
    "Encoder",
    "EncoderConfig",
    "ImpalaConfig",
    "ImpalaResNet",
    "MLPConfig",
    "NatureCNN",
    "NatureConfig",
    "PerceptionError",
    "VectorConfig",
    "orthogonal",
]
