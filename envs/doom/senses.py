"""What an agent may observe beside the screen: sound, and the messages that the engine displays.

Axes: L samples of a sound, 2 ears (left, right), K tokens of a text.
"""

from __future__ import annotations

import ctypes
import re
import zlib

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.errors import EnvError

SAMPLING_RATE = (
    11_025  # Samples a second, the lowest of the engine's, and that of Doom's own sounds.
)
SAMPLES_PER_FRAME = SAMPLING_RATE // 35
_LOUDEST = 2.0**15  # The engine's samples are 16-bit integers.

TEXT_LENGTH = 16
"""Number of tokens of a text, K."""
VOCABULARY = 1024
"""Number of different tokens: 0 where there is no word, and 1 to 1,023."""
_WORD = re.compile(r"[a-z0-9']+")

_OPENAL = ("libopenal.so.1", "libopenal.so", "libopenal.1.dylib", "OpenAL32.dll")
NO_OPENAL = (
    "observing sound needs OpenAL, which is not installed (package libopenal1 of Debian and "
    "Ubuntu, openal-soft elsewhere); --no-sound goes without"
)


def has_openal() -> bool:
    """Return whether the library is installed with which the engine makes sounds."""
    for name in _OPENAL:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def check_openal() -> None:
    """Check that the engine can make sounds.

    Raises:
        EnvError: If it cannot.
    """
    if not has_openal():
        raise EnvError(NO_OPENAL)


def sound_space(frame_skip: int) -> spaces.Box:
    """Return the space of the sound of an env step, (L, 2) float32 in [-1, 1]."""
    return spaces.Box(-1.0, 1.0, (SAMPLES_PER_FRAME * frame_skip, 2), np.float32)


def write_sound(buffer: NDArray[np.int16], sound: NDArray[np.float32]) -> None:
    """Write the engine's audio buffer, (L, 2) int16, into an observation, (L, 2) float32."""
    np.divide(buffer, _LOUDEST, out=sound, dtype=np.float32)


def text_space() -> spaces.Box:
    """Return the space of a text as tokens, (K,) int32."""
    return spaces.Box(0, VOCABULARY - 1, (TEXT_LENGTH,), np.int32)


def write_text(text: str | None, tokens: NDArray[np.int32]) -> None:
    """Write a text into an observation, as one token for each of its last K words.

    A token is a hash of the word in lower case, so that no list of words is needed. Two different
    words have the same token with a probability of 1 in 1,023.

    Args:
        text: the text.
        tokens: (K,) int32, the observation; 0 after the last word.
    """
    words = _WORD.findall((text or "").lower())[-TEXT_LENGTH:]
    tokens[:] = 0
    tokens[: len(words)] = [token(word) for word in words]


def token(word: str) -> int:
    """Return the token of a word in lower case, from 1 to `VOCABULARY` - 1."""
    return zlib.crc32(word.encode()) % (VOCABULARY - 1) + 1
