"""Memory: what is carried from one env step to the next, and when it is cleared.

A new memory is one class here with the interface of `Memory`, and one line in `MEMORIES`.

Axes: T time, N environments, D features in, M features out, S rows of the state.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


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
        return next(iter(self.parameters()), torch.empty(0)).new_zeros(rows, num_envs, size)

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


class _Recurrent(Memory):
    """A recurrent layer of PyTorch over sequences in which episodes end.

    Clearing the state in the middle of a sequence would need a Python step for each time step.
    Instead the sequence is cut where episodes start; the pieces are run side by side, as one packed
    batch, in a single call of the fused kernel.
    """

    is_recurrent = True

    def __init__(self, layer: type[nn.LSTM] | type[nn.GRU], size: int, hidden_size: int) -> None:
        super().__init__(size, hidden_size)
        self.layer = layer(size, hidden_size)
        # An LSTM's state is two rows, hidden and cell; a GRU's is one.
        self.state_shape = (2 if layer is nn.LSTM else 1, hidden_size)
        self.num_features = hidden_size
        for name, parameter in self.layer.named_parameters():
            if "weight" in name:
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward(
        self, features: Tensor, state: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Memory.forward`."""
        state = state * ~episode_starts[0, :, None]
        if len(features) == 1 or not episode_starts[1:].any():
            return self._run(features, state)
        return self._run_pieces(features, state, episode_starts)

    def _run(self, inputs: Tensor | PackedSequence, state: Tensor) -> tuple[Tensor, Tensor]:
        rows = len(state)
        outputs, after = self.layer(inputs, tuple(state.split(1)) if rows == 2 else state)
        return outputs, torch.cat(after) if rows == 2 else after

    def _run_pieces(
        self, features: Tensor, state: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cut (T, N) at episode starts, run the pieces as one batch, put them together again."""
        steps, num_envs = episode_starts.shape
        starts = episode_starts.clone()
        starts[0] = True
        # Environment-major order, so that a piece is a run of neighbours: (N * T,).
        piece = starts.T.flatten().cumsum(0) - 1
        lengths = piece.bincount()
        first = lengths.cumsum(0) - lengths
        place = torch.arange(len(piece), device=piece.device) - first[piece]
        # Pad the pieces to (longest, pieces, D) and pack them.
        flat = features.transpose(0, 1).flatten(0, 1)
        padded = flat.new_zeros(int(lengths.max()), len(lengths), flat.shape[1])
        padded[place, piece] = flat
        packed = pack_padded_sequence(padded, lengths.cpu(), enforce_sorted=False)
        # Only the first piece of each environment carries the state in; the others begin cleared.
        first_piece = piece[torch.arange(num_envs, device=piece.device) * steps]
        last_piece = piece[torch.arange(1, num_envs + 1, device=piece.device) * steps - 1]
        before = state.new_zeros(len(state), len(lengths), state.shape[2])
        before[:, first_piece] = state
        outputs, after = self._run(packed, before)
        unpacked, _ = pad_packed_sequence(outputs)  # type: ignore[arg-type] # as it went in
        joined = unpacked[place, piece].unflatten(0, (num_envs, steps)).transpose(0, 1)
        return joined, after[:, last_piece]


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); the state is hidden and cell."""

    def __init__(self, num_inputs: int, hidden_size: int) -> None:
        super().__init__(nn.LSTM, num_inputs, hidden_size)


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al. 2014); the state is its hidden row."""

    def __init__(self, num_inputs: int, hidden_size: int) -> None:
        super().__init__(nn.GRU, num_inputs, hidden_size)


MEMORIES: dict[str, Callable[[int, int], Memory]] = {"none": Memory, "lstm": LSTM, "gru": GRU}
"""Memories by name."""
