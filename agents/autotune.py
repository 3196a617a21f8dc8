"""Finding out by trial how a training is fastest on this machine.

What is learned from stays as it was asked for: as many environments, and rollouts as long. Only
what moves a result by no more than rounding is tried: in how many processes and groups the
environments are, with how many threads an update is computed, and at which precision images are
encoded.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from agents.agent import Agent
from agents.device import use_threads
from agents.sampler import GroupedEnvs, Sampler

_MEASURE_S = 1.5  # for which each setting is tried, after a first rollout
_WORTHWHILE = 1.03  # A setting must be this much faster to be preferred: smaller gains are noise.


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a training is run.

    Attributes:
        num_envs: environments in parallel, N, as asked for.
        num_workers: processes that hold them.
        num_groups: groups that alternate.
        rollout_length: T, as asked for.
        num_threads: of an update on the CPU.
        precision: what images are encoded with, `float32` or `bfloat16`.
    """

    num_envs: int
    num_workers: int
    num_groups: int
    rollout_length: int
    num_threads: int
    precision: str

    @property
    def worlds(self) -> tuple[int, int, int]:
        """What the environments depend on."""
        return self.num_envs, self.num_workers, self.num_groups


class ClosableEnvs(GroupedEnvs, Protocol):
    """Environments that can be closed."""

    def close(self) -> None:
        """End them."""


EnvsT = TypeVar("EnvsT", bound=ClosableEnvs)


@dataclass(frozen=True)
class Trial:
    """A setting and how fast it was."""

    setting: Setting
    env_steps_per_s: float


def autotune(
    first: Setting,
    open_envs: Callable[[Setting], EnvsT],
    make_agent: Callable[[EnvsT, Setting], Agent[Any]],
    *,
    seconds: float = 45.0,
) -> list[Trial]:
    """Try settings, one change at a time from the best so far.

    Args:
        first: where to begin.
        open_envs: makes a setting's environments.
        make_agent: makes an agent for them, which is thrown away.
        seconds: when to stop; a trial that has begun is finished.

    Returns:
        All trials, the best one first.
    """
    deadline = time.monotonic() + seconds
    trials: list[Trial] = []
    envs: EnvsT | None = None
    opened: tuple[int, int, int] | None = None
    try:
        for setting in _proposals(first, trials):
            if trials and time.monotonic() > deadline:
                break
            if opened != setting.worlds:
                if envs is not None:
                    envs.close()
                    envs = None
                envs, opened = open_envs(setting), setting.worlds
            assert envs is not None
            trials.append(Trial(setting, _measure(envs, make_agent(envs, setting), setting)))
    finally:
        if envs is not None:
            envs.close()
    best = _best(trials)
    return [best, *sorted((t for t in trials if t is not best), key=lambda t: -t.env_steps_per_s)]


def _best(trials: list[Trial]) -> Trial:
    """Choose the fastest; among those about as fast, the one tried first."""
    best = trials[0]
    for trial in trials[1:]:
        if trial.env_steps_per_s > best.env_steps_per_s * _WORTHWHILE:
            best = trial
    return best


def _proposals(first: Setting, trials: list[Trial]) -> Iterator[Setting]:
    """Propose settings that differ in one thing from the best of the trials so far."""
    tried = {first}
    yield first

    def novel(**changes: Any) -> Iterator[Setting]:
        setting = replace(_best(trials).setting, **changes)
        if setting not in tried:
            tried.add(setting)
            yield setting

    # First what needs no new environments, then what needs few new ones.
    for precision in ("bfloat16", "float32"):
        yield from novel(precision=precision)
    cores = os.cpu_count() or 1
    for num_threads in (max(1, cores // 2), cores):
        yield from novel(num_threads=num_threads)
    for num_groups in (2, 4, 1):
        if first.num_envs % num_groups == 0:
            yield from novel(num_groups=num_groups)
    if cores > 2:
        yield from novel(num_workers=cores - 1)


def _measure(envs: ClosableEnvs, agent: Agent[Any], setting: Setting) -> float:
    """Play and learn for a while; give env steps a second."""
    with use_threads(setting.num_threads):
        sampler = Sampler(envs, agent.policy, rollout_length=setting.rollout_length, seed=0)
        with contextlib.closing(sampler):
            agent.update(sampler.collect().rollout)
            started, updates = time.perf_counter(), 0
            while (now := time.perf_counter()) - started < _MEASURE_S or not updates:
                agent.update(sampler.collect().rollout)
                updates += 1
    return updates * setting.num_envs * setting.rollout_length / (now - started)
