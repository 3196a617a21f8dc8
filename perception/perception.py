"""Perception: the parts of an observation are decoded, encoded, concatenated, and then remembered.

Axes: T time, N environments, B batch, H, W, C an image, D numbers of a vector, F features, S and M
rows and width of the memory's state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from perception.decode import Decoder, ImageSpec, VectorSpec
from perception.encoders import ENCODERS, MLP, Encoder, EncoderConfig, NatureConfig, VectorConfig
from perception.lookup import as_named_dict, class_of, name_of
from perception.memory import MEMORIES, Memory, MemoryConfig, NoMemoryConfig
from perception.normalization import ObservationNormalizer
from perception.sound import SoundConfig, SoundEncoder, SoundSpec
from perception.text import TextConfig, TextEncoder, TextSpec

Spec = ImageSpec | VectorSpec | SoundSpec | TextSpec
"""The specification of a part of an observation."""
EncoderT = TypeVar("EncoderT", bound=EncoderConfig)
MemoryT = TypeVar("MemoryT", bound=MemoryConfig)


@dataclass(frozen=True, kw_only=True)
class PerceptionConfig(Generic[EncoderT, MemoryT]):
    """The configuration of `Perception`: the encoders and the memory."""

    encoder: EncoderT = field(default_factory=NatureConfig)  # type: ignore[assignment] # the default of EncoderT
    """The encoder of images."""
    memory: MemoryT = field(default_factory=NoMemoryConfig)  # type: ignore[assignment] # the default of MemoryT
    """The memory between env steps."""
    vectors: VectorConfig = field(default_factory=VectorConfig)
    """The encoder of vectors."""
    sound: SoundConfig = field(default_factory=SoundConfig)
    """The encoder of sound."""
    text: TextConfig = field(default_factory=TextConfig)
    """The encoder of texts."""
    layer_norm: bool = False
    """Normalise what each encoder computes over its features (LayerNorm; Ba et al. 2016)."""

    @property
    def encoder_name(self) -> str:
        """The image encoder's name in `ENCODERS`."""
        return name_of(ENCODERS, self.encoder)

    @property
    def memory_name(self) -> str:
        """The memory's name in `MEMORIES`."""
        return name_of(MEMORIES, self.memory)

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration as nested dictionaries, with the names of encoder and memory."""
        return {
            "encoder": as_named_dict(ENCODERS, self.encoder),
            "memory": as_named_dict(MEMORIES, self.memory),
            "vectors": asdict(self.vectors),
            "sound": asdict(self.sound),
            "text": asdict(self.text),
            "layer_norm": self.layer_norm,
        }


class ImageEncoder(nn.Module):
    """Decodes and encodes images, (B, H, W, C) uint8 to (B, F).

    Args:
        spec: the images.
        config: configuration of the encoder.
        normalize: whether decoded images are normalised by running statistics.

    Attributes:
        num_features: F.
    """

    def __init__(self, spec: ImageSpec, config: EncoderConfig, normalize: bool) -> None:
        super().__init__()
        encoder: Encoder = class_of(ENCODERS, config)(config, (spec.num_planes, *spec.shape[:2]))
        self.decoder = Decoder(spec, encoder.block, normalize)
        self.encoder = encoder
        self.num_features = encoder.num_features

    def forward(self, frames: Tensor) -> Tensor:
        """Encode (B, H, W, C) uint8, or their pixels, as (B, F), in the dtype of the layers."""
        features: Tensor = self.encoder(self.decoder(frames))
        return features

    def observe(self, frames: Tensor) -> None:
        """Update the statistics with (B, H, W, C) uint8 frames."""
        self.decoder.observe(frames)


class VectorEncoder(nn.Module):
    """Encodes vectors, (B, D) float32 to (B, F).

    Args:
        spec: the vectors.
        config: configuration of the layers.
        normalize: whether vectors are normalised by running statistics.

    Attributes:
        num_features: F.
    """

    def __init__(self, spec: VectorSpec, config: VectorConfig, normalize: bool) -> None:
        super().__init__()
        self.normalizer = ObservationNormalizer(spec.size) if normalize else None
        self.encoder = MLP(config, (spec.size,))
        self.num_features = self.encoder.num_features

    def forward(self, vectors: Tensor) -> Tensor:
        """Encode (B, D) float32 as (B, F) float32."""
        normal = vectors if self.normalizer is None else self.normalizer(vectors)
        features: Tensor = self.encoder(normal)
        return features

    def observe(self, vectors: Tensor) -> None:
        """Update the statistics with (B, D) float32 vectors."""
        if self.normalizer is not None:
            self.normalizer.update(vectors)


PartEncoder = ImageEncoder | VectorEncoder | SoundEncoder | TextEncoder
"""An encoder of a part of an observation."""


def _make_encoder(
    spec: Spec, config: PerceptionConfig[Any, Any], normalize_obs: bool
) -> PartEncoder:
    """Return the encoder of a part of an observation."""
    if isinstance(spec, ImageSpec):
        return ImageEncoder(spec, config.encoder, normalize_obs)
    if isinstance(spec, SoundSpec):
        return SoundEncoder(spec, config.sound)
    if isinstance(spec, TextSpec):
        return TextEncoder(spec, config.text)
    return VectorEncoder(spec, config.vectors, normalize_obs)


class Perception(nn.Module):
    """Computes features from observations, with memory.

    Args:
        specs: parts of an observation by name.
        config: encoders and memory.
        normalize_obs: whether observations are normalised by running statistics, which are saved
            with the module.
        precision: dtype in which the matrix products of `heavy_modules` are computed: those of the
            image encoders and, if there are images, of the memory. Parameters, the memory's state
            and everything else are float32, because rounding errors would accumulate there.

    Attributes:
        encoders: by part of an observation.
        norms: the layers that normalise their features, if any, by part.
        memory: the memory.
        precision: as above.
        num_features: F.
        num_image_features: the number of features that the image encoders compute.
        num_encoded_features: the number of features that all encoders compute, before the memory.
    """

    def __init__(
        self,
        specs: Mapping[str, Spec],
        config: PerceptionConfig[Any, Any],
        normalize_obs: bool = False,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.precision = precision
        self._has_cast: list[nn.Module] = []  # Those that need no autocast any more.
        self.encoders, self.norms = nn.ModuleDict(), nn.ModuleDict()
        self.num_image_features = 0
        size = 0
        for name, spec in specs.items():
            encoder = _make_encoder(spec, config, normalize_obs)
            if isinstance(encoder, ImageEncoder):
                self.num_image_features += encoder.num_features
            self.encoders[name] = encoder
            if config.layer_norm:
                self.norms[name] = nn.LayerNorm(encoder.num_features)
            size += encoder.num_features
        self.num_encoded_features = size
        self.memory: Memory = class_of(MEMORIES, config.memory)(config.memory, size)
        self.num_features: int = self.memory.num_features

    def forward(
        self, obs: Mapping[str, Tensor], memory_state: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the features of a sequence.

        Args:
            obs: parts by name, each (T, N, ...).
            memory_state: (S, N, M) float32, the state before the first step.
            episode_starts: (T, N) bool; where true, the memory is cleared before that step.

        Returns:
            (T, N, F) float32 features, and the (S, N, M) state after the last step.
        """
        # Encoders have no memory, so steps and environments are merged into one batch axis.
        features = self.encode({name: obs[name].flatten(0, 1) for name in self.encoders})
        features = features.unflatten(0, episode_starts.shape)
        return self._remember(features, memory_state, episode_starts)

    def step(
        self, obs: Mapping[str, Tensor], memory_state: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the features of one step, as `forward` does with T = 1, but faster.

        Args:
            obs: parts by name, each (N, ...).
            memory_state: (S, N, M) float32, the state before the step.
            episode_starts: (N,) bool; where true, the memory is cleared first.

        Returns:
            (N, F) float32 features, and the (S, N, M) state after the step.
        """
        features = self.encode(obs)
        if not self.memory.is_recurrent:
            return features, memory_state
        features, memory_state = self._remember(features[None], memory_state, episode_starts[None])
        return features[0], memory_state

    def _remember(
        self, features: Tensor, memory_state: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs of the memory for a sequence of features, see `Memory.forward`."""
        with self._autocast(features, self.memory):
            remembered: tuple[Tensor, Tensor] = self.memory(features, memory_state, episode_starts)
        return remembered

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Encode observations without memory.

        Args:
            obs: parts by name, each (B, ...); some may be missing.

        Returns:
            (B, F) float32, the features of the given parts, concatenated.
        """
        parts = []
        for name, encoder in self.encoders.items():
            if name not in obs:
                continue
            with self._autocast(obs[name], encoder):
                features = encoder(obs[name]).float()
            parts.append(self.norms[name](features) if name in self.norms else features)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def pixels(self, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return observations with images as pixels, which everything here accepts as well.

        Args:
            obs: parts by name, with any leading axes `...`.

        Returns:
            The same parts; images are (..., H, W, P) float32 in [0, 1], see `Decoder.pixels`.
        """
        decoded = dict(obs)
        for name in self.image_names:
            frames = obs[name]
            decoder = self.encoders[name].decoder
            assert isinstance(decoder, Decoder)
            flat = decoder.pixels(frames.flatten(0, -4))
            decoded[name] = flat.unflatten(0, frames.shape[:-3])
        return decoded

    def observe(self, obs: Mapping[str, Tensor]) -> None:
        """Update the statistics for normalisation with parts of observations, each (B, ...).

        Those of frozen image encoders stay as they are: other statistics change their features.
        """
        for name in self._observing():
            encoder = self.encoders[name]
            assert isinstance(encoder, PartEncoder)
            encoder.observe(obs[name])

    def _observing(self) -> list[str]:
        """Return the parts whose statistics `observe` updates."""
        frozen = [
            name
            for name in self.image_names
            if not any(p.requires_grad for p in self.encoders[name].parameters())
        ]
        return [name for name in self.encoders if name not in frozen]

    @property
    def has_statistics(self) -> bool:
        """Whether all statistics that `observe` updates are there."""
        encoders = [self.encoders[name] for name in self._observing()]
        modules = [m for encoder in encoders for m in encoder.modules()]
        return all(bool(m.count > 0) for m in modules if isinstance(m, ObservationNormalizer))

    @property
    def image_names(self) -> list[str]:
        """The names of the parts of an observation that are images."""
        return [name for name, e in self.encoders.items() if isinstance(e, ImageEncoder)]

    @property
    def encoder_parameters(self) -> list[nn.Parameter]:
        """The parameters of the image encoders."""
        return [p for name in self.image_names for p in self.encoders[name].parameters()]

    def freeze_encoders(self) -> None:
        """Let no training change the image encoders."""
        for parameter in self.encoder_parameters:
            parameter.requires_grad_(False)

    @property
    def heavy_modules(self) -> list[nn.Module]:
        """The modules whose products are computed in `precision`; they take nearly all the time."""
        images = [self.encoders[name] for name in self.image_names]
        return [*images, self.memory] if images else []

    def cast_weights(self) -> None:
        """Cast the weights of `heavy_modules` to `precision`, so that no forward pass casts them.

        Only for a copy that does not learn: training needs float32 weights. Attention keeps them,
        because autocast computes its LayerNorm and its sums in float32, as in learning.
        """
        for module in self.heavy_modules:
            if any(isinstance(layer, nn.LayerNorm) for layer in module.modules()):
                continue
            self._has_cast.append(module)
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.dtype == torch.float32:  # Statistics are kept in float64.
                    tensor.data = tensor.data.to(self.precision)

    def _autocast(
        self, tensor: Tensor, module: nn.Module
    ) -> contextlib.AbstractContextManager[torch.autocast | None]:
        if self.precision == torch.float32 or module in self._has_cast:
            return contextlib.nullcontext()
        if module not in self.heavy_modules:
            return contextlib.nullcontext()
        return torch.autocast(tensor.device.type, self.precision)
