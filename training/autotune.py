"""Measuring which settings make a training run fastest on this machine.

Settings are varied that change results by no more than rounding: the numbers of processes and
groups that hold the environments, the number of threads of an update, and the precision of image
encoders and memory. The number of environments and the rollout length stay as configured, except
for policies with memory on small observations: their updates are faster with more environments and
shorter rollouts, so both are varied if neither is given, with as many env steps in an update.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol, TypeVar, get_type_hints

import msgspec
import torch

from agents.agent import Agent
from agents.collector import GroupedEnvs
from agents.device import choose_device, choose_precision, keep_memory, precision_name, use_threads
from agents.sampler import Sampler
from envs.vector.pool import usable_cores
from evaluation.printing import print_line
from storage.files import FileError
from storage.tensor_file import one_line
from training.assemble import make_agent, make_envs
from training.config import AnyTrainConfig, TrainConfig, with_values
from training.presets import observes_little

_MEASURE_S = 1.5  # Seconds for which each setting is measured, after a first rollout.
_SHAPE = {"num_envs", "rollout_length"}
_SHORTEST = 16  # The shortest rollout that is proposed: a memory learns over the env steps of one.
_WORTHWHILE = 1.03  # A setting is preferred if it is this much faster: smaller gains are noise.


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The settings on which the speed of a training run depends.

    Attributes:
        num_envs: number of environments that run in parallel, N.
        num_workers: number of processes that hold them.
        num_groups: number of groups of environments that alternate.
        rollout_length: T.
        num_threads: threads of an update on the CPU.
        precision: precision of the products in image encoders and memory, `float32` or `bfloat16`.
    """

    num_envs: int
    num_workers: int
    num_groups: int
    rollout_length: int
    num_threads: int
    precision: str

    @property
    def env_counts(self) -> tuple[int, int, int]:
        """Numbers of environments, workers and groups: the arguments of new environments."""
        return self.num_envs, self.num_workers, self.num_groups


class ClosableEnvs(GroupedEnvs, Protocol):
    """Environments that can be closed."""

    def close(self) -> None:
        """Close the environments."""


EnvsT = TypeVar("EnvsT", bound=ClosableEnvs)


@dataclass(frozen=True)
class Measurement:
    """A setting and its speed."""

    setting: Setting
    env_steps_per_s: float


def autotune(
    first: Setting,
    open_envs: Callable[[Setting], EnvsT],
    make_agent: Callable[[EnvsT, Setting], Agent[Any]],
    *,
    shapes: Sequence[tuple[int, int]] = (),
    groups: Sequence[int] = (2, 4, 1),
    seconds: float = 45.0,
) -> list[Measurement]:
    """Measure settings, each of which differs in one value from the best one so far.

    Args:
        first: the setting to start with.
        open_envs: makes the environments for a setting.
        make_agent: makes an agent for these environments; it is discarded after the measurement.
        shapes: other numbers of environments and rollout lengths to measure.
        groups: numbers of groups to measure.
        seconds: after this time, no further measurement is started.

    Returns:
        All measurements, the best one first.
    """
    deadline = time.monotonic() + seconds
    measured: list[Measurement] = []
    envs: EnvsT | None = None
    opened: tuple[int, int, int] | None = None
    try:
        for setting in _proposals(first, measured, shapes, groups):
            if measured and time.monotonic() > deadline:
                break
            if opened != setting.env_counts:
                if envs is not None:
                    envs.close()
                    envs = None
                envs, opened = open_envs(setting), setting.env_counts
            assert envs is not None
            measured.append(Measurement(setting, _measure(envs, make_agent, setting)))
    finally:
        if envs is not None:
            envs.close()
    best = _best(measured)
    others = [m for m in measured if m is not best]
    return [best, *sorted(others, key=lambda m: m.env_steps_per_s, reverse=True)]


def _best(measured: list[Measurement]) -> Measurement:
    """Return the fastest measurement; among those of similar speed, the earliest."""
    best = measured[0]
    for measurement in measured[1:]:
        if measurement.env_steps_per_s > best.env_steps_per_s * _WORTHWHILE:
            best = measurement
    return best


