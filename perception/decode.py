"""Decoding images on the device: palette indices become colours, and bytes become numbers.

Axes: B batch, H, W screen, C channels as observed, P planes after decoding (a palette channel
becomes three), s the side of a block of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.normalization import ObservationNormalizer

_INDICES = ("palette", "automap")  # Kinds of channels; stacked frames repeat the same kinds.
_SAMPLE = 256  # Frames of a rollout from which statistics are computed.
# Types by their size in bytes, to move several small numbers as one large one.
_WIDE = {2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """A part of an observation that is an image.

    Attributes:
        shape: (H, W, C).
        channels: the kind of each channel: `palette` and `automap` for indices into the palette;
            every other kind is a brightness of 0 to 255. Empty: all are brightnesses.
        palette: 256 RGB colours of 0 to 255, required if a channel has indices into it.

    Raises:
        ValueError: If channels or palette have the wrong length.
    """

    shape: tuple[int, int, int]
    channels: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()

    @property
    def num_planes(self) -> int:
        """The number of planes after decoding, P."""
        return self.shape[2] + 2 * len(self.index_channels)

    @property
    def index_channels(self) -> tuple[int, ...]:
        """The channels that are indices into the palette."""
        return tuple(i for i, name in enumerate(self.channels) if name in _INDICES)

    @property
    def newest_frame(self) -> ImageSpec:
        """The last of stacked frames, whose channels repeat; the image itself if they do not."""
        names = self.channels
        for length in range(1, len(names)):
            if names == names[:length] * (len(names) // length):
                return replace(self, shape=(*self.shape[:2], length), channels=names[:length])
        return self

    def __post_init__(self) -> None:
        """Check the lengths of channels and palette."""
        if self.channels and len(self.channels) != self.shape[2]:
            raise ValueError(
                f"{len(self.channels)} channels are named, and images of shape {self.shape} have "
                f"{self.shape[2]}"
            )
        if self.index_channels and len(self.palette) != 256:
            raise ValueError(f"a palette must have 256 colours, got {len(self.palette)}")


@dataclass(frozen=True, kw_only=True)
class VectorSpec:
    """A part of an observation that is a vector.

    Attributes:
        size: the number of its elements, D.
    """

    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one vector, (D,)."""
        return (self.size,)


