"""Videos: H.264 files, GIFs, and frames drawn in a terminal.

Axes: H, W a frame in pixels.
"""

from __future__ import annotations

import io
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs.errors import EnvError

_GIF_STRIDE = 3
_PALETTE_FRAMES = 8
# Number of colours, and the change of a channel that is not shown, of smaller and smaller GIFs.
_SMALLER = ((192, 6), (128, 10), (96, 14), (64, 18), (48, 24), (32, 32))
_MOST_PIXELS = 2**21  # Of a video that is read: 1600x1200; those of evaluations are smaller.


def write_mp4(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: float,
    *,
    crf: int = 20,
    key_frame_every: int = 250,
) -> float:
    """Write an H.264 video that every browser plays while it is still loading it.

    Args:
        path: path of the file; an existing one is overwritten.
        frames: (H, W, 3) uint8 RGB, all of one size with even H and W.
        fps: frames per second.
        crf: x264's constant rate factor; a higher one makes the file smaller and the quality worse.
        key_frame_every: number of frames from one key frame to the next; a lower one makes seeking
            faster and the file larger.

    Returns:
        The length of the video in seconds.

    Raises:
        OSError: If the file cannot be written.
    """
    options = {"preset": "veryfast", "crf": str(crf), "g": str(key_frame_every)}
    return _encode(str(path), frames, fps, options, {"movflags": "faststart"})


def mp4_bytes(
    frames: Iterable[NDArray[np.uint8]], fps: float, *, crf: int = 20, key_frame_every: int = 250
) -> bytes:
    """Return an H.264 video; the arguments are those of `write_mp4`."""
    buffer = io.BytesIO()
    options = {"preset": "veryfast", "crf": str(crf), "g": str(key_frame_every)}
    _encode(buffer, frames, fps, options, {})
    return buffer.getvalue()


def _encode(
    target: Any,
    frames: Iterable[NDArray[np.uint8]],
    fps: float,
    options: dict[str, str],
    of_container: dict[str, str],
) -> float:
    import av  # Imported here, because training without videos does not need it.

    count = 0
    try:
        with av.open(target, "w", format="mp4", options=of_container) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
            stream.pix_fmt = "yuv420p"
            stream.options = options
            for frame in frames:
                if count == 0:
                    stream.height, stream.width = frame.shape[:2]
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(stream.encode(picture))
                count += 1
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error
    return count / fps


def read_mp4(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the (H, W, 3) uint8 RGB pictures of a video.

    Raises:
        EnvError: If the file is not a video, is damaged, or has too many pixels.
    """
    import av

    damaged = f"{path} is not a video of at most {_MOST_PIXELS:,} pixels, or is damaged"
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as opened:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise EnvError(damaged)
            with av.open(opened, format="mp4") as container:
                stream = container.streams.video[0]
                if not 0 < stream.width * stream.height <= _MOST_PIXELS:
                    raise EnvError(damaged)
                # Pictures may be larger than the container says.
                stream.codec_context.options = {"max_pixels": str(_MOST_PIXELS)}
                for frame in container.decode(stream):
                    if frame.width * frame.height > _MOST_PIXELS:
                        raise EnvError(damaged)
                    yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        if isinstance(error, EnvError):
            raise
        raise EnvError(damaged) from error


def gif_bytes(frames: Sequence[NDArray[np.uint8]], fps: float, colours: int = 256) -> bytes:
    """Return (H, W, 3) uint8 RGB frames as an animated GIF that loops forever."""
    # One palette, taken from frames of the whole video, keeps the colours from flickering.
    sample = frames[:: -(-len(frames) // _PALETTE_FRAMES)]
    palette = Image.fromarray(np.concatenate(sample)).quantize(colours)
    none = Image.Dither.NONE
    images = [Image.fromarray(frame).quantize(palette=palette, dither=none) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(
        buffer, "GIF", save_all=True, append_images=images[1:], duration=1000 / fps, loop=0
    )
    return buffer.getvalue()


def small_gif(frames: Sequence[NDArray[np.uint8]], fps: float, max_bytes: int) -> bytes:
    """Return (H, W, 3) uint8 RGB frames as an animated GIF of a limited size.

    Colours become fewer, and pixels that change little keep their colour, until it is small enough.

    Raises:
        ValueError: If there are too many frames, or they are too large.
    """
    for colours, least_change in _SMALLER:
        content = gif_bytes(_settled(frames, least_change), fps, colours)
        if len(content) < max_bytes:
            return content
    raise ValueError(f"{len(frames)} frames do not fit into {max_bytes:,} bytes")


def _settled(frames: Sequence[NDArray[np.uint8]], least_change: int) -> list[NDArray[np.uint8]]:
    """Return frames in which a pixel keeps its colour until that has changed by more than this."""
    settled = [frames[0]]
    for frame in frames[1:]:
        change = np.abs(frame.astype(np.int16) - settled[-1]).max(axis=2, keepdims=True)
        settled.append(np.where(change > least_change, frame, settled[-1]))
    return settled


def write_gif(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float) -> float:
    """Write an animated GIF of every third frame: browsers show at most about 15 per second well.

    The arguments and the result are those of `write_mp4`; H and W may be odd.
    """
    kept = list(itertools.islice(frames, 0, None, _GIF_STRIDE))
    path.write_bytes(gif_bytes(kept, fps / _GIF_STRIDE))
    return len(kept) * _GIF_STRIDE / fps


def half_blocks(frame: NDArray[np.uint8], columns: int) -> str:
    """Return an (H, W, 3) uint8 RGB frame as text for a terminal with 24-bit colours.

    Each character is an upper half block: its colour is one pixel, and its background the pixel
    below.
    """
    height, width = frame.shape[:2]
    rows = max(1, round(columns * height / width / 2))
    small = cv2.resize(frame, (columns, 2 * rows), interpolation=cv2.INTER_AREA)
    lines = []
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        cells = (
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m\u2580"
            for a, b in zip(upper.tolist(), lower.tolist(), strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)
