"""`see:next_frame`: ten frames that follow ten others, in Doom or of two moving digits.

A recurrent encoder-decoder (Srivastava et al. 2015): encoder and memory see the past frames; a
decoder computes the future ones from the features after the last of them, from the last two of them
and, in Doom, from the buttons that are held in each future env step (Oh et al. 2015), without
seeing its own.

Axes: B clips, T past or future frames, H, W, C a frame, K buttons, F features.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.policy import Specs
from training.supervised.clips import Clips, ClipsConfig, collect_clips, load_clips
from training.supervised.collected import Stops, collect_once, quota, screen_specs
from training.supervised.copying import CopyingDecoder
from training.supervised.digits import Digits, DigitsConfig
from training.supervised.moving_digits import SIDE, moving_digits
from training.supervised.network import Network
from training.supervised.pictures import strips
from training.supervised.task import Examples, Part, Picture, Statistics, Task

PAST, FUTURE = 10, 10
_SHOWN = 5  # Clips in a picture.
_SHARES: dict[Part, float] = {"train": 0.7, "validation": 0.1, "test": 0.2}  # Of moving digits.
_LUMA = (0.299, 0.587, 0.114)  # Brightness of red, green and blue (ITU-R BT.601).
_COARSE = 4  # Side of the squares whose mean brightness counts, too, in pixels.
# The window of Wang et al. 2004, and their constants for numbers in [0, 1].
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True, kw_only=True)
class NextFrameConfig(ClipsConfig):
    """The configuration of `see:next_frame`.

    Raises:
        ValueError: If a value is out of range.
    """

    length: ClassVar[int] = PAST + FUTURE

    clips: int = 3_000
    """Number of clips, of all parts together."""
    scenarios: tuple[str, ...] = ("defend_the_center", "health_gathering", "take_cover")
    """Scenarios that are played; the project must have a trained policy for each, or --runs."""
    height: int = 48
    """Height of the screen in pixels."""
    width: int = 64
    """Width of the screen in pixels."""
    moving_digits: bool = False
    """Predict two digits that move and bounce, in frames of 64 x 64, instead of Doom."""
    buttons_known: bool = True
    """Tell the network which buttons are held in the future env steps."""
    decoder_channels: int = 32
    """Channels of the map, at an eighth of the frame's size, that becomes a frame."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if min(self.height, self.width) < _WINDOW and not self.moving_digits:
            raise ValueError(
                f"height and width must be at least {_WINDOW}, got {self.height} and {self.width}"
            )
        channels = self.decoder_channels
        if not 2 <= channels <= 1_024 or channels % 2:
            raise ValueError(
                f"decoder_channels must be even and between 2 and 1,024, got {channels}"
            )

    @property
    def fewest(self) -> int:
        """See `CollectedConfig`; digits are there for any number."""
        return 1 if self.moving_digits else super().fewest

    @property
    def num_known(self) -> int:
        """K, the buttons that the network is told."""
        return len(self.buttons) if self.buttons_known and not self.moving_digits else 0


