"""Memory: what is carried from one env step to the next, and when it is cleared.

A new memory is one class here with the interface of `Memory`, and one line in `MEMORIES`.

Axes: T time, N environments, D features in, M features out, S rows of the state, G gates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Memory(nn.Module):
    """No memory: features pass unchanged. Also the interface of every memory.

    Args:
        num_inputs: D.
        hidden_size: M.
    """

    is_recurrent = False

    def __init__(self, num_inputs: int, hidden_size: int) -> None:
        super().__init__()
        self.num_features = num_inputs
        self.state_shape: tuple[int, int] = (0, 0)

    def initial_state(self, num_envs: int) -> Tensor:
        """Give the state at an episode's start, (S, N, M) float32 of zeros."""
        rows, size = self.state_shape
        device = next((p.device for p in self.parameters()), None)
        return torch.zeros(rows, num_envs, size, device=device)

    def forward(
        self, features: Tensor, state: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Carry memory over a whole sequence.

        Args:
            features: (T, N, D) float32.
            state: (S, N, M) float32, the state before the first step.
            episode_starts: (T, N) bool; where true, the state is cleared before that step.

        Returns:
            (T, N, M) float32 features, and the (S, N, M) state after the last step.
        """
        return features, state


FORGET_BIAS = 0.0
"""Bias of an LSTM's forget gate at first; 1 remembers longer (Jozefowicz et al. 2015). Measured in
benchmarks/results/memory_init.md."""

_Memo = tuple[Tensor, ...]


def _run(
    cell: type[_Cell], inputs: Tensor, state: Tensor, keep: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, list[Tensor], list[_Memo]]:
    """Go through a sequence step by step.

    Args:
        cell: what happens in a step.
        inputs: (T, N, G * M) float32, what the inputs add to the gates, biases included.
        state: (S, N, M) float32, before the first step.
        keep: (T, N, 1) float32, 0 where the state is cleared before the step, else 1.
        weight: (G * M, M), of the recurrence; products are computed at its precision.
        bias: (G * M,), of the recurrence.

    Returns:
        (T, N, M) outputs, the state after the last step, and for each step the state before it and
        what the way back needs.
    """
    outputs, befores, memos = [], [], []
    # A matrix that lies as it is read: it is read T times.
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
    """The way through a sequence, and back.

    Autograd alone would add up the gradient of the recurrent weights step by step, which costs more
    than everything else here. Going back by hand, it is one product at the end. Products are
    computed at the precision of the weights, the state and all that is not a product in float32.
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
    """One step of a recurrent layer, forward and back; `num_gates` is G, `num_rows` is S."""

    num_gates: int
    num_rows: int

    @staticmethod
    def step(inputs: Tensor, recurrent: Tensor, state: Tensor) -> tuple[Tensor, _Memo]:
        """Give the state after a step, and what the way back needs.

        Args:
            inputs: (N, G * M), what the inputs add to the gates.
            recurrent: (N, G * M), what the hidden state adds to them.
            state: (S, N, M) before the step; its first row is the hidden state.
        """
        raise NotImplementedError

    @staticmethod
    def step_back(
        grad_state: Tensor, before: Tensor, *memo: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give the gradients of inputs, of recurrent, and directly of the state before."""
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
    """A recurrent layer with the parameters, and the mathematics, of PyTorch's.

    The weights of each gate are an orthogonal matrix by themselves (Saxe et al. 2014), so that at
    first none of them dampens or magnifies what it is given; biases are zero.
    """

    is_recurrent = True

    def __init__(
        self, layer: nn.LSTM | nn.GRU, cell: type[_Cell], num_inputs: int, hidden_size: int
    ) -> None:
        super().__init__(num_inputs, hidden_size)
        self.layer = layer
        self._cell = cell
        self.state_shape = (cell.num_rows, hidden_size)
        self.num_features = hidden_size
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

    def __init__(self, num_inputs: int, hidden_size: int) -> None:
        super().__init__(nn.LSTM(num_inputs, hidden_size), _LSTMCell, num_inputs, hidden_size)
        forget_gate = self.layer.get_parameter("bias_ih_l0").data.chunk(4)[1]
        nn.init.constant_(forget_gate, FORGET_BIAS)


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al. 2014); the state is its hidden row."""

    def __init__(self, num_inputs: int, hidden_size: int) -> None:
        super().__init__(nn.GRU(num_inputs, hidden_size), _GRUCell, num_inputs, hidden_size)


MEMORIES: dict[str, Callable[[int, int], Memory]] = {"none": Memory, "lstm": LSTM, "gru": GRU}
"""Memories by name."""
