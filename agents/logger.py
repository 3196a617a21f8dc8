"""Logging through Stable-Baselines3's Logger: TensorBoard, CSV and a progress bar, one record each.

Tags are the ones Stable-Baselines3 uses, so that its runs and ours overlay in TensorBoard. The x
axis is env steps.
"""

from __future__ import annotations

import contextlib
import csv
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from stable_baselines3.common.logger import (
    CSVOutputFormat,
    HParam,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
)
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread
from torch.utils.tensorboard.writer import SummaryWriter

_NOT_IN_TEXT = ("stdout", "csv", "json", "log")
_EPISODES = 100  # Means are over so many episodes, as in Stable-Baselines3.
_NOT_AVERAGED = ("r", "l", "t")  # Return and length have tags of their own; t is wall time.
# Without a terminal, a line is printed each time this share of the training has passed.
_SHARE_PER_LINE = 0.05


class ProgressWriter(KVWriter):
    """Shows records as a progress bar with return, speed and time left; else as lines.

    Args:
        total: env steps of the whole training.
        start: env steps already done.
    """

    def __init__(self, total: int, start: int) -> None:
        self._total, self._next_line = total, float(start)
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("return [bold]{task.fields[returned]}[/] · {task.fields[speed]} frames/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(
            "training", total=total, completed=start, returned="-", speed="-"
        )
        self._bar.start()

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Show one record."""
        if "time/fps" not in key_values:
            return
        returned = _number(key_values.get("rollout/ep_rew_mean"))
        speed = f"{key_values['time/fps']:,.0f}"
        self._bar.update(self._task, completed=step, returned=returned, speed=speed)
        if self._bar.disable and step >= self._next_line:
            self._next_line = step + _SHARE_PER_LINE * self._total
            line = f"{step:>9,} / {self._total:,} env steps · return {returned} · {speed} frames/s"
            self._console.print(line, highlight=False)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, highlight=False)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"


class _Board(TensorBoardOutputFormat):
    """Writes TensorBoard's files, into a new one after a write that failed.

    They are written by a thread, which a failed write ends. Its traceback is kept back, because
    what it met is raised here at the next write.
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


class RunLogger(Logger):
    """Stable-Baselines3's Logger on a run folder, going on where an earlier part stopped.

    Args:
        folder: the run folder.
        total: env steps of the whole training.
        start: env steps already done; what was logged after them is superseded.
        writers: are given each record too, after the files; closed with them.
    """

    def __init__(
        self, folder: Path, *, total: int, start: int, writers: Sequence[KVWriter] = ()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.progress = ProgressWriter(total, start)
        self._board = _Board(folder, purge_step=start + 1 if start else None)
        self._returns: deque[float] = deque(maxlen=_EPISODES)
        self._lengths: deque[float] = deque(maxlen=_EPISODES)
        # Where a disk is full, the CSV is first to notice, and loses nothing.
        formats = [self.progress, _continued_csv(folder / "progress.csv", start), self._board]
        super().__init__(str(folder), [*formats, *writers])

    def record_config(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Fill the HParams tab.

        Args:
            config: the hyper-parameters by name.
            metrics: tags that belong to them; their values are looked up by TensorBoard.
        """
        plain = {
            key: value if isinstance(value, (int, float, bool, str)) else str(value)
            for key, value in config.items()
        }
        self.record("hparams", HParam(plain, dict(metrics)), exclude=_NOT_IN_TEXT)

    def record_episodes(self, finished: Sequence[Mapping[str, float]]) -> None:
        """Record mean return and length of the last 100 episodes, and what else these told.

        Args:
            finished: statistics of the episodes that ended since the last call.
        """
        self._returns.extend(episode["r"] for episode in finished)
        self._lengths.extend(episode["l"] for episode in finished)
        if self._returns:
            self.record("rollout/ep_rew_mean", fmean(self._returns))
            self.record("rollout/ep_len_mean", fmean(self._lengths))
        for key in finished[0] if finished else ():
            if key not in _NOT_AVERAGED:
                self.record(f"rollout/ep_{key}_mean", fmean(e[key] for e in finished))

    @property
    def last_episodes(self) -> tuple[list[float], list[float]]:
        """Returns and lengths of the episodes that the means are over, to go on with them."""
        return list(self._returns), list(self._lengths)

    def restore_episodes(self, returns: Sequence[float], lengths: Sequence[float]) -> None:
        """Go on with the `last_episodes` of an earlier part."""
        self._returns.extend(returns)
        self._lengths.extend(lengths)

    def record_update(self, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an update."""
        for name, value in metrics.items():
            self.record(f"train/{name}", value)

    def record_gif(self, tag: str, gif: bytes, width: int, height: int, step: int) -> None:
        """Put an animation into the Images tab; TensorBoard's own way for videos is broken."""
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        writer = self._board.writer._get_file_writer()  # the public way is add_image
        writer.add_summary(summary, step)

    def close(self) -> None:
        """Close every file, whether it can take what is left or not."""
        for output_format in self.output_formats:
            with contextlib.suppress(OSError):
                output_format.close()


def _continued_csv(path: Path, start: int) -> CSVOutputFormat:
    """Open progress.csv with the rows up to env step `start` kept."""
    rows: list[dict[str, str]] = []
    if path.exists():
        # A program that was killed may have left half a line.
        lines = [line for line in path.read_text().splitlines(True) if line.endswith("\n")]
        rows = [row for row in csv.DictReader(lines) if int(row["time/total_timesteps"]) <= start]
    # Written beside it and put in its place, so that it is never half there; the file stays open.
    beside = path.with_name(f".{path.name}.tmp")
    output = CSVOutputFormat(str(beside))
    for row in rows:
        output.write(row, {}, int(row["time/total_timesteps"]))
    beside.replace(path)
    return output
