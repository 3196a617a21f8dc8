"""LSTM and GRU: PyTorch's parameters and equations, with a state that is cleared at episode starts.

Axes: T time, N environments, D features in, M features out, S rows of the state, G gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from perception.memory.memory import Memory, MemoryConfig

FORGET_BIAS = 0.0
"""Initial bias of an LSTM's forget gate; 1 remembers longer (Jozefowicz et al. 2015). Measured in
benchmarks/results/memory_init.md."""


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(MemoryConfig):
    """The configuration of a recurrent layer.

    Raises:
        ValueError: If the width is not positive.
    """

    memory_size: int = 256
    """Width of the memory, M."""

    def __post_init__(self) -> None:
        """Check the width."""
        if self.memory_size < 1:
            raise ValueError(f"memory_size must be at least 1, got {self.memory_size}")


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(RecurrentConfig):
    """The configuration of an LSTM."""


@dataclass(frozen=True, kw_only=True)
class GRUConfig(RecurrentConfig):
    """The configuration of a GRU."""


_Memo = tuple[Tensor, ...]


def _run(
    cell: type[_Cell], inputs: Tensor, state: Tensor, keep: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, list[Tensor], list[_Memo]]:
    """Run a cell over a sequence, step by step.

    Args:
        cell: the computation of one step.
        inputs: (T, N, G * M) float32, the contribution of the inputs to the gates, with the bias.
        state: (S, N, M) float32, before the first step.
        keep: (T, N, 1) float32, 0 where the state is cleared before the step, else 1.
        weight: (G * M, M), the recurrent weight; products are computed in its dtype.
        bias: (G * M,), the recurrent bias.

    Returns:
        (T, N, M) float32 outputs; the (S, N, M) float32 state after the last step; for each step,
        the state before it; and for each step, the tensors that the backward pass needs.
    """
    outputs, befores, memos = [], [], []
    # Contiguous in the order in which it is read, which is worth a copy if it is read T times.
    across = weight.t().contiguous() if len(inputs) > 1 else weight.t()
    for t in range(len(inputs)):
        state = state * keep[t]
        befores.append(state)
        recurrent = (state[0].to(weight.dtype) @ across).float() + bias
        state, memo = cell.step(inputs[t], recurrent, state)
        memos.append(memo)
        outputs.append(state[0])
    return torch.stack(outputs), state, befores, memos


class _Recurrence(torch.autograd.Function):
    """A recurrent layer over a sequence, with a custom backward pass.

    Autograd would accumulate the gradient of the recurrent weight step by step, which takes longer
    than everything else here. This backward pass computes it as one product at the end. Products
    are computed in the dtype of the weight; the state and everything else are float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        cell: type[_Cell],
        inputs: Tensor,
        state: Tensor,
        keep: Tensor,
        weight: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        outputs, state, befores, memos = _run(cell, inputs, state, keep, weight, bias)
        ctx.cell = cell
        joined = [torch.stack(memo) for memo in zip(*memos, strict=True)]
        ctx.save_for_backward(keep, weight, torch.stack(befores), *joined)
        return outputs, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor, grad_state: Tensor) -> Any:
        keep, weight, befores, *memos = ctx.saved_tensors
        grad_state = grad_state.clone()
        grads: list[tuple[Tensor, Tensor]] = []
        for t in reversed(range(len(keep))):
            grad_state[0] += grad_outputs[t]
            *grad_gates, grad_state = ctx.cell.step_back(
                grad_state, befores[t], *(memo[t] for memo in memos)
            )
            grad_state[0] += (grad_gates[1].to(weight.dtype) @ weight).float()
            grad_state = grad_state * keep[t]
            grads.append((grad_gates[0], grad_gates[1]))
        grad_inputs, grad_recurrent = (
            torch.stack(each) for each in zip(*reversed(grads), strict=True)
        )
        grad_recurrent = grad_recurrent.flatten(0, 1)
        hidden = befores[:, 0].flatten(0, 1).to(weight.dtype)
        grad_weight = grad_recurrent.to(weight.dtype).t() @ hidden
        return None, grad_inputs, grad_state, None, grad_weight, grad_recurrent.sum(0)


