"""Perception as a whole: parts of an observation, decoded, encoded, joined and remembered.

Axes: T time, N environments, B batch, F features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from perception.decode import Decoder, ImageSpec, VectorSpec
from perception.encoders import ENCODERS, MLP, EncoderConfig
from perception.memory import MEMORIES
from perception.normalization import ObservationNormalizer

Spec = ImageSpec | VectorSpec


@dataclass(frozen=True, kw_only=True)
class PerceptionConfig:
    """How an agent sees and remembers.

    Raises:
        ValueError: If a size is not positive.
    """

    encoder: Literal["nature", "impala", "mlp"] = "nature"
    """Encoder of images; vectors are always encoded by an MLP."""
    memory: Literal["none", "lstm", "gru"] = "none"
    """What is carried from one env step to the next."""
    memory_size: int = 256
    """Width of the memory."""
    layers: EncoderConfig = field(default_factory=EncoderConfig)

    def __post_init__(self) -> None:
        """Check sizes."""
        if self.memory_size < 1:
            raise ValueError(f"memory_size must be at least 1, got {self.memory_size}")


class Perception(nn.Module):
    """Turn observations into features, and remember.

    Where there are images, the large products, which are nearly all of the work, may be computed at
    a lower precision: `precision` is that of image encoders and of the memory's products, whatever
    their weights are kept in. Everything else is float32, the memory's state too: what is rounded
    there would add up.

    Args:
        specs: parts of an observation by name.
        config: which encoder and memory.
        normalize_obs: whether what is seen is normalised by running statistics, which are saved
            with the rest.
    """

    def __init__(
        self, specs: Mapping[str, Spec], config: PerceptionConfig, normalize_obs: bool = False
    ) -> None:
        super().__init__()
        self.precision = torch.float32
        self.normalizers = nn.ModuleDict()  # Of vectors; decoders normalise images.
        self.encoders = nn.ModuleDict()
        size = 0
        for name, spec in specs.items():
            if isinstance(spec, ImageSpec):
                shape = (spec.num_planes, *spec.shape[:2])
                image_encoder = ENCODERS[config.encoder](config.layers, shape)
                decoder = Decoder(spec, image_encoder.block, normalize_obs)
                self.encoders[name] = nn.Sequential(decoder, image_encoder)
                size += image_encoder.num_features
            else:
                if normalize_obs:
                    self.normalizers[name] = ObservationNormalizer(spec.size)
                vector_encoder = MLP(config.layers, (spec.size,))
                self.encoders[name] = vector_encoder
                size += vector_encoder.num_features
        self.memory = MEMORIES[config.memory](size, config.memory_size)
        self.num_features = self.memory.num_features

    def forward(
        self, obs: Mapping[str, Tensor], memory_state: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Perceive a sequence.

        Args:
            obs: parts by name, each (T, N, ...).
            memory_state: (S, N, M) float32, the state before the first step.
            episode_starts: (T, N) bool; where true, memory is cleared before that step.

        Returns:
            (T, N, F) float32 features, and the memory's state after the last step.
        """
        # Encoders know no time.
        features = self.encode({name: obs[name].flatten(0, 1) for name in self.encoders})
        features = features.unflatten(0, episode_starts.shape)
        with self._autocast(features, enabled=self.memory in self.heavy_modules):
            features, memory_state = self.memory(features, memory_state, episode_starts)
        return features, memory_state

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Turn parts of an observation, each (B, ...), into (B, F) float32, without memory."""
        parts, heavy = [], self.heavy_modules
        for name, encoder in self.encoders.items():
            part = self.normalizers[name](obs[name]) if name in self.normalizers else obs[name]
            with self._autocast(part, enabled=encoder in heavy):
                parts.append(encoder(part).float())
        return torch.cat(parts, dim=-1)

    def observe(self, obs: Mapping[str, Tensor]) -> None:
        """Take parts of an observation, each (B, ...), into the statistics that normalise them."""
        for name, encoder in self.encoders.items():
            if name in self.normalizers:
                normalizer = self.normalizers[name]
                assert isinstance(normalizer, ObservationNormalizer)
                normalizer.update(obs[name])
            elif isinstance(encoder, nn.Sequential):
                decoder = encoder[0]
                assert isinstance(decoder, Decoder)
                decoder.observe(obs[name])

    @property
    def heavy_modules(self) -> list[nn.Module]:
        """The modules that `precision` is about."""
        images = [e for e in self.encoders.values() if isinstance(e, nn.Sequential)]
        return [*images, self.memory] if images else []

    def _autocast(
        self, tensor: Tensor, *, enabled: bool
    ) -> contextlib.AbstractContextManager[torch.autocast | None]:
        if not enabled or self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(tensor.device.type, self.precision)
