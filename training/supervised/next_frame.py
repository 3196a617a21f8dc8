"""`see:next_frame`: ten frames that follow ten others (Srivastava et al. 2015).

A recurrent encoder-decoder: encoder and memory see the past frames; a second recurrent network
starts from the features after the last of them and computes the future frames, without seeing its
own.

Axes: B clips, T past or future frames, H, W a frame, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.policy import Specs
from perception.encoders import orthogonal
from training.supervised.digits import Digits, DigitsConfig
from training.supervised.moving_digits import SIDE, moving_digits
from training.supervised.network import Network
from training.supervised.pictures import strips
from training.supervised.task import Examples, Part, Picture, Statistics, Task, TaskConfig

PAST, FUTURE = 10, 10
_DARK = -3.0  # The logit of 0.05, the mean brightness of a frame.
_SHOWN = 5  # Clips in a picture.
_SHARES = {"validation": 0.1, "test": 0.2}  # Of the clips of training, in addition to them.
# The window of Wang et al. 2004, and their constants for numbers in [0, 1].
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True, kw_only=True)
class NextFrameConfig(TaskConfig):
    """The configuration of `see:next_frame`.

    Raises:
        ValueError: If a value is out of range.
    """

    clips: int = 3_000
    """Clips of two moving digits to train with."""
    decoder_size: int = 512
    """Width of the recurrent network that computes the future."""
    decoder_channels: int = 32
    """Channels of the map, at an eighth of the frame's size, that becomes a frame."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, most in (("clips", 2**16), ("decoder_size", 2**13), ("decoder_channels", 2**10)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(
                    f"{name} must be between 1 and {most:,}, got {getattr(self, name)}"
                )


