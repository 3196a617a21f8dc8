"""Check everything that needs a GPU, in at most eight minutes.

    make gpu-check

runs the tests marked `gpu`, trains `basic` to a return of 75, trains it as one rank under torchrun,
whose messages go through NCCL, and measures the speed of training.
The report is written to benchmarks/results/gpu.md and gpu.json. It names the settings that were not
measured because time ran out.
"""

from __future__ import annotations

from commands.start import prepare

prepare("", THP_MEM_ALLOC_ENABLE="1")  # as train.py does

import contextlib
import dataclasses
import faulthandler
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from agents.device import choose_precision, keep_memory, precision_name
from agents.gradients import GradientMode
from agents.inference import Inference
from envs import SharedVectorEnv
from envs.speed import random_env_steps_per_second
from storage.provenance import git_revision, hardware, versions
from training.assemble import make_agent, make_collector, make_envs
from training.config import AnyTrainConfig, default_config, with_values

_SCENARIO = "health_gathering"
_OTHERS = ("basic", "defend_the_center", "maps:arena")
_TARGET = 75.0  # mean return in `basic`; a scripted player that sees everything reaches 80
_TESTS_S, _TRAINING_S, _RANKS_S = 120.0, 120.0, 60.0
_MEASURE_S = 3.0
_HANG_S = 90.0  # A setting that takes longer hangs: the check ends, with a stack of each thread.
_MINIBATCH_SIZE = 1024
_NO_TIME = "not measured: no time was left"
_MODES: tuple[tuple[Inference, GradientMode], ...] = (
    ("eager", "eager"),
    ("cuda-graph", "eager"),
    ("cuda-graph", "cuda-graph"),
)
_SIZES = ((16, 2), (64, 2), (64, 4), (256, 4), (128, 4))  # environments, groups


