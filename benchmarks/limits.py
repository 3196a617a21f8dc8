"""What a machine could do at best: the work of acting and learning, and the rates of its parts.

A computation cannot be faster than its multiply-adds at the rate of a plain matrix product
(Williams et al. 2009, "Roofline"). Its reads and writes at the rate of a plain copy are an estimate
only: what stays in a cache is faster. Rates and times are those of processors, not of a clock on a
wall: on a shared machine, the time of a core remains comparable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from agents import Agent
from agents.distributions import num_draws
from agents.policy import Policy
from agents.rollout import Rollout
from perception.decode import Decoder

_SIZE = 1024  # Of the square matrices of the plain product.
_COPIED = 2**25  # Bytes; more than the caches of a core hold.


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a computation does.

    Attributes:
        multiply_adds: number of multiplications with additions in matrix products.
        bytes: what all operations read and write, as if nothing stayed in a cache.
    """

    multiply_adds: float
    bytes: float

    def per(self, count: int) -> Work:
        """Return the work of one of `count` equal parts."""
        return Work(multiply_adds=self.multiply_adds / count, bytes=self.bytes / count)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a core does in a second at best.

    Attributes:
        multiply_adds: in a plain matrix product.
        bytes: read and written by a plain copy.
    """

    multiply_adds: float
    bytes: float


def least_seconds(work: Work, rates: Rates) -> tuple[float, float]:
    """Return the seconds of a core that the products need, and those that the memory needs."""
    return work.multiply_adds / rates.multiply_adds, work.bytes / rates.bytes


def best_speed(engines: float, cores: int, phases: Sequence[Work], rates: Rates) -> float:
    """Return the env steps per second at which all cores do nothing but engines and products.

    Args:
        engines: env steps per second of the bare engines on all cores.
        cores: the number of cores.
        phases: the work of each phase for one env step.
        rates: of one core.
    """
    products = sum(least_seconds(work, rates)[0] for work in phases)
    return 1.0 / (1.0 / engines + products / cores)


class _Traffic(TorchDispatchMode):
    """Counts the bytes of the tensors that operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # PyTorch's has no annotations
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = tree_leaves((args, kwargs, result))
            self.bytes += sum(part.nbytes for part in tensors if isinstance(part, Tensor))
        return result


def work_of(compute: Callable[[], Any]) -> Work:
    """Return the work of a computation, which must run in the calling thread."""
    products, traffic = FlopCounterMode(display=False), _Traffic()
    with traffic, products:
        compute()
    return Work(multiply_adds=products.get_total_flops() / 2, bytes=traffic.bytes)


@contextmanager
def whole_images(policy: Policy) -> Iterator[None]:
    """Decode whole images in this context: blocks would add planes of zeros."""
    decoders = [module for module in policy.modules() if isinstance(module, Decoder)]
    blocks = [decoder.block for decoder in decoders]
    for decoder in decoders:
        decoder.block = 1
    try:
        yield
    finally:
        for decoder, block in zip(decoders, blocks, strict=True):
            decoder.block = block


def step_of(agent: Agent[Any], rollout: Rollout, lanes: int) -> tuple[Any, ...]:
    """Return the arguments of `Policy.act` for the first `lanes` environments of a rollout."""
    obs = {name: part[0, :lanes] for name, part in rollout.obs.items()}
    draws = torch.zeros(lanes, num_draws(agent.policy.action_space))
    return obs, rollout.memory_state[:, :lanes], rollout.episode_starts[0, :lanes], draws


def training_work(agent: Agent[Any], rollout: Rollout, lanes: int) -> tuple[Work, Work]:
    """Return the work of acting and of learning for one env step; the agent learns from it.

    Args:
        agent: the agent.
        rollout: what it learns from.
        lanes: the number of environments of a group, which act together.
    """
    arguments = step_of(agent, rollout, lanes)
    parts, agent._num_parts = agent._num_parts, 1  # Other threads would not be counted.
    with whole_images(agent.policy):
        acting = work_of(lambda: agent.policy.act(*arguments)).per(lanes)
        learning = work_of(lambda: agent.update(rollout)).per(rollout.rewards.numel())
    agent._num_parts = parts
    return acting, learning


def measured_rates(precision: torch.dtype, seconds: float) -> Rates:
    """Measure what one core does at best, in the same precision as the policy's products."""
    left = torch.rand(_SIZE, _SIZE).to(precision)
    right = torch.rand(_SIZE, _SIZE).to(precision)
    source = torch.zeros(_COPIED, dtype=torch.uint8)
    target = torch.zeros_like(source)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        product = core_seconds(lambda: torch.mm(left, right), seconds)
        copy = core_seconds(lambda: target.copy_(source), seconds)
    finally:
        torch.set_num_threads(threads)
    return Rates(multiply_adds=_SIZE**3 / product, bytes=2 * _COPIED / copy)


def core_seconds(compute: Callable[[], Any], seconds: float) -> float:
    """Return the processor time of all threads that a computation takes, on average.

    Args:
        compute: the computation, which is run once before it is timed.
        seconds: processor time after which no new run begins.
    """
    compute()
    started, count = time.process_time(), 0
    while (elapsed := time.process_time() - started) < seconds or not count:
        compute()
        count += 1
    return elapsed / count
