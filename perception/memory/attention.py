"""Gated attention over a sliding window of past env steps (GTrXL; Parisotto et al. 2020).

Keys and values of the last env steps are the memory's state, so that acting computes one token.

Axes: T time, N environments, D features in, M features out, S rows of the state, L layers,
W window, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception.attention import MultiHeadAttention
from perception.memory.memory import MAX_LAYERS, Memory
from perception.memory.recurrent import RecurrentConfig

_MAX_STATE = 2**22  # numbers in the window, for each environment
_GATE_BIAS = 2.0  # Gates start nearly closed (Parisotto et al. 2020, section 3.2).


@dataclass(frozen=True, kw_only=True)
class AttentionMemoryConfig(RecurrentConfig):
    """The configuration of gated attention over past env steps."""

    memory_size: int = 128
    """Width of the memory, M."""
    memory_layers: int = 1
    """Number of layers; each looks back further through the one below."""
    memory_heads: int = 4
    """Heads of the attention."""
    memory_window: int = 64
    """Past env steps that a layer attends to, W."""

    def __post_init__(self) -> None:
        """Check sizes.

        Raises:
            ValueError: If a size is not positive, or the width cannot be divided among the heads.
        """
        super().__post_init__()
        for name in ("memory_layers", "memory_heads", "memory_window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.memory_layers > MAX_LAYERS:
            raise ValueError(
                f"memory_layers must be at most {MAX_LAYERS}, got {self.memory_layers:,}"
            )
        if 2 * self.memory_window * self.memory_layers * self.memory_size > _MAX_STATE:
            raise ValueError(
                f"a window of {self.memory_window:,} env steps in {self.memory_layers:,} layers of "
                f"width {self.memory_size:,} is too large; at most {_MAX_STATE:,} numbers"
            )
        if self.memory_size % self.memory_heads:
            raise ValueError(
                f"memory_size ({self.memory_size}) must be a multiple of memory_heads "
                f"({self.memory_heads})"
            )


class _Gate(nn.Module):
    """Adds an update to a stream by a GRU's gate instead of a sum (equation 2 of GTrXL)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.of_update, self.of_stream = nn.Linear(size, 3 * size), nn.Linear(size, 2 * size)
        self.of_reset = nn.Linear(size, size, bias=False)
        for layer in (self.of_update, self.of_stream, self.of_reset):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.of_update.bias)
        nn.init.zeros_(self.of_stream.bias)

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        """Return (..., M) for a (..., M) stream and a (..., M) update."""
        reset, open_, proposed = self.of_update(update).chunk(3, -1)
        reset_stream, open_stream = self.of_stream(stream).chunk(2, -1)
        opening = (open_ + open_stream - _GATE_BIAS).sigmoid()
        reset = (reset + reset_stream).sigmoid()
        proposal = (proposed + self.of_reset(reset * stream)).tanh()
        mixed: Tensor = torch.lerp(stream, proposal, opening)
        return mixed