class _Cell:
    """One step of a recurrent layer, forward and backward.

    Attributes:
        num_gates: G.
        num_rows: S.
    """

    num_gates: int
    num_rows: int

    @staticmethod
    def step(inputs: Tensor, recurrent: Tensor, state: Tensor) -> tuple[Tensor, _Memo]:
        """Compute a step.

        Args:
            inputs: (N, G * M) float32, the contribution of the inputs to the gates.
            recurrent: (N, G * M) float32, the contribution of the hidden state to the gates.
            state: (S, N, M) float32, before the step; its first row is the hidden state.

        Returns:
            The (S, N, M) state after the step, and the tensors that the backward pass needs.
        """
        raise NotImplementedError

    @staticmethod
    def step_back(
        grad_state: Tensor, before: Tensor, *memo: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the gradients of a step.

        Args:
            grad_state: (S, N, M) float32, the gradient of the state after the step.
            before: (S, N, M) float32, the state before the step.
            *memo: the tensors that `step` returned for the backward pass.

        Returns:
            The gradients of `inputs` and `recurrent`, each (N, G * M), and that of the state before
            the step, (S, N, M), without the part that flows through `recurrent`.
        """
        raise NotImplementedError


class _GRUCell(_Cell):
    num_gates, num_rows = 3, 1

    @staticmethod
    def step(inputs: Tensor, recurrent: Tensor, state: Tensor) -> tuple[Tensor, _Memo]:
        size = state.shape[2]
        reset, update = (inputs + recurrent)[:, : 2 * size].sigmoid().chunk(2, 1)
        proposed = recurrent[:, 2 * size :]
        new = torch.addcmul(inputs[:, 2 * size :], reset, proposed).tanh_()
        hidden = torch.lerp(new, state[0], update)
        return hidden[None], (reset, update, new, proposed)

    @staticmethod
    def step_back(
        grad_state: Tensor, before: Tensor, *memo: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        reset, update, new, proposed = memo
        grad = grad_state[0]
        d_new = grad * (1 - update) * (1 - new * new)
        d_update = grad * (before[0] - new) * update * (1 - update)
        d_reset = d_new * proposed * reset * (1 - reset)
        grad_input = torch.cat((d_reset, d_update, d_new), 1)
        grad_recurrent = torch.cat((d_reset, d_update, d_new * reset), 1)
        return grad_input, grad_recurrent, (grad * update)[None]


class _LSTMCell(_Cell):
    num_gates, num_rows = 4, 2

    @staticmethod
    def step(inputs: Tensor, recurrent: Tensor, state: Tensor) -> tuple[Tensor, _Memo]:
        size = state.shape[2]
        gates = inputs + recurrent
        allow, forget = gates[:, : 2 * size].sigmoid().chunk(2, 1)
        new, out = gates[:, 2 * size : 3 * size].tanh(), gates[:, 3 * size :].sigmoid()
        carried = torch.addcmul(forget * state[1], allow, new)
        seen = carried.tanh()
        return torch.stack((out * seen, carried)), (allow, forget, new, out, seen)

    @staticmethod
    def step_back(
        grad_state: Tensor, before: Tensor, *memo: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        allow, forget, new, out, seen = memo
        grad = grad_state[0]
        d_carried = grad_state[1] + grad * out * (1 - seen * seen)
        d_allow = d_carried * new * allow * (1 - allow)
        d_forget = d_carried * before[1] * forget * (1 - forget)
        d_new = d_carried * allow * (1 - new * new)
        d_out = grad * seen * out * (1 - out)
        gates = torch.cat((d_allow, d_forget, d_new, d_out), 1)
        return gates, gates, torch.stack((torch.zeros_like(grad), d_carried * forget))


class _Recurrent(Memory):
    """A recurrent layer with PyTorch's parameters and equations.

    The weights of each gate are initialised as an orthogonal matrix (Saxe et al. 2014), which
    preserves the norm of its input; biases are zero.
    """

    is_recurrent = True

    def __init__(
        self,
        layer: nn.LSTM | nn.GRU,
        cell: type[_Cell],
        config: RecurrentConfig,
        num_inputs: int,
    ) -> None:
        super().__init__(config, num_inputs)
        self.layer = layer
        self._cell = cell
        self.state_shape = (cell.num_rows, config.memory_size)
        self.num_features = config.memory_size
        for parameter in self.layer.parameters():
            for gate in parameter.data.chunk(cell.num_gates):
                if gate.dim() > 1:
                    nn.init.orthogonal_(gate)
                else:
                    nn.init.zeros_(gate)

    def forward(
        self, features: Tensor, state: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Memory.forward`."""
        parameters: tuple[Tensor, ...] = tuple(self.layer.parameters())
        input_weight, weight, input_bias, bias = parameters
        device = features.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            input_weight, weight, input_bias = (
                tensor.to(dtype) for tensor in (input_weight, weight, input_bias)
            )
        inputs = F.linear(features.to(weight.dtype), input_weight, input_bias).float()
        keep = (~episode_starts).float()[..., None]
        if not torch.is_grad_enabled():
            outputs, state, *_ = _run(self._cell, inputs, state, keep, weight, bias)
            return outputs, state
        result: tuple[Tensor, Tensor] = _Recurrence.apply(  # type: ignore[no-untyped-call]
            self._cell, inputs, state, keep, weight, bias
        )
        return result


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); the state is hidden and cell."""

    def __init__(self, config: LSTMConfig, num_inputs: int) -> None:
        layer = nn.LSTM(num_inputs, config.memory_size)
        super().__init__(layer, _LSTMCell, config, num_inputs)
        forget_gate = self.layer.get_parameter("bias_ih_l0").data.chunk(4)[1]
        nn.init.constant_(forget_gate, FORGET_BIAS)


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al. 2014); the state is the hidden row."""

    def __init__(self, config: GRUConfig, num_inputs: int) -> None:
        layer = nn.GRU(num_inputs, config.memory_size)
        super().__init__(layer, _GRUCell, config, num_inputs)
