"""The convolutional network of DQN (Mnih et al. 2015, Methods).

Axes: B batch, P planes, H, W screen, F features, O output channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.encoders.encoder import Encoder, EncoderConfig, orthogonal, output_size


@dataclass(frozen=True, kw_only=True)
class NatureConfig(EncoderConfig):
    """The configuration of the Nature CNN."""

    conv_channels: tuple[int, int, int] = (32, 64, 64)
    """Channels of the three convolutions, of 8x8, 4x4 and 3x3 pixels."""
    conv_strides: tuple[int, int, int] = (4, 2, 1)
    """Strides of the convolutions."""
    features: int = 512
    """Width of the layer after the convolutions."""


class BlockConv2d(nn.Conv2d):
    """A convolution that also accepts images as blocks of s x s pixels, where s is its stride.

    The result is the same. On blocks, the convolution has stride 1 and many input planes instead of
    few, which takes half the time on CPUs and GPUs. The kernel size must be a multiple of the
    stride, and padding is not supported.
    """

    _planes: int | None = None  # The number of planes of the last blocks.
    _kept: Tensor | None = None  # The rearranged weight, if `keep_weight` was called.

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve images.

        Args:
            inputs: (B, P, H, W) floating point, or blocks of such images as `Decoder` returns them.

        Returns:
            (B, O, H', W'), in the dtype of the inputs.
        """
        if inputs.shape[1] == self.in_channels:
            whole: Tensor = super().forward(inputs)
            return whole
        self._planes = inputs.shape[1]
        weight = self._weight_on_blocks(self._planes) if self._kept is None else self._kept
        return F.conv2d(inputs, weight, self.bias)

    @torch.no_grad()
    def keep_weight(self) -> None:
        """Rearrange the weight for blocks and keep the result until the next call.

        Without this, each forward pass on blocks rearranges the weight. The result keeps its memory
        address from call to call, because a captured CUDA graph reads it there. Before the first
        forward pass on blocks, this does nothing.
        """
        if self._planes is None:
            return
        weight = self._weight_on_blocks(self._planes)
        # In the format of `Decoder`'s blocks, so that no convolution converts it.
        weight = weight.contiguous(memory_format=torch.channels_last)
        self._kept = weight if self._kept is None else self._kept.copy_(weight)

    def _weight_on_blocks(self, planes: int) -> Tensor:
        """Return the weight for blocks with a number of planes, (O, planes, size, size)."""
        stride, size = self.stride[0], self.kernel_size[0] // self.stride[0]
        # `Decoder` adds a plane of zeros after the three colours of each palette channel.
        zeros = planes // stride**2 - self.in_channels
        colours, others = self.weight.split((3 * zeros, self.in_channels - 3 * zeros), 1)
        colours = F.pad(colours.unflatten(1, (zeros, 3)), (0, 0, 0, 0, 0, 1)).flatten(1, 2)
        weight = torch.cat([colours, others], 1)
        weight = weight.unflatten(3, (size, stride)).unflatten(2, (size, stride))
        on_blocks: Tensor = weight.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
        return on_blocks


class NatureCNN(Encoder):
    """Three convolutions and a fully connected layer."""

    def __init__(self, config: NatureConfig, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, input_shape)
        (a, b, c), strides = config.conv_channels, config.conv_strides
        self.block = strides[0] if 8 % strides[0] == 0 else 1
        self.layers = nn.Sequential(
            orthogonal(BlockConv2d(input_shape[0], a, 8, stride=strides[0])),
            nn.ReLU(),
            orthogonal(nn.Conv2d(a, b, 4, stride=strides[1])),
            nn.ReLU(),
            orthogonal(nn.Conv2d(b, c, 3, stride=strides[2])),
            nn.ReLU(),
            nn.Flatten(),
        )
        smallest = 8 + strides[0] * (3 + 2 * strides[1])
        size = output_size(self.layers, input_shape, smallest)
        self.layers.extend([orthogonal(nn.Linear(size, config.features)), nn.ReLU()])
        self.num_features = config.features

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (B, P, H, W) float32 as (B, F) float32."""
        features: Tensor = self.layers(inputs)
        return features
