"""Comparisons in TensorBoard: tables, scalars and bands over training seeds.

Every result is a separate run, so that TensorBoard lists it and shows it in its own colour.

Nothing is written for the HParams tab: it has the columns of one run of the whole log folder, and
those of a comparison would take the place of the hyper-parameters of the training runs. Tags sort
after `eval/` and `rollout/`, and means before other statistics, because TensorBoard opens on the
first tag.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard.writer import SummaryWriter

from evaluation.compare import Comparison, Result
from evaluation.report.curves import Curve, learning_curves
from evaluation.report.markdown import markdown
from evaluation.report.report import folder_names
from evaluation.report.skill import Document, lines_of, rows_of
from evaluation.statistics import band

_STATISTICS = ("ci_low", "ci_high", "median", "iqm", "std", "mean_length")
_BAND = ("mean", "low", "high")
_LAYOUT = "learning curves"
# Marks the files of comparisons: event files of training runs in the folder must not be removed.
_SUFFIX = ".compare"


def write_board(comparison: Comparison, folder: Path) -> None:
    """Write event files, in place of those of an earlier comparison.

    Args:
        comparison: the comparison.
        folder: the folder to write to; `tensorboard --logdir` shows it, or a folder that contains
            it. Other files in it are not changed.

    Raises:
        OSError: If something cannot be written; it names the folder.
    """
    with _naming(folder):
        _write_board(comparison, folder)


def write_curves(documents: Sequence[Document], folder: Path) -> list[str]:
    """Write the learning curves of comparisons, in place of those of an earlier call.

    Each agent is a run, with the mean, lowest and highest of its training seeds. So are the values
    to compare with, as constant lines. Under Custom Scalars, each environment is one chart.

    Args:
        documents: the JSON of comparisons, one for each environment.
        folder: the folder to write to, as in `write_board`.

    Returns:
        The environments that have curves; the others are left out.

    Raises:
        OSError: If something cannot be written; it names the folder.
    """
    with _naming(folder):
        _remove_ours(folder)
        return _write_curves(documents, folder)


def _write_curves(documents: Sequence[Document], folder: Path) -> list[str]:
    charts: dict[str, list[Any]] = {}
    with contextlib.ExitStack() as stack:
        writers: dict[str, SummaryWriter] = {}
        for document in documents:
            env = str(document["env"])
            agents = {row.agent: row.curves for row in rows_of(document) if row.curves}
            if not agents:
                continue
            charts[env] = ["Margin", [_tag(env, part) for part in _BAND]]
            ends = [(steps[0], steps[-1]) for of_agent in agents.values() for steps, _ in of_agent]
            span = np.array([min(first for first, _ in ends), max(last for _, last in ends)])
            lines = {name: [(span, np.full(2, v))] for name, v in lines_of(document).items()}
            for name, of_seeds in (agents | lines).items():
                if name not in writers:
                    (place,) = folder_names([name])
                    writers[name] = stack.enter_context(_writer(folder / place))
                # Lines have as many points as curves: a few would be outliers, and not be shown.
                _write_band(writers[name], env, of_seeds)
        if charts:
            # In the run of the first agent, because another folder would be another run.
            next(iter(writers.values())).add_custom_scalars({_LAYOUT: charts})
    return list(charts)


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Let errors of the disk name a folder, and not be printed by TensorBoard's thread as well."""
    before = threading.excepthook

    def excepthook(args: threading.ExceptHookArgs) -> None:
        if not issubclass(args.exc_type, OSError):
            before(args)

    threading.excepthook = excepthook
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        threading.excepthook = before


def _remove_ours(folder: Path) -> None:
    ours = f"events.out.tfevents*{_SUFFIX}"
    for old in [*folder.glob(ours), *folder.glob(f"*/{ours}")]:
        old.unlink()
        with contextlib.suppress(OSError):  # The folder is not empty.
            old.parent.rmdir()


def _write_board(comparison: Comparison, folder: Path) -> None:
    _remove_ours(folder)
    env = comparison.config.env
    curves = learning_curves(comparison)
    names = folder_names([*(result.name for result in comparison.results), *curves])
    folders = [folder / name for name in names]
    with _writer(folder) as writer:
        writer.add_text(f"compare/{env}", markdown(comparison), 0)
        layout = {env: {_LAYOUT: ["Margin", [_tag(env, part) for part in _BAND]]}}
        writer.add_custom_scalars(layout)
    for result, own in zip(comparison.results, folders, strict=False):
        with _writer(own) as writer:
            _write_result(writer, comparison, result)
    for of_seeds, own in zip(curves.values(), folders[len(comparison.results) :], strict=True):
        with _writer(own) as writer:
            _write_band(writer, env, of_seeds)


def _writer(folder: Path) -> contextlib.closing[SummaryWriter]:
    return contextlib.closing(SummaryWriter(str(folder), filename_suffix=_SUFFIX))


def _write_result(writer: SummaryWriter, comparison: Comparison, result: Result) -> None:
    """Write scores at the number of env steps of the training."""
    env, step = comparison.config.env, int(result.env_steps)
    writer.add_scalar(f"scores/{env}", result.score.mean, step)
    for name in _STATISTICS:
        value = float(getattr(result.score, name))
        writer.add_scalar(f"scores_of_{_clean(env)}/{name}", value, step)


def _write_band(writer: SummaryWriter, env: str, curves: Sequence[Curve]) -> None:
    for step, *values in zip(*band(curves), strict=True):
        for part, value in zip(_BAND, values, strict=True):
            writer.add_scalar(_tag(env, part), float(value), int(step))


def _tag(env: str, part: str) -> str:
    return f"seeds_of_{_clean(env)}/{part}"


def _clean(env: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", env)
