"""The copy of a policy that acts while, or before, the policy itself learns.

Axes: as in `agents.policy`; n environments of one group.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from agents.policy import Decision, Obs, Policy
from perception.decode import Decoder
from perception.encoders import BlockConv2d

Inference = Literal["auto", "eager", "compiled", "cuda-graph"]
_WARM_UPS = 3  # runs before a capture, in which libraries choose their algorithms


class InferencePolicy:
    """Acts as a policy does, with the weights it had when they were last taken.

    Its modules hold their weights at the precision they compute with, so that casting them is paid
    once a rollout instead of once a step.

    Args:
        policy: whose weights are taken.
        inference: how `act` is run: operation by operation, compiled by `torch.compile`, or as a
            captured CUDA graph, which a GPU replays without waiting for Python. A graph takes
            only the shapes that it was captured with. auto: a graph on a GPU, where it was
            measured to be fastest (benchmarks/results/gpu.md); operation by operation on a CPU.
    """

    def __init__(self, policy: Policy, inference: Inference = "eager") -> None:
        self._copy = copy.deepcopy(policy).requires_grad_(requires_grad=False)
        perception = self._copy.perception
        for module in perception.heavy_modules:
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.dtype == torch.float32:  # Statistics are kept in float64.
                    tensor.data = tensor.data.to(perception.precision)
        perception.precision = torch.float32  # What is left needs no casting.
        self._theirs = list(policy.state_dict().values())
        self._mine = list(self._copy.state_dict().values())
        self._rearranged = [m for m in self._copy.modules() if isinstance(m, BlockConv2d)]
        if inference == "auto":
            inference = "cuda-graph" if policy.device.type == "cuda" else "eager"
        self._inference = inference
        self._act: Callable[[Obs, Tensor, Tensor, Tensor | None], Decision] = self._copy.act

    @property
    def device(self) -> torch.device:
        """Where the copy is."""
        return self._copy.device

    def prepare(
        self, obs: Obs, memory_state: Tensor, episode_starts: Tensor, draws: Tensor
    ) -> None:
        """Compile or capture `act`, as configured, for arguments like these; see `Policy.act`."""
        if self._inference == "compiled":
            for module in self._copy.modules():
                if isinstance(module, Decoder):
                    module.block = 1  # What blocks save, the compiler saves; it cannot read them.
            self._act = torch.compile(self._copy.act)
            self._act(obs, memory_state, episode_starts, draws)
        elif self._inference == "cuda-graph":
            self._copy.act(obs, memory_state, episode_starts, draws)  # It shows what blocks are.
            self._keep_weights()
            self._act = _captured(self._copy, obs, memory_state, episode_starts, draws)

    def take_weights(self) -> None:
        """Become what the policy is now."""
        for mine, theirs in zip(self._mine, self._theirs, strict=True):
            mine.copy_(theirs)
        self._keep_weights()

    def initial_state(self, num_envs: int) -> Tensor:
        """See `Policy.initial_state`."""
        return self._copy.initial_state(num_envs)

    def act(
        self, obs: Obs, memory_state: Tensor, episode_starts: Tensor, draws: Tensor | None
    ) -> Decision:
        """See `Policy.act`."""
        return self._act(obs, memory_state, episode_starts, draws)

    def value(self, obs: Obs, memory_state: Tensor, episode_starts: Tensor) -> Tensor:
        """See `Policy.value`."""
        return self._copy.value(obs, memory_state, episode_starts)

    def _keep_weights(self) -> None:
        for module in self._rearranged:
            module.keep_weight()


def _captured(
    policy: Policy, obs: Obs, memory_state: Tensor, episode_starts: Tensor, draws: Tensor
) -> Callable[[Mapping[str, Tensor], Tensor, Tensor, Tensor | None], Decision]:
    """Return `policy.act` as a CUDA graph that takes arguments of these shapes."""
    mine = {name: part.clone() for name, part in obs.items()}
    state, starts, chances = memory_state.clone(), episode_starts.clone(), draws.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            policy.act(mine, state, starts, chances)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        decision = policy.act(mine, state, starts, chances)
    one_at_a_time = threading.Lock()  # Teams of environments are served by threads of their own.

    def act(
        obs: Obs, memory_state: Tensor, episode_starts: Tensor, draws: Tensor | None
    ) -> Decision:
        assert draws is not None
        with one_at_a_time:
            for name, part in mine.items():
                part.copy_(obs[name])
            state.copy_(memory_state)
            starts.copy_(episode_starts)
            chances.copy_(draws)
            graph.replay()
            return Decision(*(part.clone() for part in decision))

    return act
