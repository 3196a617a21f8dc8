"""Check all that is for a GPU on a machine that has one, in at most eight minutes.

    make gpu-check

It runs the tests marked `gpu`, measures how fast trainings are, and trains `basic` to a return of
75. The report is written to benchmarks/results/gpu.md and gpu.json. What time was short for is
named as not measured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro

from agents import PPO, PPOConfig, Sampler, build_policy, observation_specs
from agents.commandline import UsageError, with_fields
from agents.device import choose_precision, keep_memory, precision_name
from agents.inference import Inference
from agents.presets import preset
from agents.run import git_revision, hardware, versions
from envs import EnvConfig, SharedVectorEnv
from envs.speed import random_env_steps_per_second
from perception import PerceptionConfig

_SCENARIO = "health_gathering"
_TARGET = 75.0  # mean return on `basic`; a scripted player that is told all makes 80
_TESTS_S, _TRAINING_S = 90.0, 120.0
_MEASURE_S = 3.0
_INFERENCE: tuple[Inference, ...] = ("eager", "cuda-graph", "compiled")
_SIZES = ((16, 2), (64, 2), (128, 4))  # environments, groups


@dataclass(frozen=True, kw_only=True)
class Check:
    """What is checked, and where the report goes."""

    out: Path = Path(__file__).parent / "results"
    """Folder of the report."""
    seconds: float = 480.0
    """When to stop; what is not begun by then is not measured."""
    parts: tuple[str, ...] = ("tests", "training", "throughput")
    """Which parts."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured setting of a training.

    Attributes:
        num_envs: environments in parallel.
        num_groups: groups that alternate.
        memory: of the policy.
        inference: how the policy acts.
        env_steps_per_s: collecting and learning; None where it failed, or time was short.
        collect_env_steps_per_s: collecting alone.
        shares: of the time of a training, by phase.
        error: why there is no figure.
    """

    num_envs: int
    num_groups: int
    memory: str
    inference: Inference
    env_steps_per_s: float | None = None
    collect_env_steps_per_s: float | None = None
    shares: dict[str, float] = field(default_factory=dict)
    error: str = ""


def main() -> int:
    """Check, write the report, and return the exit status: 0 if nothing failed."""
    config = tyro.cli(Check, description=__doc__)
    if not torch.cuda.is_available():
        print("gpu-check: PyTorch finds no GPU here", file=sys.stderr)
        return 2
    deadline = time.monotonic() + config.seconds
    keep_memory()
    report: dict[str, Any] = {
        "machine": hardware(),
        "versions": versions(),
        "commit": git_revision(),
    }
    try:
        if "tests" in config.parts:
            report["tests"] = run_tests()
        if "training" in config.parts:
            report["training"] = train_basic(config.out)
        if "throughput" in config.parts:
            report["throughput"] = [dataclasses.asdict(row) for row in throughput(deadline)]
    finally:
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "gpu.json").write_text(json.dumps(report, indent=2) + "\n")
        (config.out / "gpu.md").write_text(markdown(report))
    failed = report.get("tests", {}).get("status") or not report.get("training", {}).get("reached")
    return int(bool(failed))


def run_tests() -> dict[str, Any]:
    """Run the tests marked `gpu`; return the exit status and the last lines of the output."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
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
    """Train `basic` by its preset; return its evaluations, its time, and whether 75 was reached."""
    folder = out / "gpu-basic"
    started = time.monotonic()
    command = [sys.executable, "train.py", "basic", "--device", "cuda", "--no-record", "--fresh"]
    try:
        done = subprocess.run(
            [*command, "--run-dir", str(folder)],
            capture_output=True,
            text=True,
            timeout=_TRAINING_S,
            cwd=Path(__file__).parents[1],
            check=False,
        )
        output, status = done.stdout + done.stderr[-3000:], done.returncode
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


def settings() -> Iterator[Row]:
    """List what is measured, the most telling first."""
    for inference, memory in itertools.product(_INFERENCE[:2], ("none", "lstm")):
        yield Row(num_envs=32, num_groups=2, memory=memory, inference=inference)
    yield Row(num_envs=32, num_groups=2, memory="none", inference="compiled")
    for (num_envs, num_groups), inference in itertools.product(_SIZES, _INFERENCE[:2]):
        yield Row(num_envs=num_envs, num_groups=num_groups, memory="none", inference=inference)


