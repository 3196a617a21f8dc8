"""The residual network of IMPALA (Espeholt et al. 2018, figure 3).

Axes: B batch, P planes, H, W screen, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from perception.encoders.encoder import Encoder, EncoderConfig, orthogonal, output_size


@dataclass(frozen=True, kw_only=True)
class ImpalaConfig(EncoderConfig):
    """The configuration of IMPALA's residual network."""

    impala_channels: tuple[int, ...] = (16, 32, 32)
    """Channels of the stages, each of which halves the image."""
    features: int = 512
    """Width of the layer after the convolutions."""


class _Residual(nn.Module):
    """Two convolutions whose output is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        residual: Tensor = self.layers(inputs)
        return inputs + residual


class ImpalaResNet(Encoder):
    """Stages, each a convolution, a pooling layer that halves the image, and two residual blocks.

    A fully connected layer follows.
    """

    def __init__(self, config: ImpalaConfig, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, input_shape)
        planes = input_shape[0]
        layers: list[nn.Module] = []
        for channels in config.impala_channels:
            layers += [nn.Conv2d(planes, channels, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
            layers += [_Residual(channels), _Residual(channels)]
            planes = channels
        self.layers = nn.Sequential(*layers, nn.ReLU(), *self.join())
        size = output_size(self.layers, input_shape, smallest=8)
        self.layers.extend([orthogonal(nn.Linear(size, config.features)), nn.ReLU()])
        self.num_features = config.features

    def join(self) -> list[nn.Module]:
        """Return the layers that turn maps, (B, C, h, w), into vectors, (B, C * h * w)."""
        return [nn.Flatten()]

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (B, P, H, W) float32 as (B, F) float32."""
        features: Tensor = self.layers(inputs)
        return features