class _Layer(nn.Module):
    """Attention to the window, then a network for each step, both normalised first and gated."""

    def __init__(self, size: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(size, num_heads)
        # Added to the scores by distance, 0 to W, whatever is seen (as in T5; Raffel et al. 2020).
        # GTrXL's terms also depend on the query.
        self.distances = nn.Parameter(torch.zeros(num_heads, window + 1))
        self.before_attention, self.before_mlp = nn.LayerNorm(size), nn.LayerNorm(size)
        self.mlp = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))
        self.after_attention, self.after_mlp = _Gate(size), _Gate(size)

    def project(self, stream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (N, T, M), of an (N, T, M) stream."""
        normal = self.before_attention(stream)
        return normal, self.attention.key(normal), self.attention.value(normal)

    def forward(
        self, stream: Tensor, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor
    ) -> Tensor:
        """Return (N, T, M) for an (N, T, M) stream; see `MultiHeadAttention` for the rest."""
        attended = self.attention(queries, keys, values, bias).relu()
        stream = self.after_attention(stream, attended)
        mixed: Tensor = self.after_mlp(stream, self.mlp(self.before_mlp(stream)).relu())
        return mixed


class AttentionMemory(Memory):
    """Layers of gated attention over the last W env steps of the episode.

    The state is 2 W rows for each layer, keys then values of the last W env steps, oldest first,
    and one row that counts the env steps which they contain. Rows that hold none are zero.
    """

    is_recurrent = True

    def __init__(self, config: AttentionMemoryConfig, num_inputs: int) -> None:
        super().__init__(config, num_inputs)
        size, self.window = config.memory_size, config.memory_window
        self.embed = nn.Linear(num_inputs, size)
        self.layers = nn.ModuleList(
            _Layer(size, config.memory_heads, self.window) for _ in range(config.memory_layers)
        )
        self.state_shape = (2 * self.window * config.memory_layers + 1, size)
        self.num_features = size

    def forward(
        self, features: Tensor, state: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Memory.forward`."""
        outputs, state, _ = self._run(features, state, episode_starts)
        return outputs, state

    @torch.no_grad()
    def attention_maps(self, features: Tensor, state: Tensor, episode_starts: Tensor) -> Tensor:
        """Return how much each env step attends to those before it.

        Args:
            features: see `forward`.
            state: see `forward`.
            episode_starts: see `forward`.

        Returns:
            (L, N, H, T, W + T) float32: the keys are the window's env steps, oldest first, then
            those of the sequence. Rows add up to 1.
        """
        return torch.stack(self._run(features, state, episode_starts, with_maps=True)[2])

    def _run(
        self, features: Tensor, state: Tensor, episode_starts: Tensor, *, with_maps: bool = False
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        steps, window = len(features), self.window
        count = state[-1, :, 0].clamp(min=0)  # (N,)
        allowed, distance = self._visible(episode_starts, count)
        stream = self.embed(features.to(self.embed.weight.dtype)).transpose(0, 1)  # (N, T, M)
        kept, count = self._kept(episode_starts, count)
        rows, maps = [], []
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, _Layer)
            first = 2 * window * number
            cached = state[first : first + 2 * window].transpose(0, 1)  # (N, 2 W, M)
            queries, keys, values = layer.project(stream)
            keys = torch.cat((cached[:, :window], keys.float()), 1)
            values = torch.cat((cached[:, window:], values.float()), 1)
            bias = layer.distances[:, distance.clamp(0, window)]  # (H, T, W + T)
            bias = torch.where(allowed[:, None], bias, -torch.inf)
            if with_maps:
                maps.append(layer.attention.weights(queries, keys, bias))
            stream = layer(stream, queries, keys.to(queries.dtype), values.to(queries.dtype), bias)
            rows += [(each[:, steps:] * kept).transpose(0, 1) for each in (keys, values)]
        counted = count[None, :, None].expand_as(state[-1:])
        return stream.transpose(0, 1).float(), torch.cat((*rows, counted)), maps

    def _visible(self, episode_starts: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Return which keys each env step attends to, and how far they are.

        Args:
            episode_starts: (T, N) bool.
            count: (N,) float32, the env steps in the window.

        Returns:
            (N, T, W + T) bool, and (T, W + T) int64 distances in env steps, below 0 for later ones.
        """
        steps, window = len(episode_starts), self.window
        time = torch.arange(-window, steps, device=count.device)
        distance = time[window:, None] - time  # (T, W + T)
        in_reach = (distance >= 0) & (distance <= window)
        episode = episode_starts.long().cumsum(0).t()  # (N, T)
        before = torch.where(-time[:window] <= count[:, None], 0, -1)  # (N, W); -1: none
        same = episode[:, :, None] == torch.cat((before, episode), 1)[:, None]
        return in_reach & same, distance

    def _kept(self, episode_starts: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Return which of the last W env steps belong to the current episode, and their number.

        Args:
            episode_starts: (T, N) bool.
            count: (N,) float32, the env steps in the window before the sequence.

        Returns:
            (N, W, 1) bool, and (N,) float32, at most W.
        """
        steps = len(episode_starts)
        time = torch.arange(steps, device=count.device)[:, None]
        last_start = torch.where(episode_starts, time, -1).amax(0)  # (N,), -1: none
        count = torch.where(last_start < 0, count + steps, steps - last_start)
        count = count.clamp(max=self.window)
        age = torch.arange(self.window, 0, -1, device=count.device)
        return (age <= count[:, None])[..., None], count
