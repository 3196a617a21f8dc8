"""Logging through Stable-Baselines3's Logger: to TensorBoard, a CSV file and a progress bar.

Tags are those of Stable-Baselines3, so that its runs and ours can be compared in TensorBoard. The x
axis is env steps.
"""

from __future__ import annotations

import contextlib
import csv
import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from stable_baselines3.common.logger import (
    HParam,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
    filter_excluded_keys,
)
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread
from torch.utils.tensorboard.writer import SummaryWriter

from agents.objectives.objective import GROUP
from evaluation.printing import PlainConsole
from storage.files import FileError, read_regular, replacing

_NOT_IN_TEXT = ("stdout", "csv", "json", "log")
_EPISODES = 100  # Episodes that a mean is over, as in Stable-Baselines3.
_NOT_AVERAGED = ("r", "l", "t")  # Return and length are logged under other tags; t is wall time.
# Without a terminal, a line is printed each time this share of the training has passed.
_SHARE_PER_LINE = 0.05
_STEPS = "time/total_timesteps"
_MAX_CSV_BYTES = 2**28


@dataclass(frozen=True)
class Shown:
    """What a progress bar shows.

    Attributes:
        unit: what the length of the training is counted in.
        score: the name of the score, and its tag.
        speed: the unit of the speed, and its tag.
    """

    unit: str = "env steps"
    score: tuple[str, str] = ("return", "rollout/ep_rew_mean")
    speed: tuple[str, str] = ("env steps/s", "time/env_steps_per_s")