def throughput(deadline: float) -> Iterator[Row]:
    """Measure each setting while there is time."""
    rows = list(settings())
    by_envs = itertools.groupby(rows, lambda row: (row.num_envs, row.num_groups))
    for (num_envs, num_groups), group in by_envs:
        with opened(num_envs, num_groups) as envs:
            for row in group:
                if envs is None or time.monotonic() > deadline:
                    yield dataclasses.replace(row, error="not measured: no time was left")
                    continue
                try:
                    measured = measure(envs, row)
                except Exception as error:  # The other settings are measured all the same.
                    reason = str(error).strip().splitlines() or [""]
                    measured = dataclasses.replace(
                        row, error=f"{type(error).__name__}: {reason[0]}"
                    )
                print(measured, flush=True)
                yield measured


@contextlib.contextmanager
def opened(num_envs: int, num_groups: int) -> Iterator[SharedVectorEnv | None]:
    """Open environments of the scenario, as its preset observes it."""
    config = with_fields(EnvConfig(env=_SCENARIO), preset(_SCENARIO, "ppo"))
    with contextlib.closing(SharedVectorEnv(config, num_envs, None, num_groups)) as envs:
        print(num_envs, num_groups, "ceiling", round(random_env_steps_per_second(envs, 30)))
        yield envs


def measure(envs: SharedVectorEnv, row: Row) -> Row:
    """Collect and learn for some seconds, by the scenario's preset."""
    fields = {**preset(_SCENARIO, "ppo"), "memory": row.memory}
    device = torch.device("cuda")
    policy = build_policy(
        observation_specs(envs.single_observation_space, envs.metadata),
        envs.single_action_space,
        with_fields(PerceptionConfig(), fields),
        device=device,
        precision=choose_precision("auto", device),
    )
    learning = with_fields(PPOConfig(minibatch_size=1024), fields)
    agent = PPO(policy, learning, num_envs=row.num_envs, total_updates=1)
    sampler = Sampler(
        envs,
        policy,
        rollout_length=learning.rollout_length,
        seed=0,
        inference=row.inference,
    )
    with contextlib.closing(sampler):
        agent.update(sampler.collect().rollout)  # The first one chooses algorithms.
        torch.cuda.synchronize()
        started, collecting, updates = time.perf_counter(), 0.0, 0
        sampler.stopwatch.seconds.clear()
        while time.perf_counter() - started < _MEASURE_S:
            sampler.stopwatch.skip()
            begun = time.perf_counter()
            rollout = sampler.collect().rollout
            torch.cuda.synchronize()
            collecting += time.perf_counter() - begun
            agent.update(rollout)
            torch.cuda.synchronize()
            updates += 1
        seconds = time.perf_counter() - started
    env_steps = updates * row.num_envs * learning.rollout_length
    shares = {name: part / seconds for name, part in sampler.stopwatch.seconds.items()}
    return dataclasses.replace(
        row,
        env_steps_per_s=env_steps / seconds,
        collect_env_steps_per_s=env_steps / collecting,
        shares={**shares, "update": 1 - collecting / seconds},
    )


def markdown(report: dict[str, Any]) -> str:
    """Write the report for people."""
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
            f"`python train.py basic --device cuda`, to {_TARGET:g}: {reached}; "
            f"{training['seconds']:g} s in all, start-up and evaluations included.",
            "",
        ]
    if rows := report.get("throughput"):
        lines += table(rows)
    return "\n".join(lines).rstrip() + "\n"


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lay out the measured settings."""
    lines = [
        f"PPO on `{_SCENARIO}` by its preset, with minibatches of 1,024: env steps a second of "
        "collecting and learning, of collecting alone, and the shares of the time.",
        "",
        "| environments | groups | memory | inference | training | collecting | shares |",
        "| ---: | ---: | --- | --- | ---: | ---: | --- |",
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
        setting = [str(row[name]) for name in ("num_envs", "num_groups", "memory", "inference")]
        lines.append(f"| {' | '.join([*setting, *figures])} |")
    return [*lines, ""]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UsageError as error:
        sys.exit(f"gpu-check: {error}")
