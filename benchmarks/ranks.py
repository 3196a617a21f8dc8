"""Measure the speed of training with several ranks on one machine, and the cost of averaging.

    python -m benchmarks.ranks --out benchmarks/results/ranks.md

trains with 1, 2 and 4 ranks that share the environments, and measures what each message between
ranks costs. Ranks compete for the same cores: on a machine with few of them, and no GPU, more ranks
cannot be faster. What is measured there is what they cost.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from agents.distributed import Averaging, Ranks, joined_ranks, launched_ranks
from envs.vector.pool import usable_cores
from storage.provenance import git_revision, hardware, versions

_ROOT = Path(__file__).resolve().parent.parent
_TRAIN = _ROOT / "train.py"
_PARAMETERS = 1_000_000  # About as many as the Nature CNN with 512 features has.
_REPEATS = 30


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")] = "basic"
    """The environment."""
    ranks: tuple[int, ...] = (1, 2, 4)
    """Numbers of ranks."""
    num_envs: int = 16
    """Environments of all ranks together."""
    total_env_steps: int = 40_000
    """Length of each training run."""
    turns: int = 3
    """Training runs with each number of ranks."""
    note: str = ""
    """A sentence for the report, such as what else the machine did."""
    out: Path | None = None
    """File of the report, in Markdown. None: it is printed."""


def main() -> None:
    """Measure, and print or write the report."""
    if launched_ranks():
        measure_messages()
        return
    config = tyro.cli(Config, description=__doc__)
    messages = {n: json.loads(_torchrun(n, ["-m", "benchmarks.ranks"])) for n in config.ranks}
    speeds: dict[int, list[float]] = {n: [] for n in config.ranks}
    for _ in range(config.turns):  # In turns, because the machine's speed drifts.
        for num_ranks, found in speeds.items():
            found.append(speed(config, num_ranks))
            print(f"{num_ranks} ranks: {found[-1]:,.0f} env steps/s", flush=True)
    report = markdown(config, messages, speeds)
    if config.out:
        config.out.write_text(report)
    print(report, end="")


def speed(config: Config, num_ranks: int) -> float:
    """Train once, and return the median env steps/s of its updates, without the first."""
    with tempfile.TemporaryDirectory() as folder:
        training = [str(_TRAIN), config.env, "--num-envs", str(config.num_envs // num_ranks)]
        training += ["--total-env-steps", str(config.total_env_steps), "--eval-envs", "none"]
        _torchrun(num_ranks, [*training, "--no-record", "--run-dir", folder])
        with (Path(folder) / "progress.csv").open() as file:
            rates = [float(row["time/env_steps_per_s"]) for row in csv.DictReader(file)]
    return statistics.median(rates[1:])


def _torchrun(num_ranks: int, program: Sequence[str]) -> str:
    """Run a program with some ranks, and return what it printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, f"--nproc-per-node={num_ranks}", *program],
        cwd=_ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def measure_messages() -> None:
    """Measure, in each rank, how long messages take; rank 0 prints medians in ms as JSON."""
    with joined_ranks("auto") as ranks:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        parameters = [torch.zeros(_PARAMETERS, device=device)]
        gradients: list[torch.Tensor | None] = [torch.ones_like(parameters[0])]
        metrics = {"loss": torch.zeros((), device=device)}
        together, apart = Averaging(ranks), Averaging(ranks, sync_every=1)
        advantages = torch.randn(256, device=device)
        found = {
            "gradients": _milliseconds(
                ranks, lambda: together.gradients(gradients, metrics, parameters)
            ),
            "advantages": _milliseconds(ranks, lambda: together.mean_and_deviation(advantages)),
            "decisions": _milliseconds(ranks, lambda: ranks.exchange({"told": False})),
            "weights": _milliseconds(ranks, lambda: apart.weights(parameters)),
        }
        if ranks.is_first:
            print(json.dumps(found))


def _milliseconds(ranks: Ranks, function: Callable[[], Any]) -> float:
    """Return the median time of a call, in ms."""
    times = []
    for _ in range(_REPEATS):
        ranks.exchange(None)  # All start at the same time.
        started = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def markdown(
    config: Config, messages: dict[int, dict[str, float]], speeds: dict[int, list[float]]
) -> str:
    """Return the report as Markdown.

    Args:
        config: what was measured.
        messages: the time of each kind of message in ms, by number of ranks.
        speeds: env steps/s of each training run, by number of ranks.
    """
    machine = hardware()
    lines = [
        "# Training with several ranks",
        "",
        f"{len(usable_cores())} cores of {machine['cpu']}, {machine['gpu'] or 'no GPU'}, torch "
        f"{versions()['torch']}; commit {git_revision()}. Made by `python -m benchmarks.ranks "
        f"{config.env}`. {config.note}".rstrip(),
        "",
        f"Env steps/s of collecting and learning in `{config.env}` with its preset, "
        f"{config.num_envs} environments over all ranks: median of {config.turns} runs of "
        f"{config.total_env_steps:,} env steps, in turns, and their range. Messages in ms: the "
        f"gradients of {_PARAMETERS:,} parameters, which each minibatch takes; the moments of its "
        "advantages; a decision, of which each update takes three; and the weights, with "
        "`--sync-every`.",
        "",
        "| ranks | env steps/s | range | gradients | advantages | decision | weights |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for num_ranks, found in speeds.items():
        cells = [f"{messages[num_ranks][name]:.2f}" for name in messages[num_ranks]]
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        row = [str(num_ranks), f"{statistics.median(found):,.0f}", spread, *cells]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
