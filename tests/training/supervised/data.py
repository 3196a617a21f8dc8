"""Small data sets in the layout of MNIST."""

from __future__ import annotations

import gzip
import struct

import numpy as np


def idx(array, *, kind=8, shape=None):
    """Return the content of an IDX file; the header may lie."""
    shape = array.shape if shape is None else shape
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + array.tobytes()


def quadrants(count, seed, side=12):
    """Return images with one bright quadrant among noise, and which one it is."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 4).astype(np.uint8)
    images = rng.integers(0, 160, (count, side, side), np.uint8)
    half = side // 2
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[row * half : (row + 1) * half, column * half : (column + 1) * half] += 40
    return images, labels


def write_quadrants(folder, *, train=120, test=40, packed=False):
    """Write a data set of quadrants, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (part, count) in enumerate((("train", train), ("t10k", test))):
        for kind, array in zip(("images", "labels"), quadrants(count, seed), strict=True):
            content = idx(array)
            path = folder / f"{part}-{kind}-idx{array.ndim}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    return folder