def _proposals(
    first: Setting,
    measured: list[Measurement],
    shapes: Sequence[tuple[int, int]],
    groups: Sequence[int],
) -> Iterator[Setting]:
    """Yield settings, each of which differs in one value from the best one measured so far.

    The shape of a rollout, its number of environments and its length, counts as one value.
    """
    tried = {first}
    yield first

    def changed(**changes: Any) -> Iterator[Setting]:
        setting = replace(_best(measured).setting, **changes)
        if setting not in tried:
            tried.add(setting)
            yield setting

    for num_envs, rollout_length in shapes:
        yield from changed(num_envs=num_envs, rollout_length=rollout_length)
    # Then the changes that need no new environments.
    for precision in ("bfloat16", "float32"):
        yield from changed(precision=precision)
    cores = len(usable_cores())
    for num_threads in (max(1, cores // 2), cores):
        yield from changed(num_threads=num_threads)
    for num_groups in groups:
        if first.num_envs % num_groups == 0:
            yield from changed(num_groups=num_groups)
    if cores > 2:
        yield from changed(num_workers=cores - 1)


def _measure(
    envs: EnvsT, make_agent: Callable[[EnvsT, Setting], Agent[Any]], setting: Setting
) -> float:
    """Collect and update for a while, and return the speed in env steps per second."""
    with use_threads(setting.num_threads):
        agent = make_agent(envs, setting)  # It splits updates over the threads there are now.
        sampler = Sampler(
            envs,
            agent.policy,
            rollout_length=setting.rollout_length,
            seed=0,
            targets=agent.target_names,
        )
        with contextlib.closing(sampler):
            agent.update(sampler.collect().rollout)
            started, updates = time.perf_counter(), 0
            while (now := time.perf_counter()) - started < _MEASURE_S or not updates:
                agent.update(sampler.collect().rollout)
                updates += 1
    return updates * setting.num_envs * setting.rollout_length / (now - started)


def other_shapes(config: AnyTrainConfig, given: Collection[str]) -> list[tuple[int, int]]:
    """Return numbers of environments and rollout lengths with as many env steps in an update.

    Args:
        config: the configuration.
        given: names of the fields that were given as flags.

    Returns:
        Pairs for policies with memory on small observations; otherwise none.
    """
    has_memory = config.perception.memory_name != "none"
    if not (has_memory and observes_little(config.env.env)) or _SHAPE & set(given):
        return []
    num_envs, length = config.num_envs, config.agent.rollout_length
    return [
        (num_envs * times, length // times)
        for times in (2, 4)
        if length % times == 0 and length // times >= _SHORTEST
    ]


def fastest_setting(config: AnyTrainConfig, given: Collection[str] = ()) -> dict[str, Any]:
    """Measure settings on this machine, print a table, and return the fields of the fastest.

    Args:
        config: the configuration.
        given: names of the fields that were given as flags.
    """
    keep_memory()
    device = choose_device(config.device)
    first = Setting(
        num_envs=config.num_envs,
        num_workers=min(config.num_workers or len(usable_cores()), config.num_envs),
        num_groups=config.num_groups,
        rollout_length=config.agent.rollout_length,
        num_threads=config.num_threads or torch.get_num_threads(),
        precision=precision_name(choose_precision(config.precision, device)),
    )
    measured = autotune(
        first,
        lambda setting: make_envs(
            with_setting(config, asdict(setting)), setting.num_envs, setting.num_groups
        ),
        lambda envs, setting: make_agent(with_setting(config, asdict(setting)), envs, device),
        shapes=other_shapes(config, given),
        groups=(1,) if config.eval_envs == "shared" else (2, 4, 1),
    )
    names = list(asdict(first))
    print_line(" ".join(f"{name:>15}" for name in (*names, "env steps/s")))
    for each in measured:
        values = [*asdict(each.setting).values(), f"{each.env_steps_per_s:,.0f}"]
        print_line(" ".join(f"{value:>15}" for value in values))
    return asdict(measured[0].setting)


def with_setting(config: AnyTrainConfig, values: Mapping[str, Any]) -> AnyTrainConfig:
    """Return a configuration with the fields that `--autotune` chooses.

    Args:
        config: the configuration.
        values: a setting's fields, or the nested configuration of a run that was tuned before.

    Raises:
        FileError: If a value is of another type or out of range.
    """
    types = {**get_type_hints(TrainConfig), **get_type_hints(type(config.agent))}
    try:
        stored = {**values, **values.get("agent", {})}
        chosen = {f.name: stored[f.name] for f in fields(Setting) if f.name in stored}
        for name, value in chosen.items():
            if value is not None:
                msgspec.convert(value, types[name])
        of_agent = {f"agent.{name}": value for name, value in chosen.items()}
        return with_values(config, chosen | of_agent)
    except (ValueError, TypeError) as error:
        raise FileError(f"the configuration of the run is damaged: {one_line(error)}") from error
