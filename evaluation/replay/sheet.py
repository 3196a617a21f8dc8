"""A contact sheet: several episodes that play side by side, each with its name and return.

Axes: H, W a picture in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from envs.playback import playback_fps
from envs.video import small_gif
from evaluation.entries import locate
from evaluation.protocol import Protocol
from evaluation.replay.live import play_new
from evaluation.replay.recorded import ShownEpisode
from storage.files import write_atomically
from storage.run_folder import find_player

FPS = 8.75
"""Pictures per second of a sheet: in Doom, one for each env step of four frames."""
MAX_BYTES = 500_000
"""Size that the GIF of one policy does not reach."""
_STANDSTILL = 4  # Pictures for which the end of an episode is shown.
_GAP = 6
# White is in the palette of every GIF; another colour would be replaced by one of the pictures.
_PAPER, _INK, _MUTED = (17, 17, 20), (255, 255, 255), (190, 190, 190)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A frame of an episode in a sheet, with what is written below it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        name: what is shown.
        total: the return so far.
    """

    image: NDArray[np.uint8]
    name: str
    total: str


def film(path: Path, size: tuple[int, int], num: int, *, episodes: int) -> list[Tile]:
    """Play held-out episodes with a policy, at seeds 0, 1, ..., and return its tiles.

    Args:
        path: run folder or policy file.
        size: (W, H) of the pictures.
        num: number of tiles.
        episodes: number of episodes to choose from, see `tiles_of`.

    Raises:
        FileError: If there is no policy, or it does not fit its environment.
    """
    file, _ = find_player(locate(path))
    protocol = Protocol(episodes=episodes, num_envs=1)
    with torch.no_grad():
        shown = play_new(file, path, protocol, greedy=False, trust=False)
    return tiles_of(shown, shown[0].config.env, size, num)


def write_film(out: Path, tiles: Sequence[Tile]) -> None:
    """Write the tiles of one policy as a GIF of at most `MAX_BYTES`."""
    frames = [sheet([tile]) for tile in tiles]
    write_atomically(out, small_gif(frames, FPS, MAX_BYTES))


def tiles_of(
    episodes: Sequence[ShownEpisode], name: str, size: tuple[int, int], num: int
) -> list[Tile]:
    """Return as many tiles of a policy as wanted, at normal speed.

    The part of the best episode is shown in which the return grows most. If all are shorter than
    that, they are shown one after another.

    Args:
        episodes: episodes of the policy.
        name: what is written below them.
        size: (W, H) of the pictures.
        num: number of tiles.
    """
    best = max(episodes, key=lambda shown: shown.episode.episode_return)
    every = max(1, round(playback_fps(best.config) / FPS))
    long = list(_tiles(best, name, size, every))
    if len(long) >= num:
        first = _liveliest(np.array([float(t.total.replace(",", "")) for t in long]), num)
        return long[first : first + num]
    together = [tile for shown in episodes for tile in _with_end(_tiles(shown, name, size, every))]
    return list(islice(cycle(together), num))


def _tiles(shown: ShownEpisode, name: str, size: tuple[int, int], every: int) -> Iterator[Tile]:
    total, rewards = 0.0, shown.episode.rewards
    decimals = 0 if not np.any(rewards % 1) else 2 if np.abs(np.cumsum(rewards)).max() < 10 else 1
    for number, moment in enumerate(shown.moments(size)):
        total += moment.reward
        if number % every == 0 or moment.terminated:
            yield Tile(image=moment.image, name=name, total=f"{total:,.{decimals}f}")


def _with_end(tiles: Iterator[Tile]) -> list[Tile]:
    shown = list(tiles)
    return shown + [shown[-1]] * _STANDSTILL


def _liveliest(totals: NDArray[np.float64], num: int) -> int:
    """Return the first of `num` places over which the total grows most; the last such place."""
    growth = totals[num - 1 :] - totals[: len(totals) - num + 1]
    return len(growth) - 1 - int(growth[::-1].argmax())


def sheet(tiles: Sequence[Tile], columns: int | None = None) -> NDArray[np.uint8]:
    """Return tiles side by side as one (H, W, 3) uint8 RGB picture.

    Args:
        tiles: tiles with pictures of one size.
        columns: number of tiles in a row. None: about as many as there are rows, and a few more.
    """
    columns = columns or columns_for(len(tiles))
    rows = -(-len(tiles) // columns)
    height, width = tiles[0].image.shape[:2]
    text = max(10, round(height / 10))
    cell = (width + _GAP, height + round(1.7 * text) + _GAP)
    paper = Image.new("RGB", (columns * cell[0] + _GAP, rows * cell[1] + _GAP), _PAPER)
    draw = ImageDraw.Draw(paper)
    for place, tile in enumerate(tiles):
        x, y = _GAP + place % columns * cell[0], _GAP + place // columns * cell[1]
        paper.paste(Image.fromarray(tile.image), (x, y))
        middle = y + height + round(0.85 * text)
        total = draw.textlength(tile.total, _font(text, bold=True))
        name = _fitting(draw, tile.name, width - total - text, text)
        draw.text((x, middle), name, _MUTED, _font(text), anchor="lm")
        draw.text((x + width, middle), tile.total, _INK, _font(text, bold=True), anchor="rm")
    return np.asarray(paper)


def columns_for(num: int) -> int:
    """Return how many of `num` tiles are in a row: wider than high, and with few empty places."""
    widest = range(math.ceil(math.sqrt(num)), max(1, math.ceil(math.sqrt(2 * num))) + 1)
    return min(widest, key=lambda columns: (-num % columns, columns))


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    # It comes with matplotlib, so that it is the same on every machine.
    file = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", file)), size)


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: float, size: int) -> str:
    """Return a text, shortened at its end if it is wider than `width` pixels."""
    if draw.textlength(text, _font(size)) <= width:
        return text
    while text and draw.textlength(f"{text}…", _font(size)) > width:
        text = text[:-1]
    return f"{text}…"
