"""Small data sets: in the layout of MNIST, and scenes."""

from __future__ import annotations

import gzip
import struct

import numpy as np

from training.supervised.scenes import Scenes


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


def made_scenes(count, config, seed=0):
    """Return scenes in which each kind may be in one quadrant, as a square of its brightness."""
    rng = np.random.default_rng(seed)
    height, width = config.height, config.width
    frames = rng.integers(0, 40, (count, *config.spec.shape), np.uint8)
    classes = np.zeros((count, height, width), np.uint8)
    counts = np.zeros((count, 3), np.int16)
    bearing = np.full(count, np.nan, np.float32)
    for i in range(count):
        for kind in range(3):
            if rng.random() < 0.5:
                row, column = rng.integers(2, size=2) * (height // 2, width // 2)
                place = np.s_[row : row + height // 2, column : column + width // 2]
                frames[i][place], classes[i][place] = 85 + 85 * kind, kind + 1
        counts[i] = [(classes[i] == kind + 1).any() for kind in range(3)]
        if counts[i, 0]:
            columns = np.nonzero(classes[i] == 1)[1]
            bearing[i] = 90 * (columns.mean() + 0.5) / width - 45
    return Scenes(
        frames=frames,
        classes=classes,
        counts=counts,
        bearing=bearing,
        distance=np.where(np.isnan(bearing), bearing, 300).astype(np.float32),
        scenario=(np.arange(count) % len(config.scenarios)).astype(np.uint8),
        trained=np.arange(count) % 3 == 0,
        part=(np.arange(count) % 5 // 3 + (np.arange(count) % 5 == 4)).astype(np.uint8),
        seed=np.arange(count, dtype=np.int64) // 2,
        step=np.arange(count, dtype=np.int32),
        palette=np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1),
    )
