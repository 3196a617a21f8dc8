"""A comparison in TensorBoard: tables, pictures, scalars, hyper-parameters and bands over seeds.

Every result has a run of its own, so that TensorBoard gives it a colour and a line in its lists.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from evaluation.compare import Comparison, Result
from evaluation.curves import Curve, learning_curves
from evaluation.report import folder_names, markdown
from evaluation.statistics import band

_METRICS = ("mean", "ci_low", "ci_high", "median", "iqm", "std", "mean_length")
_BAND = ("mean", "low", "high")
# Known by it, so that nothing else is removed: a training's own may lie in the same folder.
_SUFFIX = ".compare"


def write_board(comparison: Comparison, folder: Path) -> None:
    """Write TensorBoard's files; those of an earlier comparison in the folder go, no others.

    Args:
        comparison: what is shown.
        folder: where; `tensorboard --logdir` of it, or of a folder above, shows it.
    """
    ours = f"events.out.tfevents*{_SUFFIX}"
    for old in [*folder.glob(ours), *folder.glob(f"*/{ours}")]:
        old.unlink()
        with contextlib.suppress(OSError):  # Something else is in it.
            old.parent.rmdir()
    world = comparison.config.env
    curves = learning_curves(comparison)
    names = folder_names([*(result.name for result in comparison.results), *curves])
    folders = [folder / name for name in names]
    with _writer(folder) as writer:
        writer.add_text(f"compare/{world}", markdown(comparison), 0)
        layout = {world: {"learning curves": ["Margin", [_tag(world, part) for part in _BAND]]}}
        writer.add_custom_scalars(layout)
    for result, own in zip(comparison.results, folders, strict=False):
        with _writer(own) as writer:
            _write_result(writer, comparison, result)
    for of_seeds, own in zip(curves.values(), folders[len(comparison.results) :], strict=True):
        with _writer(own) as writer:
            _write_band(writer, world, of_seeds)


def _writer(folder: Path) -> contextlib.closing[SummaryWriter]:
    return contextlib.closing(SummaryWriter(str(folder), filename_suffix=_SUFFIX))


def _write_result(writer: SummaryWriter, comparison: Comparison, result: Result) -> None:
    """Write scores at the env steps that the policy was trained for, and the HParams entry."""
    world, step = comparison.config.env, int(result.env_steps)
    scores = {name: float(getattr(result.score, name)) for name in _METRICS}
    metrics = {f"compare/{name}": value for name, value in scores.items()}
    config: dict[str, bool | str | float] = {
        "world": world,
        "player": result.entry,
        "actions": result.mode or "-",
        "seeds": len(result.returns),
        "frames_trained": result.env_steps * comparison.frame_skip,
        "minutes_trained": result.seconds / 60,
    }
    if result.contestants:
        about, policy = result.contestants[0].file.about, result.contestants[0].file.policy
        config |= {"agent": about.agent, "encoder": policy.config.encoder}
        config |= {"memory": policy.config.memory}
    for summary in hparams(config, metrics):
        writer._get_file_writer().add_summary(summary)  # add_hparams would make one run more
    for name, value in metrics.items():
        writer.add_scalar(name, value, step)
    writer.add_scalar(f"scenarios/{world}", result.score.mean, step)


def _write_band(writer: SummaryWriter, world: str, curves: list[Curve]) -> None:
    for step, *values in zip(*band(curves), strict=True):
        for part, value in zip(_BAND, values, strict=True):
            writer.add_scalar(_tag(world, part), float(value), int(step))


def _tag(world: str, part: str) -> str:
    return f"seeds_of_{re.sub(r'[^A-Za-z0-9_.-]+', '_', world)}/{part}"
