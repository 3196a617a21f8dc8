"""Image encoders: they compute features from decoded images.

To add one, write a file with a subclass of `EncoderConfig` and one of `Encoder`, and add a line to
`ENCODERS`.
"""

from __future__ import annotations

from perception.encoders.attention import AttentionConfig, VisionTransformer
from perception.encoders.encoder import Encoder, EncoderConfig, PerceptionError, orthogonal
from perception.encoders.impala import ImpalaConfig, ImpalaResNet
from perception.encoders.impoola import ImpoolaConfig, ImpoolaResNet
from perception.encoders.mlp import MLP, MLPConfig, VectorConfig
from perception.encoders.nature import BlockConv2d, NatureCNN, NatureConfig

ENCODERS: dict[str, tuple[type[EncoderConfig], type[Encoder]]] = {
    "nature": (NatureConfig, NatureCNN),
    "impala": (ImpalaConfig, ImpalaResNet),
    "impoola": (ImpoolaConfig, ImpoolaResNet),
    "attention": (AttentionConfig, VisionTransformer),
    "mlp": (MLPConfig, MLP),
}
"""Image encoders by name: configuration and class."""

__all__ = [
    "ENCODERS",
    "MLP",
    "AttentionConfig",
    "BlockConv2d",
    "Encoder",
    "EncoderConfig",
    "ImpalaConfig",
    "ImpalaResNet",
    "ImpoolaConfig",
    "ImpoolaResNet",
    "MLPConfig",
    "NatureCNN",
    "NatureConfig",
    "PerceptionError",
    "VectorConfig",
    "VisionTransformer",
    "orthogonal",
]
