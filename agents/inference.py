"""The copy of a policy that acts while the policy itself learns.

Axes: N environments, A choices, D draws of an action, S and M rows and width of the memory's state.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from agents.cuda_graph import captured
from agents.policy import Decision, Obs, Policy
from perception.decode import Decoder
from perception.encoders import BlockConv2d

Inference = Literal["auto", "eager", "compiled", "cuda-graph"]
"""How a policy is run; see `InferencePolicy`."""


class InferencePolicy:
    """A copy of a policy that acts with the weights of the last call of `take_weights`.

    Its weights are stored in the precision of the products, so that they are cast once a rollout
    instead of once an env step.

    Args:
        policy: the policy.
        inference: how `act` is run. `eager`: operation by operation. `compiled`: compiled by
            `torch.compile`. `cuda-graph`: as a captured CUDA graph, which a GPU replays without
            waiting for Python, but only for the shapes of the capture. `auto`: `cuda-graph` on a
            GPU, where it was measured to be fastest (benchmarks/results/gpu.md), and `eager` on a
            CPU.
    """

    def __init__(self, policy: Policy, inference: Inference = "eager") -> None:
        self._copy = copy.deepcopy(policy).requires_grad_(requires_grad=False)
        self._copy.perception.cast_weights()
        self._theirs = list(policy.state_dict().values())
        self._mine = list(self._copy.state_dict().values())
        # The compiler arranges weights itself.
        kinds = () if inference == "compiled" else (BlockConv2d, Decoder)
        self._rearranged = [m for m in self._copy.modules() if isinstance(m, kinds)]
        if inference == "auto":
            inference = "cuda-graph" if policy.device.type == "cuda" else "eager"
        self._inference = inference
        self._act: Callable[[Obs, Tensor, Tensor, Tensor | None], Decision] = self._copy.act

    @property
    def device(self) -> torch.device:
        """The device of the copy."""
        return self._copy.device

    def prepare(
        self, obs: Obs, memory_state: Tensor, episode_starts: Tensor, draws: Tensor
    ) -> None:
        """Compile or capture `act`, if so configured, for the shapes of examples.

        Args:
            obs: as for `Policy.act`.
            memory_state: as for `Policy.act`.
            episode_starts: as for `Policy.act`.
            draws: as for `Policy.act`.
        """
        if self._inference == "compiled":
            for module in self._copy.modules():
                if isinstance(module, Decoder):
                    module.block = 1  # The compiler cannot trace blocks, and is fast without them.
            self._act = torch.compile(self._copy.act)
            self._act(obs, memory_state, episode_starts, draws)
        elif self._inference == "cuda-graph":
            # After a first run, `BlockConv2d` knows the shape of its rearranged weight.
            self._copy.act(obs, memory_state, episode_starts, draws)
            self._keep_weights()
            self._act = _captured(self._copy, obs, memory_state, episode_starts, draws)

    def take_weights(self) -> None:
        """Copy the current weights of the policy."""
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
    """Return `policy.act` as a CUDA graph for arguments with the shapes of these."""
    mine = {name: part.clone() for name, part in obs.items()}
    state, starts, chances = memory_state.clone(), episode_starts.clone(), draws.clone()
    graph, decision = captured(lambda: policy.act(mine, state, starts, chances))
    one_at_a_time = threading.Lock()  # Each team of environments is served by its own thread.

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