class Decoder(nn.Module):
    """Decodes (B, H, W, C) uint8 images to (B, P, H, W) numbers in [0, 1], or to normalised ones.

    Images may also be given as their pixels, (B, H, W, P) numbers in [0, 1], as `pixels` returns
    them: indices of a palette have no gradient and no neighbours, but colours have both.

    The dtype of the result is that of autocast where it is enabled, else that of `palette`. Its
    memory format is channels-last: the bytes are already in that order, and convolutions on CUDA
    and on CPUs with matrix units are fastest with it.

    With blocks of s x s pixels, the result is (B, s * s * Q, H / s, W / s), rounded down. Each
    pixel then has Q planes: the P planes, with a plane of zeros after the three colours of each
    palette channel. A colour then takes 8 or 16 bytes and is looked up as one number, which is
    three times as fast.

    Normalised numbers have mean 0 and standard deviation 1 over all pixels that were observed,
    computed separately for each colour and each other channel, and are clipped to +-10. Small
    objects in a dark room then stand out from the start; without normalisation, the brightness that
    all frames have in common dominates.

    Args:
        spec: the images.
        block: side of the blocks, s, in pixels.
        normalize: whether to normalise.

    Attributes:
        block: s. With 1, a decoder and the layer after it compute the same, but more slowly.
        by_plane: whether colours are looked up plane by plane, which is faster in ONNX Runtime; the
            result is the same. Blocks are then not supported.
    """

    palette: Tensor
    _kept: Tensor | None = None  # The table of colours, if `keep_weight` was called.

    def __init__(self, spec: ImageSpec, block: int = 1, normalize: bool = False) -> None:
        super().__init__()
        self.block, self.by_plane = block, False
        self._palette_channels = list(spec.index_channels)
        self._other_channels = sorted({*range(spec.shape[2])} - {*self._palette_channels})
        colours = torch.tensor(spec.palette or [(0, 0, 0)], dtype=torch.float32) / 255.0
        # Saved with the policy: indices have no meaning without their colours.
        self.register_buffer("palette", colours)
        sizes = {"colours": 3 * bool(self._palette_channels), "others": len(self._other_channels)}
        self.seen = nn.ModuleDict(
            {k: ObservationNormalizer(size) for k, size in sizes.items() if normalize and size}
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Decode images.

        Args:
            frames: (B, H, W, C) uint8, or their pixels, (B, H, W, P) floating point.

        Returns:
            (B, P, H, W) floating point, or blocks: the colours of the palette channels, then the
            other channels.
        """
        if frames.is_floating_point():
            return self._arranged(frames)
        colours = self._colours(self._dtype(frames)) if self._kept is None else self._kept
        if self.by_plane:
            return self._planes(frames, colours)
        if self.block > 1:
            frames = _cut_into_blocks(frames, self.block)  # (B, H / s, W / s, s * s, C)
        planes = []
        if self._palette_channels:
            indices = _select(frames, self._palette_channels).int()
            planes.append(_look_up(colours, indices).flatten(-2))  # (..., 3 or 4 each)
        if self._other_channels:
            others = _select(frames, self._other_channels).float().div_(255.0)
            # Whole rows, because arithmetic on a last axis of few numbers takes ten times as long.
            rows = self._normalized("others", others.flatten(2))
            planes.append(rows.unflatten(2, others.shape[2:]).to(colours.dtype))
        decoded = planes[0] if len(planes) == 1 else torch.cat(planes, dim=-1)
        return decoded.flatten(3).permute(0, 3, 1, 2)

    @torch.no_grad()
    def keep_weight(self) -> None:
        """Compute the table of colours and keep it until the next call.

        Without this, each forward pass computes it. The table keeps its memory address from call to
        call, because a captured CUDA graph reads it there. Autocast must not be enabled.
        """
        colours = self._colours(self.palette.dtype)
        self._kept = colours if self._kept is None else self._kept.copy_(colours)

    def _colours(self, dtype: torch.dtype) -> Tensor:
        """Return the numbers of the palette's colours, (256, 3), or (256, 4) for blocks."""
        colours = self._normalized("colours", self.palette.to(dtype))
        return F.pad(colours, (0, 1)) if self.block > 1 else colours

    def _planes(self, frames: Tensor, colours: Tensor) -> Tensor:
        """Return (B, P, H, W) numbers for (B, H, W, C) frames, with (256, 3) colours."""
        planes = [
            colour.gather(0, _select(frames, [channel]).flatten().long()).view(frames.shape[:3])
            for channel in self._palette_channels
            for colour in colours.unbind(1)
        ]
        if self._other_channels:
            others = _select(frames, self._other_channels).float() / 255.0
            numbers = self._normalized("others", others.flatten(2)).unflatten(2, others.shape[2:])
            planes += [part.squeeze(3) for part in numbers.split(1, 3)]
        return torch.stack(planes, 1)

    def pixels(self, frames: Tensor) -> Tensor:
        """Return the pixels of images, which are never normalised.

        Args:
            frames: (B, H, W, C) uint8.

        Returns:
            (B, H, W, P) float32 in [0, 1]: the colours of the palette channels, then the other
            channels.
        """
        planes = []
        if self._palette_channels:
            indices = _select(frames, self._palette_channels).int()
            planes.append(F.embedding(indices, self.palette.float()).flatten(-2))
        if self._other_channels:
            planes.append(_select(frames, self._other_channels).float() / 255.0)
        return torch.cat(planes, dim=-1)

    @property
    def num_colour_planes(self) -> int:
        """The number of planes that are colours of palette channels, which come first."""
        return 3 * len(self._palette_channels)

    def _arranged(self, pixels: Tensor) -> Tensor:
        """Return (B, H, W, P) pixels as `forward` returns the images that they are of."""
        dtype = self._dtype(pixels)
        colours, others = pixels.tensor_split([self.num_colour_planes], dim=-1)
        planes = []
        if self._palette_channels:
            normal = self._normalized("colours", colours.to(dtype))
            if self.block > 1:
                normal = F.pad(normal.unflatten(-1, (-1, 3)), (0, 1)).flatten(-2)
            planes.append(normal)
        if self._other_channels:
            planes.append(self._normalized("others", others).to(dtype))
        decoded = planes[0] if len(planes) == 1 else torch.cat(planes, dim=-1)
        if self.block > 1:
            size = self.block
            height, width = (side // size for side in decoded.shape[1:3])
            decoded = decoded[:, : height * size, : width * size]
            decoded = decoded.unflatten(2, (width, size)).unflatten(1, (height, size))
            decoded = decoded.transpose(2, 3).flatten(3)
        return decoded.permute(0, 3, 1, 2)

    def _dtype(self, images: Tensor) -> torch.dtype:
        """Return the dtype of what is decoded: that of autocast, if enabled, or of the palette."""
        device = images.device.type
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        return self.palette.dtype

    def observe(self, frames: Tensor) -> None:
        """Update the statistics, if there are any, with a sample of (B, H, W, C) uint8 frames."""
        if not self.seen:
            return
        frames = frames[:: _stride(len(frames))]
        brightness = torch.arange(256, device=frames.device)[:, None] / 255.0
        kinds = {"colours": (self.palette, [self._palette_channels])}
        kinds["others"] = (brightness, [[channel] for channel in self._other_channels])
        for kind, statistics in self.seen.items():
            assert isinstance(statistics, ObservationNormalizer)
            numbers, groups = kinds[kind]
            count = _select(frames, groups[0]).numel()
            shares = torch.stack([_count(_select(frames, group)) for group in groups]) / count
            mean = (shares @ numbers.double()).flatten()
            variance = (shares @ numbers.double() ** 2).flatten() - mean**2
            statistics.merge(mean, variance.clamp(min=0.0), count)

    def _normalized(self, kind: str, numbers: Tensor) -> Tensor:
        """Return numbers of a kind normalised, computed in float32, or unchanged."""
        if kind not in self.seen:
            return numbers
        normalizer = self.seen[kind]
        assert isinstance(normalizer, ObservationNormalizer)
        return normalizer.normalize(numbers.float()).to(numbers.dtype)


def _stride(num_frames: int) -> int:
    """Return the distance of the frames of a sample: one prime to the number of all frames.

    They follow each other by env step and environment, so that any other distance could meet the
    same few environments again and again.
    """
    stride = max(1, num_frames // _SAMPLE)
    while math.gcd(stride, num_frames) > 1:
        stride += 1
    return stride


def _cut_into_blocks(frames: Tensor, size: int) -> Tensor:
    """Return (B, H, W, C) uint8 images as blocks, (B, H / s, W / s, s * s, C) uint8."""
    batch, rows, columns, channels = frames.shape
    height, width = rows // size, columns // size
    frames = frames[:, : height * size, : width * size].flatten(2)
    if columns % size == 0 and size * channels in _WIDE:
        frames = frames.view(_WIDE[size * channels])  # A row of a block is moved as one number.
    blocks = frames.reshape(batch, height, size, width, frames.shape[2] // width).transpose(2, 3)
    return blocks.contiguous().view(torch.uint8).view(batch, height, width, size**2, channels)


def _count(pixels: Tensor) -> Tensor:
    """Return how often each byte value occurs, (256,) float64."""
    # Not `torch.bincount`, which reads the largest index and therefore waits for the GPU.
    indices = pixels.flatten().long()
    ones = torch.ones((), dtype=torch.float64, device=pixels.device).expand(len(indices))
    return torch.zeros(256, dtype=torch.float64, device=pixels.device).index_add_(0, indices, ones)


def _look_up(colours: Tensor, indices: Tensor) -> Tensor:
    """Return the colours, (..., 3) or (..., 4), of (...) int32 indices."""
    if colours.shape[1] == 3:
        return F.embedding(indices, colours)
    # Four numbers are moved as one large one.
    table = colours.view(_WIDE[4 * colours.element_size()]).flatten()
    found: Tensor = table.index_select(0, indices.flatten())
    return found.view(colours.dtype).reshape(*indices.shape, 4)


def _select(frames: Tensor, channels: list[int]) -> Tensor:
    """Return some channels of (..., C) frames, in the given order."""
    # Slices, because a list as an index would be copied to the GPU each time.
    first, step = channels[0], channels[1] - channels[0] if len(channels) > 1 else 1
    if channels == list(range(first, channels[-1] + 1, step)):
        return frames[..., first : channels[-1] + 1 : step]
    return torch.cat([frames[..., channel : channel + 1] for channel in channels], -1)
