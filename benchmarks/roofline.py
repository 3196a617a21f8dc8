"""Measure how near acting, learning and environments come to what this machine could do at best.

    python -m benchmarks.roofline health_gathering --memory lstm --num-envs 1 16
    python -m benchmarks.roofline --num-envs 1 2 4 8 16 --json build/roofline.json

For each phase of a training of train.py, alone: the time of a core that an env step takes, the
least that its multiply-adds need at the rate of a plain matrix product in the same precision, and
what its reads and writes need at the rate of a plain copy. Environments are compared with bare
engines, and the training with engines and products in turn. All rates and phases are measured
alternately; shares are medians over repetitions. Only for CPUs.
"""

from __future__ import annotations

from commands.start import prepare

prepare("", THP_MEM_ALLOC_ENABLE="1")  # as train.py does

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import tyro

from agents import Agent
from agents.device import choose_precision, keep_memory, single_thread
from agents.rollout import Rollout
from agents.sampler import Sampler
from benchmarks.limits import (
    Rates,
    Work,
    best_speed,
    core_seconds,
    least_seconds,
    measured_rates,
    step_of,
    training_work,
)
from benchmarks.throughput import Throughput, ceiling, opened, random_play, train, training_config
from storage.provenance import git_revision, hardware
from training.assemble import make_agent, make_collector
from training.config import AnyTrainConfig

_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """What is measured, and for how long."""

    envs: tyro.conf.Positional[tuple[str, ...]] = ("health_gathering",)
    """Scenarios."""
    num_envs: tuple[int, ...] = (16,)
    """Numbers of environments."""
    memory: str | None = None
    """Memory of the policy. None: the workload's."""
    workload: Literal["preset", "sample_factory", "stable_baselines3"] = "preset"
    """What is trained."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the image encoder and the memory."""
    seconds: float = 2.0
    """Length of a measurement."""
    repeats: int = 3
    """Repetitions of each measurement."""
    out: Path | None = None
    """File of the report, in Markdown. None: it is printed only."""
    json: Path | None = None
    """File of all figures."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of a training for one env step; times are those of one core.

    Attributes:
        name: of the phase.
        seconds: what it takes.
        products: what its multiply-adds need at least; for environments, what engines need.
        memory: what its reads and writes need at the rate of a copy.
    """

    name: str
    seconds: float
    products: float
    memory: float = 0.0

    @property
    def share(self) -> float:
        """The least time as a share of the time taken: 1 is what the machine can do."""
        return self.products / self.seconds


def phase_of(name: str, seconds: float, work: Work, rates: Rates) -> Phase:
    """Return a phase from the seconds and the work of an env step."""
    products, memory = least_seconds(work, rates)
    return Phase(name=name, seconds=seconds, products=products, memory=memory)


def act_seconds(agent: Agent[Any], sampler: Sampler, rollout: Rollout, seconds: float) -> float:
    """Return the seconds of a core for one decision of one environment, in groups as sampled."""
    lanes = sampler.envs.num_envs // sampler.envs.num_groups
    arguments = step_of(agent, rollout, lanes)
    with single_thread():
        return core_seconds(lambda: sampler.policy.act(*arguments), seconds) / lanes


def measure(config: Roofline, env: str, training: AnyTrainConfig) -> list[list[Phase]]:
    """Return the phases of each repetition."""
    cores = len(os.sched_getaffinity(0))
    precision = choose_precision(config.precision, _CPU)
    repeated = []
    for _ in range(config.repeats):
        num, seconds = training.num_envs, config.seconds
        engines = max(ceiling(env, num, seconds, pinned=pinned) for pinned in (False, True))
        played, trained = random_play(training, seconds), train(training, seconds)
        rates = measured_rates(precision, seconds / 4)
        with opened(training) as envs:
            agent = make_agent(training, envs, _CPU)
            with contextlib.closing(make_collector(training, envs, agent, seed=0)) as sampler:
                assert isinstance(sampler, Sampler), "the roofline is that of our own agents"
                rollout = sampler.collect().rollout
                acting, learning = training_work(agent, rollout, num // training.num_groups)
                act = act_seconds(agent, sampler, rollout, seconds)
                learn = core_seconds(partial(agent.update, rollout), seconds)
        best = best_speed(engines, cores, (acting, learning), rates)
        repeated.append(
            [
                Phase(name="environments", seconds=cores / played, products=cores / engines),
                phase_of("acting", act, acting, rates),
                phase_of("update", learn / rollout.rewards.numel(), learning, rates),
                Phase(name="training", seconds=cores / trained, products=cores / best),
            ]
        )
    return repeated


def rows_of(about: Mapping[str, Any], repeated: Sequence[Sequence[Phase]]) -> list[dict[str, Any]]:
    """Return a row of medians for each phase.

    Args:
        about: what all rows begin with.
        repeated: the same phases, for each repetition.
    """
    return [
        {
            **about,
            "phase": phases[0].name,
            "us": 1e6 * median(phase.seconds for phase in phases),
            "products_us": 1e6 * median(phase.products for phase in phases),
            "memory_us": 1e6 * median(phase.memory for phase in phases),
            "share": median(phase.share for phase in phases),
        }
        for phases in zip(*repeated, strict=True)
    ]


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the report in Markdown."""
    machine = hardware()
    lines = [
        "# How near the limits of this machine",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {git_revision()}. Microseconds of a core for "
        "one env step: taken; the least, in bare engines and matrix products; and all reads and "
        "writes at the rate of a copy. The share is the least time divided by the time taken.",
        "",
        "| scenario | environments | phase | taken | least | copying | share |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        copying = f"{row['memory_us']:,.0f}" if row["memory_us"] else ""
        cells = (
            *(row["env"], row["num_envs"], row["phase"], f"{row['us']:,.0f}"),
            *(f"{row['products_us']:,.0f}", copying, f"{row['share']:.2f}"),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a Markdown table, and write files if requested."""
    config = tyro.cli(Roofline, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    keep_memory()
    options = Throughput(workload=config.workload, device="cpu", precision=config.precision)
    rows = []
    for env in config.envs:
        for num_envs in config.num_envs:
            training = training_config(options, env, num_envs, None, config.memory)
            repeated = measure(config, env, training)
            about = {"env": env, "num_envs": num_envs, "memory": training.perception.memory_name}
            rows += rows_of(about, repeated)
            print(json.dumps(rows[-4:]), flush=True)
    text = report(rows)
    print(text)
    if config.out:
        config.out.write_text(text)
    if config.json:
        config.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
