"""Perception: from observations to features, with memory, for every agent."""

from perception.decode import ImageSpec, VectorSpec
from perception.encoders import ENCODERS, EncoderConfig, PerceptionError
from perception.memory import MEMORIES, Memory, MemoryConfig
from perception.perception import Perception, PerceptionConfig, Spec
from perception.sound import SoundConfig, SoundSpec
from perception.text import TextConfig, TextSpec

__all__ = [
    "ENCODERS",
    "MEMORIES",
    "EncoderConfig",
    "ImageSpec",
    "Memory",
    "MemoryConfig",
    "Perception",
    "PerceptionConfig",
    "PerceptionError",
    "SoundConfig",
    "SoundSpec",
    "Spec",
    "TextConfig",
    "TextSpec",
    "VectorSpec",
]
