"""Impoola (Trumpp et al. 2025): IMPALA's residual network with global average pooling.

Averages over the last maps replace flattening, so that the number of weights does not depend on the
size of the screen, and a higher resolution helps.

Axes: B batch, P planes, H, W screen, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from perception.encoders.impala import ImpalaConfig, ImpalaResNet


@dataclass(frozen=True, kw_only=True)
class ImpoolaConfig(ImpalaConfig):
    """The configuration of IMPALA's residual network with global average pooling."""


class ImpoolaResNet(ImpalaResNet):
    """IMPALA's stages, the average of each of the last maps, and a fully connected layer."""

    def join(self) -> list[nn.Module]:
        """Return the layers that turn maps, (B, C, h, w), into vectors, (B, C)."""
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