Part = Literal["tests", "training", "ranks", "throughput"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """The parts of the check, and where the report goes."""

    out: Path = Path(__file__).parent / "results"
    """Folder of the report."""
    seconds: float = 480.0
    """Time limit; settings that have not started by then are not measured."""
    parts: tuple[Part, ...] = ("tests", "training", "ranks", "throughput")
    """Parts to run."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured setting of a training run.

    Attributes:
        num_envs: environments in parallel.
        num_groups: groups that alternate.
        env: the environment.
        memory: name of the policy's memory.
        inference: how the policy acts.
        gradients: how gradients are computed.
        precision: of image encoders and memory.
        overlap: whether the next rollout is collected during an update.
        env_steps_per_s: speed of collecting and learning; None if it was not measured.
        collect_env_steps_per_s: speed of collecting without learning; None if not measured.
        shares: share of the training's time by phase.
        error: why it was not measured.
    """

    num_envs: int
    num_groups: int
    env: str = _SCENARIO
    memory: str = "none"
    inference: Inference = "cuda-graph"
    gradients: GradientMode = "eager"
    precision: Literal["auto", "float32"] = "auto"
    overlap: bool = False
    env_steps_per_s: float | None = None
    collect_env_steps_per_s: float | None = None
    shares: dict[str, float] = field(default_factory=dict)
    error: str = ""


def main() -> int:
    """Run the check, write the report, and return the exit status: 0 if nothing failed."""
    config = tyro.cli(Check, description=__doc__)
    if not torch.cuda.is_available():
        print("gpu-check: PyTorch finds no GPU", file=sys.stderr)
        return 2
    deadline = time.monotonic() + config.seconds
    keep_memory()
    report: dict[str, Any] = {
        "machine": hardware(),
        "versions": versions(),
        "commit": git_revision(),
    }
    config.out.mkdir(parents=True, exist_ok=True)
    for part, found in results(config, deadline):
        report[part] = found
        (config.out / "gpu.json").write_text(json.dumps(report, indent=2) + "\n")
        (config.out / "gpu.md").write_text(markdown(report))
    statuses = [report.get(part, {}).get("status", 0) for part in ("tests", "training", "ranks")]
    reached = report.get("training", {}).get("reached", "training" not in config.parts)
    return int(any(statuses) or not reached)


def results(config: Check, deadline: float) -> Iterator[tuple[Part, Any]]:
    """Run the parts of the check; yield the name and the results so far of a part."""
    if "tests" in config.parts:
        yield "tests", run_tests()
    if "training" in config.parts:
        yield "training", train_basic(config.out)
    if "ranks" in config.parts:
        yield "ranks", train_as_rank(config.out)
    if "throughput" in config.parts:
        rows: list[dict[str, Any]] = []
        for row in throughput(deadline):
            rows.append(dataclasses.asdict(row))
            yield "throughput", rows


def run_tests() -> dict[str, Any]:
    """Run the tests marked `gpu`; return the exit status and the last lines of the output."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["--numprocesses", "4"]
    try:
        done = subprocess.run(
            [*command, "tests/agents/test_cuda.py", "--tb=short"],
            capture_output=True,
            text=True,
            timeout=_TESTS_S,
            cwd=Path(__file__).parents[1],
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else ""
        return {"status": 124, "summary": f"took longer than {_TESTS_S:g} s", "output": output}
    print(done.stdout[-6000:], done.stderr[-2000:], flush=True)
    lines = done.stdout.strip().splitlines()
    return {
        "status": done.returncode,
        "summary": lines[-1] if lines else "",
        "output": done.stdout[-6000:],
    }


def train_basic(out: Path) -> dict[str, Any]:
    """Train `basic` with its preset; return its evaluations, its time and whether it reached 75."""
    folder = out / "gpu-basic"
    started = time.monotonic()
    command = [sys.executable, "train.py", "basic", "--device", "cuda", "--no-record", "--fresh"]
    try:
        done = subprocess.run(
            [*command, "--run-dir", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # Where evaluations are shown.
            text=True,
            timeout=_TRAINING_S,
            cwd=Path(__file__).parents[1],
            check=False,
        )
        output, status = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else ""
        status = 124
    print(output[-3000:], flush=True)
    found = re.findall(r"([\d,]+) env steps · evaluation (-?[\d.,]+)", output)
    evaluations = [(int(n.replace(",", "")), float(v.replace(",", ""))) for n, v in found]
    return {
        "status": status,
        "seconds": round(time.monotonic() - started, 1),
        "evaluations": evaluations,
        "reached": any(value >= _TARGET for _, value in evaluations),
        "output": output[-3000:],
    }


def train_as_rank(out: Path) -> dict[str, Any]:
    """Train and resume as one rank under torchrun, and measure what its messages take.

    Returns:
        The first exit status that is not 0, or 0; the output; and the times in ms by message.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    training = ["train.py", "basic", "--device", "cuda", "--normalize-obs", "--normalize-returns"]
    training += ["--eval-envs", "none", "--run-dir", str(out / "gpu-rank"), "--total-env-steps"]
    commands = [[*training, "8192", "--fresh"], [*training, "16384"], ["-m", "benchmarks.ranks"]]
    report: dict[str, Any] = {"status": 0, "output": ""}
    for command in commands:
        try:
            done = subprocess.run(
                [*torchrun, *command],
                capture_output=True,
                text=True,
                timeout=_RANKS_S,
                cwd=Path(__file__).parents[1],
                check=False,
            )
            report["status"], said = done.returncode, done.stdout
            report["output"] += said + done.stderr[-3000:]
        except subprocess.TimeoutExpired:
            report["status"] = 124
        if report["status"]:
            break
    else:
        report["milliseconds"] = json.loads(said.splitlines()[-1])
    print(report["output"][-3000:], flush=True)
    return report


def settings() -> Iterator[Row]:
    """Yield the settings to measure, the most informative first."""
    for memory, (inference, gradients) in itertools.product(("none", "lstm"), _MODES):
        yield Row(
            num_envs=32, num_groups=2, memory=memory, inference=inference, gradients=gradients
        )
    for memory in ("gru", "mingru", "attention"):
        yield Row(num_envs=32, num_groups=2, memory=memory, gradients="cuda-graph")
    yield Row(num_envs=32, num_groups=2, precision="float32", gradients="cuda-graph")
    for memory in ("none", "lstm"):
        yield Row(num_envs=32, num_groups=2, memory=memory, overlap=True)
    for num_envs, num_groups in _SIZES:
        yield Row(num_envs=num_envs, num_groups=num_groups, gradients="cuda-graph")
    yield Row(num_envs=128, num_groups=4, overlap=True)  # In the environments of the last size.
    for env in _OTHERS:
        yield Row(env=env, num_envs=64, num_groups=4, gradients="cuda-graph")
    yield Row(num_envs=32, num_groups=2, inference="compiled")


def throughput(deadline: float) -> Iterator[Row]:
    """Measure each setting until the deadline."""
    by_envs = itertools.groupby(settings(), lambda row: (row.env, row.num_envs, row.num_groups))
    for _, group in by_envs:
        rows = list(group)
        if time.monotonic() > deadline:
            yield from (dataclasses.replace(row, error=_NO_TIME) for row in rows)
            continue
        with opened(training_config(rows[0])) as envs:
            for row in rows:
                if time.monotonic() > deadline:
                    yield dataclasses.replace(row, error=_NO_TIME)
                    continue
                faulthandler.dump_traceback_later(_HANG_S, exit=True)
                try:
                    measured = measure(envs, row)
                except Exception as error:  # The other settings are still measured.
                    reason = str(error).strip().splitlines() or [""]
                    measured = dataclasses.replace(
                        row, error=f"{type(error).__name__}: {reason[0]}"
                    )
                faulthandler.cancel_dump_traceback_later()
                print(measured, flush=True)
                yield measured


def training_config(row: Row) -> AnyTrainConfig:
    """Return the configuration of a setting: the environment's preset with larger minibatches."""
    values = {
        "num_envs": row.num_envs,
        "num_groups": row.num_groups,
        "inference": row.inference,
        "gradients": row.gradients,
        "precision": row.precision,
        "overlap": row.overlap,
        "device": "cuda",
        "agent.minibatch_size": _MINIBATCH_SIZE,
    }
    return with_values(default_config(row.env, memory=row.memory), values)


@contextlib.contextmanager
def opened(config: AnyTrainConfig) -> Iterator[SharedVectorEnv]:
    """Open the environments of a configuration, and print their speed without a policy."""
    envs = make_envs(config, config.num_envs, config.num_groups)
    with contextlib.closing(envs):
        limit = random_env_steps_per_second(envs, 30)
        print(f"{config.num_envs} environments in {config.num_groups} groups:", end=" ")
        print(f"environment-only limit (random actions) {limit:,.0f} env steps/s")
        yield envs


def measure(envs: SharedVectorEnv, row: Row) -> Row:
    """Collect and learn for some seconds."""
    config = training_config(row)
    agent = make_agent(config, envs, torch.device("cuda"))
    collector = make_collector(config, envs, agent, seed=0)
    with contextlib.closing(collector):
        agent.update(collector.collect().rollout)  # Algorithms are chosen in the first one.
        torch.cuda.synchronize()
        started, collecting, updates = time.perf_counter(), 0.0, 0
        collector.stopwatch.seconds.clear()
        while time.perf_counter() - started < _MEASURE_S:
            collector.stopwatch.skip()
            begun = time.perf_counter()
            rollout = collector.collect().rollout
            torch.cuda.synchronize()
            collecting += time.perf_counter() - begun
            agent.update(rollout)
            torch.cuda.synchronize()
            updates += 1
        seconds = time.perf_counter() - started
    env_steps = updates * config.env_steps_per_update
    shares = {name: part / seconds for name, part in collector.stopwatch.seconds.items()}
    return dataclasses.replace(
        row,
        env_steps_per_s=env_steps / seconds,
        collect_env_steps_per_s=env_steps / collecting,
        shares={**shares, "update": 1 - collecting / seconds},
    )


def markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    machine = report["machine"]
    precision = precision_name(choose_precision("auto", torch.device("cuda")))
    lines = [
        "# On a GPU",
        "",
        f"{machine['gpu']}, {machine['cores']} cores of {machine['cpu']}, torch "
        f"{report['versions']['torch']}, {precision}; commit {report['commit']}. Made by "
        "`make gpu-check`.",
        "",
    ]
    if "tests" in report:
        lines += [f"Tests marked `gpu`: {report['tests']['summary']}.", ""]
    if training := report.get("training"):
        steps = [n for n, value in training["evaluations"] if value >= _TARGET]
        reached = f"reached {_TARGET:g} at {steps[0]:,} env steps" if steps else "did not reach it"
        lines += [
            f"`python train.py basic --device cuda`, to a return of {_TARGET:g}: {reached}; "
            f"{training['seconds']:g} s in total, with start-up and evaluations.",
            "",
        ]
    if ranks := report.get("ranks"):
        times = ranks.get("milliseconds", {})
        found = ", ".join(f"{name} {value:.2f} ms" for name, value in times.items())
        lines += [f"One rank under torchrun, with NCCL: {found or 'failed'}.", ""]
    if rows := report.get("throughput"):
        lines += table(rows)
    return "\n".join(lines).rstrip() + "\n"


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the measured settings as a Markdown table."""
    lines = [
        f"PPO with the environment's preset and minibatches of {_MINIBATCH_SIZE:,}: env steps per "
        "second of training (collecting and learning) and of collecting only, and how the time of "
        "training is shared. With overlap, collecting is what the update has to wait for.",
        "",
        "| environment | number | groups | memory | precision | inference | gradients | overlap "
        "| training | collecting | shares |",
        "| --- | ---: | ---: | --- | --- | --- | --- | --- | ---: | ---: | --- |",
    ]
    for row in rows:
        if row["env_steps_per_s"] is None:
            figures = ["", "", row["error"]]
        else:
            named = sorted(row["shares"].items(), key=lambda item: -item[1])
            figures = [
                f"{row['env_steps_per_s']:,.0f}",
                f"{row['collect_env_steps_per_s']:,.0f}",
                ", ".join(f"{name} {100 * share:.0f} %" for name, share in named),
            ]
        names = ("num_envs", "num_groups", "memory", "precision", "inference", "gradients")
        overlap = "yes" if row["overlap"] else "no"
        setting = [row["env"], *(str(row[name]) for name in names), overlap]
        lines.append(f"| {' | '.join([*setting, *figures])} |")
    return [*lines, ""]


if __name__ == "__main__":
    sys.exit(main())
