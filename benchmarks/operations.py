"""Measure on which operations acting and learning spend their time, and how fast each of them is.

    python -m benchmarks.operations health_gathering --workload stable_baselines3 --num-envs 128

For each operation of PyTorch: its time for an env step, its share, and the rate of its
multiply-adds as a share of a plain matrix product's in the same precision. One thread computes, and
times are those of its processor, so that other programs hardly matter. Operations of the same name
on tensors of the same shapes are one row. Only for CPUs. See `benchmarks.roofline` for the phases.
"""

from __future__ import annotations

from commands.start import prepare

prepare("", THP_MEM_ALLOC_ENABLE="1")  # as train.py does

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from agents.device import choose_precision, keep_memory, single_thread
from agents.sampler import Sampler
from benchmarks.limits import measured_rates, step_of
from benchmarks.throughput import Throughput, opened, training_config
from storage.provenance import git_revision, hardware
from training.assemble import make_agent, make_collector
from training.config import AnyTrainConfig

_CPU = torch.device("cpu")
_WARM_UP, _REPEATS = 3, 3  # The first ones take memory from the operating system.


@dataclass(frozen=True, kw_only=True)
class Operations:
    """What is measured."""

    env: tyro.conf.Positional[str] = "health_gathering"
    """The scenario."""
    num_envs: int = 16
    """Number of environments."""
    memory: str | None = None
    """Memory of the policy. None: the workload's."""
    workload: Literal["preset", "sample_factory", "stable_baselines3"] = "preset"
    """What is trained."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the image encoder and the memory."""
    most: int = 12
    """Rows of each table; the others are added up."""
    out: Path | None = None
    """File of the report, in Markdown. None: it is printed only."""
    json: Path | None = None
    """File of all figures."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Operations of the same name on tensors of the same shapes.

    Attributes:
        name: PyTorch's.
        shapes: of the tensors that it reads.
        seconds: for one env step.
        multiply_adds: for one env step.
    """

    name: str
    shapes: str
    seconds: float
    multiply_adds: float


class _Timed(TorchDispatchMode):
    """Times operations of the calling thread."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # PyTorch's has no annotations
        self.totals: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        started = time.thread_time()
        result = func(*args, **kwargs)
        total = self.totals[str(func.overloadpacket), _shapes((args, kwargs))]
        total[0] += time.thread_time() - started
        if count := flop_registry.get(func.overloadpacket):
            total[1] += count(*args, **kwargs, out_val=result) / 2
        return result


def _shapes(arguments: Any) -> str:
    tensors = [part for part in tree_leaves(arguments) if isinstance(part, Tensor) and part.dim()]
    return ", ".join("x".join(map(str, part.shape)) for part in tensors[:3])


def operations(compute: Callable[[], Any], env_steps: int) -> list[Row]:
    """Return the operations of a computation, the longest first.

    Args:
        compute: the computation, which must run in the calling thread. It is run several times.
        env_steps: the number of env steps that it is of.
    """
    for _ in range(_WARM_UP):
        compute()
    with _Timed() as timed:
        for _ in range(_REPEATS):
            compute()
    count = env_steps * _REPEATS
    rows = [
        Row(name=name, shapes=shapes, seconds=seconds / count, multiply_adds=products / count)
        for (name, shapes), (seconds, products) in timed.totals.items()
    ]
    return sorted(rows, key=lambda row: -row.seconds)


def measure(config: Operations, training: AnyTrainConfig) -> dict[str, list[Row]]:
    """Return the operations of acting and of learning."""
    with opened(training) as envs:
        agent = make_agent(training, envs, _CPU)
        with contextlib.closing(make_collector(training, envs, agent, seed=0)) as sampler:
            assert isinstance(sampler, Sampler), "only our own agents are measured"
            rollout = sampler.collect().rollout
            lanes = training.num_envs // training.num_groups
            arguments = step_of(agent, rollout, lanes)
            agent._num_parts = 1  # Other threads would not be measured.
            with single_thread():
                return {
                    "acting": operations(lambda: sampler.policy.act(*arguments), lanes),
                    "update": operations(lambda: agent.update(rollout), rollout.rewards.numel()),
                }


def table(rows: Sequence[Row], most: int, rate: float) -> list[str]:
    """Return a table in Markdown.

    Args:
        rows: the operations, the longest first.
        most: the number of rows that are shown; the others are added up.
        rate: multiply-adds a second of a plain matrix product.
    """
    shown, others = rows[:most], rows[most:]
    total = sum(row.seconds for row in rows)
    lines = ["| operation | of | us | share | rate |", "| --- | --- | ---: | ---: | ---: |"]
    for row in shown:
        reached = f"{row.multiply_adds / row.seconds / rate:.2f}" if row.multiply_adds else ""
        cells = row.name, row.shapes, f"{1e6 * row.seconds:.1f}", f"{row.seconds / total:.2f}"
        lines.append(f"| {' | '.join(cells)} | {reached} |")
    left = sum(row.seconds for row in others)
    lines.append(f"| {len(others)} others | | {1e6 * left:.1f} | {left / total:.2f} | |")
    products = sum(row.multiply_adds for row in rows) / rate
    lines.append(f"| all | | {1e6 * total:.1f} | 1.00 | {products / total:.2f} |")
    return lines


def main() -> None:
    """Measure, print the tables, and write files if requested."""
    config = tyro.cli(Operations, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    keep_memory()
    options = Throughput(workload=config.workload, device="cpu", precision=config.precision)
    training = training_config(options, config.env, config.num_envs, None, config.memory)
    phases = measure(config, training)
    rate = measured_rates(choose_precision(config.precision, _CPU), 1.0).multiply_adds
    machine = hardware()
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {git_revision()}. A plain matrix product: "
        f"{rate / 1e9:.0f} billion multiply-adds a second of a core.",
    ]
    for name, rows in phases.items():
        lines += ["", f"## {name}", "", *table(rows, config.most, rate)]
    text = "\n".join(lines) + "\n"
    print(text)
    if config.out:
        config.out.write_text(text)
    if config.json:
        figures = {name: [asdict(row) for row in rows] for name, rows in phases.items()}
        config.json.write_text(json.dumps({"rate": rate, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
