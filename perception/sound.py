"""Encoding sound: a spectrogram of it, or its waveform.

Hegde et al. 2021, "Agents that Listen", compare such encoders for agents in ViZDoom.

Axes: B batch, L samples, E ears, F features.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from perception.encoders import PerceptionError, orthogonal

_WINDOW, _HOP = 256, 128  # Samples; 23 and 12 milliseconds at 11,025 Hz.
_LOUDEST = 1000.0  # Loudness begins to grow about 60 dB below a tone of amplitude 1.


@dataclass(frozen=True, kw_only=True)
class SoundSpec:
    """A part of an observation that is the sound since the last env step.

    Attributes:
        num_samples: L.
        num_ears: E.

    Raises:
        ValueError: If a number is not positive.
    """

    num_samples: int
    num_ears: int = 2

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.num_samples < 1 or self.num_ears < 1:
            raise ValueError(f"a sound of shape {self.shape} is empty")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sound, (L, E)."""
        return (self.num_samples, self.num_ears)


@dataclass(frozen=True, kw_only=True)
class SoundConfig:
    """The configuration of the encoder of sound.

    Raises:
        ValueError: If a value is out of range.
    """

    sound_input: Literal["spectrogram", "waveform"] = "spectrogram"
    """What the encoder computes features from: loudness by time and pitch, or samples."""
    sound_features: int = 64
    """Number of features of a sound."""
    sound_bands: int = 16
    """Number of pitches of the spectrogram."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("sound_features", "sound_bands"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.sound_bands > _WINDOW // 4:
            raise ValueError(f"sound_bands must be at most {_WINDOW // 4}, got {self.sound_bands}")


class Spectrogram(nn.Module):
    """Computes the loudness of each band of pitches over time.

    The short-time Fourier transform, with a Hann window, is a convolution with fixed weights, so
    that it can be exported. Its power is summed in bands that are as wide as the mel scale says
    (O'Shaughnessy 1987), which do not overlap. Loudness is logarithmic, in units of 10 dB: 0 in
    silence, about 6 for the loudest tone.

    Args:
        num_bands: number of bands.
    """

    waves: Tensor
    bands: Tensor

    def __init__(self, num_bands: int) -> None:
        super().__init__()
        # On the CPU even where modules are made without memory, on the meta device, to be given the
        # tensors of a file: these are constants, which no file holds.
        exact: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
        times = torch.arange(_WINDOW, **exact)
        pitches = torch.arange(1, _WINDOW // 2 + 1, **exact)
        phases = 2 * math.pi * pitches[:, None] * times / _WINDOW
        window = torch.hann_window(_WINDOW, **exact)
        waves = torch.cat([phases.cos(), phases.sin()]) * window / window.sum()
        # The mel scale of fractions of half the sampling rate, taken as 5,512.5 Hz.
        mel = torch.log1p(pitches / len(pitches) * 5512.5 / 700)
        of_band = (mel / mel[-1] * num_bands).ceil().long().clamp(1, num_bands) - 1
        bands = functional.one_hot(of_band, num_bands).T
        self.register_buffer("waves", waves[:, None].float(), persistent=False)
        self.register_buffer("bands", bands.float(), persistent=False)

    def forward(self, sounds: Tensor) -> Tensor:
        """Return the loudness, (B, E, bands, time) float32, of (B, L, E) float32 in [-1, 1]."""
        ears = sounds.movedim(-1, 1).flatten(0, 1)[:, None]
        parts = functional.conv1d(ears, self.waves, stride=_HOP)
        real, imaginary = parts.chunk(2, dim=1)
        power = torch.matmul(self.bands, real.square() + imaginary.square())
        loudness = 2 / math.log(10) * (_LOUDEST * (power + 1e-12).sqrt()).log1p()
        by_ear: Tensor = loudness.unflatten(0, (-1, sounds.shape[-1]))
        return by_ear


class SoundEncoder(nn.Module):
    """Encodes sounds, (B, L, E) float32 to (B, F) float32.

    Args:
        spec: the sounds.
        config: configuration of the layers.

    Attributes:
        num_features: F.

    Raises:
        PerceptionError: If sounds are too short.
    """

    def __init__(self, spec: SoundSpec, config: SoundConfig) -> None:
        super().__init__()
        if spec.num_samples < _WINDOW:
            raise PerceptionError(
                f"sounds of {spec.num_samples:,} samples are too short; at least {_WINDOW} are "
                "needed: raise --frame-skip"
            )
        if config.sound_input == "spectrogram":
            layers: list[nn.Module] = [Spectrogram(config.sound_bands)]
            if spec.num_ears == 2:
                layers.append(_MidAndSide())
        else:
            layers = [_EarsFirst()]
            sizes = (spec.num_ears, 16, 32)
            for before, after in itertools.pairwise(sizes):
                layers += [orthogonal(nn.Conv1d(before, after, 16, stride=8)), nn.ReLU()]
        layers.append(nn.Flatten())
        with torch.no_grad():
            size = nn.Sequential(*layers)(torch.zeros(1, *spec.shape)).shape[1]
        self.num_features = config.sound_features
        layers += [orthogonal(nn.Linear(size, self.num_features)), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, sounds: Tensor) -> Tensor:
        """Encode (B, L, E) float32 in [-1, 1] as (B, F) float32."""
        features: Tensor = self.layers(sounds)
        return features

    def observe(self, sounds: Tensor) -> None:
        """Do nothing: loudness has a fixed range, so no statistics are needed."""


class _MidAndSide(nn.Module):
    """Where a sound comes from is a small difference of two large numbers that vary together."""

    def forward(self, loudness: Tensor) -> Tensor:
        """Return the mean of both ears, about centred, and the difference, both (B, 2, ...)."""
        left, right = loudness.unbind(1)
        return torch.stack(((left + right) / 4 - 1, left - right), dim=1)


class _EarsFirst(nn.Module):
    def forward(self, sounds: Tensor) -> Tensor:
        """Return (B, L, E) as (B, E, L)."""
        return sounds.movedim(-1, 1)
