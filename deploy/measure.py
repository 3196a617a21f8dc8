"""How large and how fast a policy is, in PyTorch or in ONNX Runtime, on one thread of the CPU.

Axes: N observations, S and M rows and width of the memory's state.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from agents.device import single_thread
from agents.policy import Policy
from deploy.onnx import draw_inputs
from perception.decode import Decoder
from perception.encoders import BlockConv2d
from storage.onnx_file import ACTIONS, STARTS, STATE

BATCHES = (1, 32)
"""Numbers of observations whose latency is measured."""

_WARM_UPS, _LONGEST_S, _MOST = 20, 3.0, 1000


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long a batch takes, from observations to the most likely actions.

    It is the time of the one thread on a core: what other programs do meanwhile does not count.

    Attributes:
        median_us: median, in microseconds.
        p99_us: 99th percentile.
    """

    median_us: float
    p99_us: float


def multiply_adds(policy: Policy) -> int:
    """Return the number of multiplications with additions for one observation."""
    copied = copy.deepcopy(policy)
    for module in copied.modules():
        if isinstance(module, Decoder):
            module.block = 1  # Blocks contain planes of zeros.
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        copied(*_arguments(copied, 1))
    return int(counter.get_total_flops()) // 2


def torch_latency(policy: Policy, num: int) -> Latency:
    """Return the latency of a batch of `num` observations in PyTorch."""
    copied = copy.deepcopy(policy)  # `keep_weight` changes it.
    arguments = _arguments(copied, num)

    def act() -> None:
        copied(*arguments).distribution.mode()

    with torch.no_grad(), single_thread():
        act()
        for module in copied.modules():
            if isinstance(module, (BlockConv2d, Decoder)):
                module.keep_weight()  # As while rollouts are collected.
        return _timed(act)


def onnx_latency(policy: Policy, session: Any, num: int) -> Latency:
    """Return the latency of a batch of `num` observations in ONNX Runtime.

    Args:
        policy: the policy that the session computes, for its inputs.
        session: an `onnxruntime.InferenceSession` on one thread.
        num: N.
    """
    inputs = draw_inputs(policy, num, np.random.default_rng(0))
    return _timed(lambda: session.run([ACTIONS], inputs))


def _arguments(policy: Policy, num: int) -> tuple[Any, ...]:
    """Return the arguments of a policy for N random observations."""
    inputs: dict[str, NDArray[Any]] = draw_inputs(policy, num, np.random.default_rng(0))
    obs = {name: torch.from_numpy(inputs[name])[None] for name in policy.specs}
    state = inputs.get(STATE)
    first = policy.initial_state(num) if state is None else torch.from_numpy(state).transpose(0, 1)
    starts = inputs.get(STARTS, np.full(num, fill_value=False))
    return obs, first, torch.from_numpy(starts)[None]


def _timed(act: Callable[[], Any]) -> Latency:
    for _ in range(_WARM_UPS):
        act()
    seconds: list[float] = []
    ends = time.perf_counter() + _LONGEST_S
    while len(seconds) < _MOST and (len(seconds) < _WARM_UPS or time.perf_counter() < ends):
        started = time.thread_time()
        act()
        seconds.append(time.thread_time() - started)
    median, p99 = (float(np.percentile(seconds, at)) * 1e6 for at in (50, 99))
    return Latency(median_us=median, p99_us=p99)
