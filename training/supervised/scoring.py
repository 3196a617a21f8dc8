"""Scoring a trained perception: measures with intervals, beside a trivial baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from storage.files import FileError
from storage.perception_file import PerceptionFile
from storage.policy_file import parse_named
from training.supervised import TASKS, Task
from training.supervised.network import Network, build_network
from training.supervised.task import Examples, Statistics, count, on_device

_BATCH = 256
_RESAMPLES = 1_000
_SMALLEST_TAIL, _LARGEST_TAIL = 2.5, 97.5  # Percentiles of a 95 % interval.


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measure of the test set.

    Attributes:
        value: the measure.
        low: lower end of its 95 % interval, by the percentile bootstrap over examples, or over
            whatever they are grouped by.
        high: its upper end.
        baseline: the measure of a trivial prediction.
    """

    value: float
    low: float
    high: float
    baseline: float


@torch.no_grad()
def statistics_of(task: Task[Any], network: Network, examples: Examples) -> Statistics:
    """Return the statistics of a network's predictions; the network is left in `eval` mode."""
    network.eval()
    parts = []
    for start in range(0, count(examples), _BATCH):
        part = {name: each[start : start + _BATCH] for name, each in examples.items()}
        part = on_device(part, network)
        parts.append(task.statistics(task.predict(network, part), part))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def rebuild(file: PerceptionFile, device: torch.device) -> tuple[Task[Any], Network]:
    """Return the task of a perception file and its network.

    Raises:
        FileError: If the file describes no task of this program, or its weights do not fit.
    """
    try:
        config = parse_named(TASKS, file.task, "task to see")
    except (LookupError, TypeError, ValueError) as error:
        raise FileError(f"{file.path} is no perception of doomgrad: {error}") from error
    task: Task[Any] = TASKS[file.task["name"]][1](config)
    network = build_network(
        file.specs, file.config, task.head, normalize_obs=file.normalize_obs, device=device
    )
    file.load_into(network)
    return task, network


def score(
    task: Task[Any], network: Network, source: str
) -> tuple[dict[str, Measured], Examples, Statistics]:
    """Score a network on the test set, which nothing else reads.

    Args:
        task: the task.
        network: the network.
        source: SHA-256 of the data that it was trained with.

    Returns:
        The measures by name, the examples of the test, and the statistics of the predictions.

    Raises:
        FileError: If the data are missing, damaged, or others.
    """
    if task.source() != source:
        raise FileError("the data have changed since the training, so that the test set may too")
    test = task.load("test")
    statistics = statistics_of(task, network, test)
    baseline = task.measure(task.baseline(task.load("train"), test))
    groups = test[task.unit].numpy() if task.unit else None
    low, high = interval(task.measure, statistics, groups)
    return (
        {
            name: Measured(value=value, low=low[name], high=high[name], baseline=baseline[name])
            for name, value in task.measure(statistics).items()
        },
        test,
        statistics,
    )


def interval(
    measure: Callable[[Statistics], dict[str, float]],
    statistics: Statistics,
    groups: NDArray[Any] | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the ends of 95 % percentile bootstrap intervals of measures.

    Args:
        measure: computes them.
        statistics: of which examples are drawn, with replacement.
        groups: (B,) the group of each example; whole groups are drawn. None: single examples.
    """
    rng = np.random.default_rng(0)
    size = len(next(iter(statistics.values())))
    names = np.arange(size) if groups is None else groups
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    samples: dict[str, list[float]] = {}
    for _ in range(_RESAMPLES):
        drawn = rng.integers(len(members), size=len(members))
        chosen = drawn if groups is None else np.concatenate([members[i] for i in drawn])
        for name, value in measure({n: s[chosen] for n, s in statistics.items()}).items():
            samples.setdefault(name, []).append(value)
    ends = {n: np.nanpercentile(s, (_SMALLEST_TAIL, _LARGEST_TAIL)) for n, s in samples.items()}
    return {n: float(e[0]) for n, e in ends.items()}, {n: float(e[1]) for n, e in ends.items()}


def as_json(measures: dict[str, Measured]) -> dict[str, Any]:
    """Return measures as JSON."""
    return {name: asdict(measured) for name, measured in measures.items()}