class NextFrame(Task[NextFrameConfig]):
    """Predicts the brightness of each pixel of ten future frames, in [0, 1]."""

    score: ClassVar[str] = "ssim"
    unit: ClassVar[str] = "episode"
    presets: ClassVar[dict[str, Any]] = {
        "memory": "lstm",
        "perception.encoder.conv_channels": (16, 32, 32),
        "perception.memory.memory_size": 512,
        "normalize_obs": True,
        "epochs": 20,
        "batch_size": 32,
        "weight_decay": 0.0,
    }

    def collect(self, stops: Stops) -> None:
        """See `Task.collect`; digits are there already."""
        if not self.config.moving_digits:
            collect_once(self.config, collect_clips, stops)

    @functools.cached_property
    def _clips(self) -> tuple[Clips, str]:
        return load_clips(self.config)

    def load(self, part: Part) -> Examples:
        """Return past frames as `image`, and `recent`, `future` and `buttons` of the future."""
        if self.config.moving_digits:
            return self._digits(part)
        clips = self._clips[0]
        examples = clips.examples(part)
        gray = torch.from_numpy(self._brightness(examples["image"].numpy(), clips.palette))
        return {
            "image": examples["image"][:, :PAST],
            "recent": gray[:, PAST - 2 : PAST],
            "future": gray[:, PAST:],
            "buttons": examples["buttons"][:, PAST:, : self.config.num_known],
            "episode": examples["episode"],
        }

    def _digits(self, part: Part) -> Examples:
        count = max(1, quota(self.config.clips, _SHARES[part], 0, 1))
        clips = torch.from_numpy(moving_digits(part, count, PAST + FUTURE))
        return {
            "image": clips[:, :PAST, ..., None],
            "recent": clips[:, PAST - 2 : PAST],
            "future": clips[:, PAST:],
            "buttons": torch.zeros(count, FUTURE, 0),
            "episode": torch.arange(count),
        }

    def _brightness(
        self, frames: NDArray[np.uint8], palette: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Return the brightness of the newest of stacked frames, (..., H, W) uint8.

        Args:
            frames: (..., H, W, C) uint8.
            palette: (256, 3) uint8 RGB.
        """
        newest = self.config.newest(frames)
        if self.config.observation == "palette":
            table: NDArray[np.uint8] = np.rint(palette @ np.array(_LUMA)).astype(np.uint8)
            return table[newest[..., 0]]
        if self.config.observation == "gray":
            return newest[..., 0]
        return np.stack([np.rint(clip @ np.array(_LUMA, np.float32)) for clip in newest]).astype(
            np.uint8
        )

    def source(self) -> str:
        """Return the SHA-256 of the clips, or of the digits, which move the same way each time."""
        if self.config.moving_digits:
            return Digits(DigitsConfig()).source()
        return self._clips[1]

    def specs(self, examples: Examples) -> Specs:
        """Return the specification of a frame."""
        if self.config.moving_digits:
            return super().specs({"image": examples["image"][:, 0]})
        return screen_specs(self.config, self._clips[0].palette)

    def head(self, num_features: int) -> nn.Module:
        """Return a `CopyingDecoder`."""
        config = self.config
        return CopyingDecoder(
            num_features,
            size=(SIDE, SIDE) if config.moving_digits else (config.height, config.width),
            num_buttons=config.num_known,
            channels=config.decoder_channels,
        )

    def predict(self, network: Network, batch: Examples) -> Tensor:
        """Return (B, T, H, W) float32 future frames in [0, 1]."""
        features = network.features({"image": batch["image"].transpose(0, 1)})
        frames: Tensor = network.head(features[-1], _unit(batch["recent"]), batch["buttons"])
        return frames

    def loss(self, predictions: Tensor, batch: Examples) -> Tensor:
        """Return the squared error, summed over a frame, divided by 100.

        That of coarse frames is added: single pixels do not tell in which direction something
        moved that moved far.
        """
        future = _unit(batch["future"])
        coarse = F.avg_pool2d(predictions - future, _COARSE, ceil_mode=True).square().sum((-2, -1))
        fine = (predictions - future).square().sum((-2, -1))
        return (fine + _COARSE**2 * coarse).mean() / 100

    def statistics(self, predictions: Tensor, batch: Examples) -> Statistics:
        """Return errors, cross-entropies and SSIM, means over the frames of each clip."""
        return _compare(predictions.float(), batch["future"])

    def measure(self, statistics: Statistics) -> dict[str, float]:
        """Return the mean SSIM, and two errors that are sums over the pixels of a frame.

        `squared_error` is the sum of squared differences, and `cross_entropy` that of pixels in
        nats, as in tables of Moving MNIST (Srivastava et al. 2015; Shi et al. 2015).
        """
        return {name: float(values.mean()) for name, values in statistics.items()}

    def baseline(self, train: Examples, examples: Examples) -> Statistics:
        """Return the statistics of repeating the last frame."""
        last = _unit(examples["recent"][:, 1:]).expand(-1, FUTURE, -1, -1)
        parts = [
            _compare(some, future)
            for some, future in zip(last.split(64), examples["future"].split(64), strict=True)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def pictures(
        self, network: Network, examples: Examples, statistics: Statistics
    ) -> Mapping[str, Picture]:
        """Return strips: the last and the future frames, and below them the predicted ones."""
        batch = {name: part[:_SHOWN].to(network.device) for name, part in examples.items()}
        with torch.no_grad():
            predicted = (self.predict(network, batch) * 255).byte().cpu()
        last, future = examples["recent"][:_SHOWN, 1:], examples["future"][:_SHOWN]
        truths = torch.cat([last, future], 1)
        below = torch.cat([torch.zeros_like(last), predicted], 1)
        rows = torch.stack([truths, below], 1).flatten(0, 1)
        return {"frames": strips(rows.numpy())}


def _unit(frames: Tensor) -> Tensor:
    """Return uint8 brightness as float32 in [0, 1]."""
    return frames.float() / 255


def cross_entropy(predicted: Tensor, truths: Tensor) -> Tensor:
    """Return the binary cross-entropy in nats, summed over the pixels of a frame, (B, T).

    Predictions are moved away from 0 and 1 by 1e-6.
    """
    inner = predicted.clamp(1e-6, 1 - 1e-6)
    return F.binary_cross_entropy(inner, truths, reduction="none").sum((-2, -1))


def _compare(predicted: Tensor, future: Tensor) -> Statistics:
    """Compare predicted frames with true ones.

    Args:
        predicted: (B, T, H, W) float32 in [0, 1].
        future: (B, T, H, W) uint8.
    """
    truths = _unit(future)
    values = {
        "ssim": ssim(predicted, truths),
        "squared_error": (predicted - truths).square().sum((-2, -1)),
        "cross_entropy": cross_entropy(predicted, truths),
    }
    return {name: value.mean(1).cpu().numpy() for name, value in values.items()}


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Return the structural similarity of images (Wang et al. 2004, equation 13), mean over pixels.

    Args:
        first: (..., H, W) float32 in [0, 1].
        second: the same shape.

    Returns:
        (...) float32 in [-1, 1]; 1 where they are equal. Only pixels whose Gaussian window lies
        inside the image count.
    """
    offsets = torch.arange(_WINDOW, device=first.device) - _WINDOW // 2
    weights = (-(offsets.float() ** 2) / (2 * _SIGMA**2)).exp()
    weights = weights / weights.sum()

    def local(images: Tensor) -> Tensor:
        """Return local means, by one pass for each axis."""
        planes = images.flatten(0, -3)[:, None]
        columns = F.conv2d(planes, weights[None, None, :, None])
        return F.conv2d(columns, weights[None, None, None, :])

    mean_a, mean_b = local(first), local(second)
    variance_a = local(first * first) - mean_a**2
    variance_b = local(second * second) - mean_b**2
    covariance = local(first * second) - mean_a * mean_b
    similarity = ((2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)) / (
        (mean_a**2 + mean_b**2 + _C1) * (variance_a + variance_b + _C2)
    )
    return similarity.mean((-3, -2, -1)).view(first.shape[:-2])