class Decoder(nn.Module):
    """Computes T future frames from the features after the last past one.

    Args:
        num_features: F.
        config: sizes.
    """

    def __init__(self, num_features: int, config: NextFrameConfig) -> None:
        super().__init__()
        coarse, channels = SIDE // 8, config.decoder_channels
        self.start = nn.Linear(num_features, config.decoder_size)
        self.cell = nn.GRU(config.decoder_size, config.decoder_size)
        self.layers = nn.Sequential(
            nn.Linear(config.decoder_size, channels * coarse**2),
            nn.ReLU(),
            nn.Unflatten(1, (channels, coarse, coarse)),
            orthogonal(nn.Conv2d(channels, 2 * channels, 3, padding=1)),
            nn.ReLU(),
            nn.PixelShuffle(2),
            orthogonal(nn.Conv2d(channels // 2, 2 * channels, 3, padding=1)),
            nn.ReLU(),
            nn.PixelShuffle(2),
            last := orthogonal(nn.Conv2d(channels // 2, 4, 3, padding=1), 0.1),
            nn.PixelShuffle(2),
        )
        # Frames are dark: otherwise, the memory would first learn to darken all of them alike, and
        # saturate.
        assert isinstance(last.bias, Tensor)
        nn.init.constant_(last.bias, _DARK)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, T, H, W) float32 logits of brightness for (B, F) float32 features."""
        state = self.start(features)
        outputs, _ = self.cell(state.expand(FUTURE, -1, -1), state.tanh()[None])
        frames = self.layers(outputs.transpose(0, 1).flatten(0, 1))
        sequences: Tensor = frames.unflatten(0, (len(features), FUTURE)).squeeze(2)
        return sequences


class NextFrame(Task[NextFrameConfig]):
    """Predicts the brightness of each pixel of ten future frames, in [0, 1]."""

    score: ClassVar[str] = "ssim"
    presets: ClassVar[dict[str, Any]] = {
        "memory": "lstm",
        "perception.encoder.conv_channels": (16, 32, 32),
        "perception.memory.memory_size": 512,
        "normalize_obs": True,
        "epochs": 20,
        "batch_size": 32,
        "weight_decay": 0.0,
    }

    def load(self, part: Part) -> Examples:
        """See `Task.load`."""
        count = self.config.clips
        if part != "train":
            count = max(1, round(count * _SHARES[part]))
        clips = torch.from_numpy(moving_digits(part, count, PAST + FUTURE))[..., None]
        return {"image": clips[:, :PAST], "future": clips[:, PAST:, ..., 0]}

    def source(self) -> str:
        """Return the SHA-256 of the digits; they move the same way each time."""
        return Digits(DigitsConfig()).source()

    def specs(self, examples: Examples) -> Specs:
        """Return the specification of a frame."""
        return super().specs({"image": examples["image"][:, 0]})

    def head(self, num_features: int) -> nn.Module:
        """Return a `Decoder`."""
        return Decoder(num_features, self.config)

    def predict(self, network: Network, batch: Examples) -> Tensor:
        """Return (B, T, H, W) logits of the future frames."""
        features = network.features({"image": batch["image"].transpose(0, 1)})
        frames: Tensor = network.head(features[-1])
        return frames

    def loss(self, predictions: Tensor, batch: Examples) -> Tensor:
        """Return the cross-entropy of pixels, summed over a frame, divided by 100."""
        return cross_entropy(predictions, _unit(batch["future"])).mean() / 100

    def statistics(self, predictions: Tensor, batch: Examples) -> Statistics:
        """Return errors, cross-entropies and SSIM, means over the frames of each clip."""
        return _compare(predictions.float().sigmoid(), batch["future"])

    def measure(self, statistics: Statistics) -> dict[str, float]:
        """Return the mean SSIM, and two errors that are sums over the pixels of a frame.

        `squared_error` is the sum of squared differences, and `cross_entropy` that of pixels in
        nats, as in tables of Moving MNIST (Srivastava et al. 2015; Shi et al. 2015).
        """
        return {name: float(values.mean()) for name, values in statistics.items()}

    def baseline(self, train: Examples, examples: Examples) -> Statistics:
        """Return the statistics of repeating the last frame."""
        last = _unit(examples["image"][:, -1:, ..., 0]).expand(-1, FUTURE, -1, -1)
        parts = [
            _compare(some, future)
            for some, future in zip(last.split(64), examples["future"].split(64), strict=True)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def pictures(
        self, network: Network, examples: Examples, statistics: Statistics
    ) -> Mapping[str, Picture]:
        """Return strips: past and future frames, and below them the predicted ones."""
        batch = {name: part[:_SHOWN].to(network.device) for name, part in examples.items()}
        with torch.no_grad():
            predicted = (self.predict(network, batch).sigmoid() * 255).byte().cpu()
        past = examples["image"][:_SHOWN, ..., 0]
        truths = torch.cat([past, examples["future"][:_SHOWN]], 1)
        below = torch.cat([torch.zeros_like(past), predicted], 1)
        rows = torch.stack([truths, below], 1).flatten(0, 1)
        return {"frames": strips(rows.numpy())}


def _unit(frames: Tensor) -> Tensor:
    """Return uint8 brightness as float32 in [0, 1]."""
    return frames.float() / 255


def cross_entropy(logits: Tensor, truths: Tensor) -> Tensor:
    """Return the binary cross-entropy in nats, summed over the pixels of a frame, (B, T)."""
    return F.binary_cross_entropy_with_logits(logits, truths, reduction="none").sum((-2, -1))


def _compare(predicted: Tensor, future: Tensor) -> Statistics:
    """Compare predicted frames with true ones.

    Args:
        predicted: (B, T, H, W) float32 in [0, 1].
        future: (B, T, H, W) uint8.
    """
    truths = _unit(future)
    entropy = cross_entropy(predicted.clamp(1e-6, 1 - 1e-6).logit(), truths)
    values = {
        "ssim": ssim(predicted, truths),
        "squared_error": (predicted - truths).square().sum((-2, -1)),
        "cross_entropy": entropy,
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
