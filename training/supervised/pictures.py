"""Pictures of what was predicted.

Axes: K classes, H, W a picture.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from storage.files import write_atomically
from training.supervised.task import Picture

_COLUMNS = 8


def confusion_picture(matrix: NDArray[np.int64], classes: Sequence[str]) -> Picture:
    """Return a picture of a confusion matrix.

    Args:
        matrix: (K, K), how often each class was predicted (columns) for each (rows).
        classes: their names.
    """
    side = 1.5 + 0.45 * len(classes)
    figure = Figure(figsize=(side + 0.5, side), layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(matrix):
        if number:
            dark = shares[row, column] > 0.5
            axes.text(column, row, f"{number:,}", ha="center", va="center", size=8).set_color(
                "white" if dark else "black"
            )
    axes.set_xticks(range(len(classes)), classes, rotation=0 if len(classes[0]) < 4 else 45)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    return drawn(figure)


def sheet(
    images: Sequence[NDArray[np.uint8]], titles: Sequence[str], columns: int = _COLUMNS
) -> Picture:
    """Return a picture of several images with titles.

    Args:
        images: each (H, W) or (H, W, 1) gray, or (H, W, 3) RGB.
        titles: one for each.
        columns: the number of images beside each other.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height, width = images[0].shape[:2]
    figure = Figure(figsize=(1.5 * columns, (1.5 * height / width + 0.3) * rows))
    figure.set_layout_engine("constrained")
    for i, (image, title) in enumerate(zip(images, titles, strict=True)):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(title, size=8)
        axes.set_axis_off()
    return drawn(figure)


def strips(rows: NDArray[np.uint8], gap: int = 2, scale: int = 2) -> Picture:
    """Return a picture of rows of gray images, enlarged.

    Args:
        rows: (R, N, H, W), R rows of N images.
        gap: white pixels between images.
        scale: how many pixels of the picture are one of an image, in each direction.
    """
    framed = np.pad(rows, ((0, 0), (0, 0), (gap, 0), (gap, 0)), constant_values=255)
    gray = np.concatenate([np.concatenate(list(row), axis=1) for row in framed], axis=0)
    return np.repeat(np.repeat(np.repeat(gray[..., None], 3, 2), scale, 0), scale, 1)


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture as a PNG file, atomically."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "png")
    write_atomically(path, content.getvalue())


def drawn(figure: Figure) -> Picture:
    """Return what a figure looks like."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return np.asarray(Image.open(content).convert("RGB"))
