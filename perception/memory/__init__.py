"""Memories: they carry a state from one env step to the next.

To add one, write a file with a subclass of `MemoryConfig` and one of `Memory`, and add a line to
`MEMORIES`.
"""

from __future__ import annotations

from perception.memory.attention import AttentionMemory, AttentionMemoryConfig
from perception.memory.memory import Memory, MemoryConfig, NoMemory, NoMemoryConfig
from perception.memory.mingru import MinGRU, MinGRUConfig
from perception.memory.recurrent import FORGET_BIAS, GRU, LSTM, GRUConfig, LSTMConfig

MEMORIES: dict[str, tuple[type[MemoryConfig], type[Memory]]] = {
    "none": (NoMemoryConfig, NoMemory),
    "lstm": (LSTMConfig, LSTM),
    "gru": (GRUConfig, GRU),
    "mingru": (MinGRUConfig, MinGRU),
    "attention": (AttentionMemoryConfig, AttentionMemory),
}
"""Memories by name: configuration and class."""

__all__ = [
    "FORGET_BIAS",
    "GRU",
    "LSTM",
    "MEMORIES",
    "AttentionMemory",
    "AttentionMemoryConfig",
    "GRUConfig",
    "LSTMConfig",
    "Memory",
    "MemoryConfig",
    "MinGRU",
    "MinGRUConfig",
    "NoMemory",
    "NoMemoryConfig",
]
