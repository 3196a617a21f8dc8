"""Decoding what travelled as bytes: palette indices to colours, bytes to numbers, on the device.

Axes: B batch, H, W screen, C channels as observed, P planes after decoding (a palette channel
becomes three).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """An image part of an observation.

    Attributes:
        shape: (H, W, C).
        channels: what each channel is; `palette` ones are indices into the palette, every other
            one is a brightness of 0 to 255. Empty: all are brightnesses.
        palette: 256 RGB colours, needed where a channel is `palette`.
    """

    shape: tuple[int, int, int]
    channels: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        """Check that channels and palette fit."""
        if self.channels and len(self.channels) != self.shape[2]:
            raise ValueError(f"{len(self.channels)} channels are named for shape {self.shape}")
        if "palette" in self.channels and len(self.palette) != 256:
            raise ValueError(f"a palette has 256 colours, not {len(self.palette)}")


@dataclass(frozen=True, kw_only=True)
class VectorSpec:
    """A vector part of an observation, with D numbers."""

    size: int


class Decoder(nn.Module):
    """Decode (B, H, W, C) uint8 images to (B, P, H, W) numbers in [0, 1].

    They have the precision that the layers after them compute with: that of autocast where it is
    on, of the module otherwise. The memory layout of the result is channels-last, which is how the
    bytes lie already and what convolutions on a CPU with matrix units and on CUDA prefer.
    """

    palette: Tensor

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        is_palette = [name == "palette" for name in spec.channels] or [False] * spec.shape[2]
        self._palette_channels = [i for i, p in enumerate(is_palette) if p]
        self._other_channels = [i for i, p in enumerate(is_palette) if not p]
        self.num_planes = 3 * len(self._palette_channels) + len(self._other_channels)
        colours = torch.tensor(spec.palette or [(0, 0, 0)], dtype=torch.float32) / 255.0
        # It is saved with the policy: indices mean nothing without their colours.
        self.register_buffer("palette", colours)

    def forward(self, frames: Tensor) -> Tensor:
        """Decode.

        Args:
            frames: (B, H, W, C) uint8.

        Returns:
            (B, P, H, W) in [0, 1]: the palette channels' colours, then the others.
        """
        device, colours = frames.device.type, self.palette
        if torch.is_autocast_enabled(device):
            colours = colours.to(torch.get_autocast_dtype(device))
        planes = []
        if self._palette_channels:
            indices = _select(frames, self._palette_channels).int()
            planes.append(F.embedding(indices, colours).flatten(-2))  # (B, H, W, 3 each)
        if self._other_channels:
            others = _select(frames, self._other_channels)
            planes.append(others.float().div_(255.0).to(colours.dtype))
        decoded = planes[0] if len(planes) == 1 else torch.cat(planes, dim=-1)
        return decoded.permute(0, 3, 1, 2)


def _select(frames: Tensor, channels: list[int]) -> Tensor:
    return frames if len(channels) == frames.shape[-1] else frames[..., channels]
