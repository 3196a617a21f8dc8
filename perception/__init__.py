"""From frames to features to memory: what every agent here sees and remembers with."""

from perception.decode import ImageSpec, VectorSpec
from perception.encoders import ENCODERS, EncoderConfig, PerceptionError
from perception.memory import MEMORIES, Memory
from perception.perception import Perception, PerceptionConfig

__all__ = [
    "ENCODERS",
    "MEMORIES",
    "EncoderConfig",
    "ImageSpec",
    "Memory",
    "Perception",
    "PerceptionConfig",
    "PerceptionError",
    "VectorSpec",
]
