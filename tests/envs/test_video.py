"""Tests of `envs.video`: files are read back by other libraries."""

import io
import os
import re
import resource
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from envs import EnvError
from envs.video import (
    gif_bytes,
    half_blocks,
    mp4_bytes,
    read_mp4,
    small_gif,
    write_gif,
    write_mp4,
)


def clip(count=10, height=48, width=64):
    """Return frames of one colour each, from dark to bright."""
    shades = np.linspace(20, 220, count).astype(np.uint8)
    return [np.full((height, width, 3), shade, np.uint8) for shade in shades]


def walk(count):
    """Return frames of a bright square that moves over a dark background."""
    frames = np.full((count, 48, 64, 3), (20, 40, 60), np.uint8)
    for step, frame in enumerate(frames):
        frame[10:20, 5 * step : 5 * step + 8] = (240, 200, 160)
    return list(frames)


@pytest.mark.parametrize(("size", "fps"), [((48, 64), 35.0), ((480, 640), 8.75), ((120, 160), 30)])
def test_mp4_has_the_format_that_every_browser_plays(tmp_path, size, fps):
    path = tmp_path / "clip.mp4"
    frames = clip(12, *size)
    assert write_mp4(path, iter(frames), fps) == 12 / fps
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert container.format.name.startswith("mov,mp4")
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.height, stream.width) == size
        assert float(stream.average_rate) == pytest.approx(fps)
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == 12
    for ours, theirs in zip(frames, decoded, strict=True):
        assert abs(float(ours.mean()) - float(theirs.mean())) < 6
    assert [entry.name for entry in path.parent.iterdir()] == ["clip.mp4"]
    # It can be played while it is still being loaded.
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_mp4_that_cannot_be_written_is_an_error_of_the_disk(tmp_path):
    for path in (Path("/dev/full"), tmp_path / "nothing" / "clip.mp4"):
        with pytest.raises(OSError, match=r"space|directory"):
            write_mp4(path, clip(5), 30)


def test_mp4_in_memory_is_a_video(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(mp4_bytes(clip(5), 30))
    assert len(list(read_mp4(tmp_path / "clip.mp4"))) == 5


def test_mp4_accepts_frames_that_are_views(tmp_path):
    mirrored = [frame[:, ::-1] for frame in clip(3)]
    assert write_mp4(tmp_path / "clip.mp4", mirrored, 10) == 3 / 10


def test_gif_has_the_frames_and_their_speed_and_loops():
    frames = walk(7)
    with Image.open(io.BytesIO(gif_bytes(frames, 10))) as image:
        assert image.format == "GIF"
        assert image.n_frames == 7
        assert image.size == (64, 48)
        assert image.info["loop"] == 0
        assert image.info["duration"] == 100
        for index, frame in enumerate(frames):
            image.seek(index)
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), frame)


def test_gif_keeps_the_colours_of_a_picture():
    scene = np.random.default_rng(0).integers(0, 4, (48, 64, 3)).astype(np.uint8) * 80
    with Image.open(io.BytesIO(gif_bytes([scene, 240 - scene, scene], 5))) as image:
        first = np.asarray(image.convert("RGB"), float)
    assert np.abs(first - scene).mean() < 5


def test_gif_files_keep_every_third_frame(tmp_path):
    path = tmp_path / "clip.gif"
    write_gif(path, iter(walk(9)), 30)
    with Image.open(path) as image:
        assert image.n_frames == 3
        assert image.info["duration"] == 100


CELL = re.compile(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m\u2580")


@pytest.mark.parametrize(
    ("size", "columns", "rows"),
    [((120, 160), 80, 30), ((480, 640), 40, 15), ((72, 128), 64, 18), ((10, 200), 20, 1)],
)
def test_half_blocks_fill_the_columns_and_keep_the_proportions(size, columns, rows):
    lines = half_blocks(np.zeros((*size, 3), np.uint8), columns).split("\n")
    assert len(lines) == rows
    for line in lines:
        assert len(CELL.findall(line)) == columns
        assert CELL.sub("", line) == "\x1b[0m"


def test_a_half_block_is_two_pixels():
    frame = np.array([[[1, 2, 3], [7, 8, 9]], [[4, 5, 6], [10, 11, 12]]], np.uint8)
    cells = CELL.findall(half_blocks(frame, 2))
    assert cells == [("1", "2", "3", "4", "5", "6"), ("7", "8", "9", "10", "11", "12")]


def test_a_video_is_read_back(tmp_path):
    path = tmp_path / "v.mp4"
    write_mp4(path, [np.full((32, 48, 3), 40 * n, np.uint8) for n in range(6)], 10)
    frames = list(read_mp4(path))
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((32, 48, 3), "uint8")}
    assert [round(frame.mean() / 40) for frame in frames] == list(range(6))


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 99])
def test_files_that_are_not_videos_are_refused(tmp_path, content):
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    with pytest.raises(EnvError, match=r"is not a video of at most .*, or is damaged"):
        list(read_mp4(path))


def test_what_is_no_regular_file_is_no_video(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    for name in ("fifo.mp4", "zero.mp4", "nothing.mp4", "."):
        with pytest.raises(EnvError, match="is not a video of at most"):
            list(read_mp4(tmp_path / name))


def test_a_video_of_too_many_pixels_is_not_decoded(tmp_path):
    path = tmp_path / "v.mp4"
    write_mp4(path, [np.zeros((2048, 2048, 3), np.uint8)], 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EnvError, match="at most 2,097,152 pixels"):
        list(read_mp4(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_a_small_gif_becomes_as_small_as_wanted(tmp_path):
    rng = np.random.default_rng(0)
    still = rng.integers(0, 200, (60, 80, 3), dtype=np.uint8)
    noisy = [still + rng.integers(0, 12, still.shape, dtype=np.uint8) for _ in range(6)]
    large = len(gif_bytes(noisy, 10))
    small = small_gif(noisy, 10, large // 2)
    assert len(small) < large // 2
    (tmp_path / "small.gif").write_bytes(small)
    with Image.open(tmp_path / "small.gif") as image:
        assert (image.n_frames, image.size) == (6, (80, 60))
        image.seek(5)
        shown = np.asarray(image.convert("RGB"), int)
    assert np.abs(shown - noisy[5]).mean() < 40
    with pytest.raises(ValueError, match="6 frames do not fit into 100 bytes"):
        small_gif(noisy, 10, 100)