class ProgressWriter(KVWriter):
    """Shows a progress bar with score, speed and time left, or lines if there is no terminal.

    Args:
        total: length of the whole training run.
        start: the part of it that is already done.
        shown: what is shown.
        is_shown: whether it is; what is said is printed anyway.
    """

    def __init__(self, total: int, start: int, shown: Shown, *, is_shown: bool = True) -> None:
        self._total, self._next_line, self._shown = total, float(start), shown
        self._console = PlainConsole(stderr=True)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (is_shown and self._console.is_terminal),
        )
        text = f"{shown.score[0]} - · - {shown.speed[0]}"
        self._task = self._bar.add_task("training", total=total, completed=start, text=text)
        self._bar.start()

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Show one record."""
        (score, score_tag), (per_second, speed_tag) = self._shown.score, self._shown.speed
        if speed_tag not in key_values:
            return
        value = _number(key_values.get(score_tag))
        speed = f"{key_values[speed_tag]:,.0f} {per_second}"
        text = f"{score} [bold]{value}[/] · {speed}"
        self._bar.update(self._task, completed=step, text=text)
        if self._bar.disable and step >= self._next_line:
            self._next_line = step + _SHARE_PER_LINE * self._total
            line = f"{step:>9,} / {self._total:,} {self._shown.unit} · {score} {value} · {speed}"
            self._console.print(line, highlight=False)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, highlight=False)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.stop()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"


class _TensorBoardWriter(TensorBoardOutputFormat):
    """Writes TensorBoard's files, and starts a new file after a write that failed.

    TensorBoard writes them in a thread, which a failed write ends. The thread's traceback is not
    printed, because the same error is raised here at the next write.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self._folder = str(folder)
        self.writer: SummaryWriter = SummaryWriter(self._folder, purge_step=purge_step)
        self._is_closed = self._has_failed = False
        self._excepthook, threading.excepthook = threading.excepthook, self._on_exception

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Write one record.

        Raises:
            OSError: If it cannot be written.
        """
        if self._has_failed:
            with contextlib.suppress(OSError):
                self.writer.close()
            self.writer = SummaryWriter(self._folder)
        self._has_failed = True
        super().write(key_values, key_excluded, step)
        self._has_failed = False

    def close(self) -> None:
        """Close the file."""
        threading.excepthook = self._excepthook
        super().close()

    def _on_exception(self, args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.thread, _AsyncWriterThread) and args.exc_type is OSError):
            self._excepthook(args)


class _CSVWriter(KVWriter):
    """Writes a row for each record; columns are in the order in which they first appear.

    Args:
        file: an empty file, open for reading and writing; it is closed with the writer.
    """

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.columns: list[str] = []

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Write one record.

        Raises:
            OSError: If it cannot be written.
        """
        row = filter_excluded_keys(key_values, key_excluded, "csv")
        if new := [name for name in row if name not in self.columns]:
            self.file.seek(0)
            rows = list(csv.DictReader(self.file))
            self.columns += new
            self.file.seek(0)
            writer = csv.DictWriter(self.file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        csv.DictWriter(self.file, self.columns, lineterminator="\n").writerow(row)
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class RunLogger(Logger):
    """Stable-Baselines3's Logger for a run folder; a run that resumes adds to its files.

    Args:
        folder: the run folder; None: nothing is written or shown, because another process does.
        total: env steps of the whole training run.
        start: env steps already done; records of later env steps are replaced.
        writers: receive each record too, after the files, and are closed with them.
        shown: what the progress bar shows.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        total: int,
        start: int,
        writers: Sequence[KVWriter] = (),
        shown: Shown | None = None,
    ) -> None:
        self._returns: deque[float] = deque(maxlen=_EPISODES)
        self._lengths: deque[float] = deque(maxlen=_EPISODES)
        if folder is None:
            self.progress = ProgressWriter(total, start, shown or Shown(), is_shown=False)
            super().__init__(None, [])
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.progress = ProgressWriter(total, start, shown or Shown())
        self._tensorboard = _TensorBoardWriter(folder, purge_step=start + 1 if start else None)
        # The CSV comes before TensorBoard: on a full disk it fails first, and loses no record.
        formats = [self.progress, _resumed_csv(folder / "progress.csv", start), self._tensorboard]
        super().__init__(str(folder), [*formats, *writers])

    def record_config(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Fill the HParams tab.

        Args:
            config: the hyper-parameters by name.
            metrics: tags to show beside them; TensorBoard looks up their values.
        """
        plain = {
            key: value if isinstance(value, (int, float, bool, str)) else str(value)
            for key, value in config.items()
        }
        self.record("hparams", HParam(plain, dict(metrics)), exclude=_NOT_IN_TEXT)

    def record_episodes(self, finished: Sequence[Mapping[str, float]]) -> None:
        """Record mean return and length of the last 100 episodes, and means of other statistics.

        Args:
            finished: statistics of the episodes that ended since the last call; the other means are
                over these alone.
        """
        self._returns.extend(episode["r"] for episode in finished)
        self._lengths.extend(episode["l"] for episode in finished)
        if self._returns:
            self.record("rollout/ep_rew_mean", _mean(self._returns))
            self.record("rollout/ep_len_mean", _mean(self._lengths))
        for key in finished[0] if finished else ():
            if key not in _NOT_AVERAGED:
                self.record(f"rollout/ep_{key}_mean", _mean([e[key] for e in finished]))

    @property
    def last_episodes(self) -> tuple[list[float], list[float]]:
        """Returns and lengths of the episodes that the means are over."""
        return list(self._returns), list(self._lengths)

    def restore_episodes(self, returns: Sequence[float], lengths: Sequence[float]) -> None:
        """Restore the `last_episodes` of a run that resumes."""
        self._returns.extend(returns)
        self._lengths.extend(lengths)

    def record_update(self, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an update; those of objectives form a group of their own."""
        for name, value in metrics.items():
            self.record(name if name.startswith(GROUP) else f"train/{name}", value)

    def record_gif(self, tag: str, gif: bytes, width: int, height: int, step: int) -> None:
        """Show a GIF in TensorBoard's Images tab, because its function for videos is broken.

        Args:
            tag: name of the image.
            gif: content of a GIF file.
            width: width of the pictures, in pixels.
            height: height of the pictures, in pixels.
            step: env steps of the training so far.
        """
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        writer = self._tensorboard.writer._get_file_writer()  # `add_image` takes no GIF.
        writer.add_summary(summary, step)

    def record_picture(self, tag: str, picture: NDArray[np.uint8], step: int) -> None:
        """Show an (H, W, 3) RGB picture in TensorBoard's Images tab.

        Args:
            tag: name of the image.
            picture: the picture.
            step: the x axis.
        """
        self._tensorboard.writer.add_image(tag, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Close every file, also if the last records cannot be written."""
        for output_format in self.output_formats:
            with contextlib.suppress(OSError):
                output_format.close()


def _mean(values: Collection[float]) -> float:
    """Return a mean, which is infinite or NaN if a value is, or if the sum is too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.mean(list(values)))


def _resumed_csv(path: Path, start: int) -> _CSVWriter:
    """Open progress.csv, keeping the rows up to env step `start`.

    Raises:
        FileError: If it is not a file that a training wrote.
    """
    rows: list[tuple[int, dict[str, str]]] = []
    if path.exists():
        # The last line of a program that was killed may be incomplete.
        content = read_regular(path, _MAX_CSV_BYTES).decode(errors="replace")
        lines = [line for line in content.splitlines(True) if line.endswith("\n")]
        try:
            numbered = [(int(row[_STEPS]), row) for row in csv.DictReader(lines, strict=True)]
        except (LookupError, TypeError, ValueError, csv.Error) as error:
            raise FileError(
                f"{path} is not what a training wrote; move it elsewhere to continue without it"
            ) from error
        rows = [(step, row) for step, row in numbered if step <= start]
    # Written under another name and then renamed, so that it is never incomplete; it stays open.
    with replacing(path) as temporary:
        output = _CSVWriter(temporary.open("w+", newline=""))
        for step, row in rows:
            output.write({k: v for k, v in row.items() if k}, {}, step)
    return output
