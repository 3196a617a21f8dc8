"""Encoders: from decoded frames or vectors to features.

A new encoder is one class here with a constructor `(config, input_shape)`, an attribute
`num_features` and a `forward` to (B, num_features), and one line in `ENCODERS`. One that is faster
with images in blocks of pixels, as `Decoder` cuts them, says so by the attribute `block`.

Axes: B batch, P planes, H, W screen, D numbers of a vector, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PerceptionError(ValueError):
    """An encoder cannot see what it is shown: the message is one line that says what would work."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Layer sizes of all encoders.

    Raises:
        ValueError: If a size is not positive.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the MLP that encodes vectors."""
    conv_channels: tuple[int, int, int] = (32, 64, 64)
    """Channels of the Nature CNN's three convolutions, of 8x8, 4x4 and 3x3 pixels."""
    conv_strides: tuple[int, int, int] = (4, 2, 1)
    """Their strides."""
    impala_channels: tuple[int, ...] = (16, 32, 32)
    """Channels of the IMPALA ResNet's stages, each halving the image."""
    features: int = 512
    """Width of the layer after an image encoder's convolutions."""

    def __post_init__(self) -> None:
        """Check sizes."""
        sizes = (*self.hidden_sizes, *self.conv_channels, *self.conv_strides)
        sizes += (*self.impala_channels, self.features)
        if min(sizes) < 1:
            raise ValueError(f"layer sizes must be positive: {self}")


def orthogonal(layer: nn.Module, gain: float = sqrt(2.0)) -> nn.Module:
    """Initialise weights orthogonally and biases with zero (Engstrom et al. 2020, section 4).

    Args:
        layer: a linear or convolution layer.
        gain: scale of the weights; sqrt(2) keeps the variance through a ReLU.
    """
    assert isinstance(layer.weight, Tensor)
    nn.init.orthogonal_(layer.weight, gain)
    if isinstance(layer.bias, Tensor):
        nn.init.zeros_(layer.bias)
    return layer


class Encoder(nn.Module):
    """What every encoder is: a module that also says how wide its features are."""

    num_features: int
    block: int = 1


class MLP(Encoder):
    """Tanh layers, (B, ...) float32 to (B, F); images are flattened."""

    def __init__(self, config: EncoderConfig, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        size = int(torch.Size(input_shape).numel())
        layers: list[nn.Module] = [nn.Flatten()]
        for width in config.hidden_sizes:
            layers += [orthogonal(nn.Linear(size, width)), nn.Tanh()]
            size = width
        self.layers = nn.Sequential(*layers)
        self.num_features = size

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (B, ...) float32 to (B, F) float32."""
        features: Tensor = self.layers(inputs)
        return features


class BlockConv2d(nn.Conv2d):
    """A convolution that also takes images in blocks of s x s pixels, where s is its stride.

    It computes the same. On blocks it has no stride and many planes instead of few, which takes
    processors and GPUs half the time; the kernel must be a multiple of the stride, without padding.
    """

    _planes: int | None = None  # of the blocks seen last
    _kept: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve (B, P, H, W), or blocks of it as `Decoder` makes them."""
        if inputs.shape[1] == self.in_channels:
            whole: Tensor = super().forward(inputs)
            return whole
        self._planes = inputs.shape[1]
        weight = self._weight_on_blocks(self._planes) if self._kept is None else self._kept
        return F.conv2d(inputs, weight, self.bias)

    @torch.no_grad()
    def keep_weight(self) -> None:
        """Rearrange the weight now, and no more until the next call: for weights that stand still.

        The rearranged weight stays where it is in memory, where a captured CUDA graph reads it.
        """
        if self._planes is None:
            return
        weight = self._weight_on_blocks(self._planes)
        self._kept = weight if self._kept is None else self._kept.copy_(weight)

    def _weight_on_blocks(self, planes: int) -> Tensor:
        stride, size = self.stride[0], self.kernel_size[0] // self.stride[0]
        # As many planes of zeros as there are palette channels, each after three colours.
        zeros = planes // stride**2 - self.in_channels
        colours, others = self.weight.split((3 * zeros, self.in_channels - 3 * zeros), 1)
        colours = F.pad(colours.unflatten(1, (zeros, 3)), (0, 0, 0, 0, 0, 1)).flatten(1, 2)
        weight = torch.cat([colours, others], 1)
        weight = weight.unflatten(3, (size, stride)).unflatten(2, (size, stride))
        on_blocks: Tensor = weight.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
        return on_blocks  # (O, planes, size, size)


class NatureCNN(Encoder):
    """Three convolutions and a layer, (B, P, H, W) to (B, F) (Mnih et al. 2015, Methods)."""

    def __init__(self, config: EncoderConfig, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        (a, b, c), strides = config.conv_channels, config.conv_strides
        self.block = strides[0] if 8 % strides[0] == 0 else 1
        self.layers = nn.Sequential(
            *(orthogonal(BlockConv2d(input_shape[0], a, 8, stride=strides[0])), nn.ReLU()),
            *(orthogonal(nn.Conv2d(a, b, 4, stride=strides[1])), nn.ReLU()),
            *(orthogonal(nn.Conv2d(b, c, 3, stride=strides[2])), nn.ReLU()),
            nn.Flatten(),
        )
        size = _output_size(self.layers, input_shape, 8 + strides[0] * (3 + 2 * strides[1]))
        self.layers.extend([orthogonal(nn.Linear(size, config.features)), nn.ReLU()])
        self.num_features = config.features

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (B, P, H, W) float32 to (B, F) float32."""
        features: Tensor = self.layers(inputs)
        return features


class _Residual(nn.Module):
    """Two convolutions around which the input is carried unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)),
            *(nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        residual: Tensor = self.layers(inputs)
        return inputs + residual


class ImpalaResNet(Encoder):
    """Stages of convolution, halving and two residual blocks (Espeholt et al. 2018, figure 3)."""

    def __init__(self, config: EncoderConfig, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        planes = input_shape[0]
        layers: list[nn.Module] = []
        for channels in config.impala_channels:
            layers += [nn.Conv2d(planes, channels, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
            layers += [_Residual(channels), _Residual(channels)]
            planes = channels
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten())
        size = _output_size(self.layers, input_shape, smallest=8)
        self.layers.extend([orthogonal(nn.Linear(size, config.features)), nn.ReLU()])
        self.num_features = config.features

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (B, P, H, W) float32 to (B, F) float32."""
        features: Tensor = self.layers(inputs)
        return features


def _output_size(layers: nn.Module, input_shape: tuple[int, ...], smallest: int) -> int:
    """Find the width of what convolutions put out, by running them once."""
    if min(input_shape[1:]) < smallest:
        height, width = input_shape[1:]
        raise PerceptionError(
            f"a screen of {height}x{width} is too small for this encoder, which needs "
            f"{smallest}x{smallest}; raise --height and --width or use --encoder mlp"
        )
    with torch.no_grad():
        return int(layers(torch.zeros(1, *input_shape)).shape[1])


ENCODERS: dict[str, Callable[[EncoderConfig, tuple[int, ...]], Encoder]] = {
    "nature": NatureCNN,
    "impala": ImpalaResNet,
    "mlp": MLP,
}
"""Image encoders by name; vectors are always encoded by an MLP."""
