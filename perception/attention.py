"""Multi-head attention (Vaswani et al. 2017, section 3.2), which the encoder and the memory share.

Axes: B batch, Q queries, K keys, H heads, D width, d width of a head (D / H).
"""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """Attention with projections of queries, keys and values, and of the joined heads.

    Args:
        size: D.
        num_heads: H.

    Raises:
        ValueError: If the width is not a multiple of the number of heads.
    """

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        if size % num_heads:
            raise ValueError(f"a width of {size} cannot be divided among {num_heads} heads")
        self.num_heads = num_heads
        self.query, self.key, self.value, self.output = (nn.Linear(size, size) for _ in range(4))
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """Attend to projected keys and values.

        Args:
            queries: (B, Q, D), not projected.
            keys: (B, K, D), projected by `key`.
            values: (B, K, D), projected by `value`.
            bias: added to the scores, broadcast to (B, H, Q, K); -inf where a query must not
                attend. None: every query attends to every key.

        Returns:
            (B, Q, D).
        """
        query, key, value = (self._split(t) for t in (self.query(queries), keys, values))
        # Scores are divided by the square root of d.
        heads = _attend(query, key, value, bias)
        joined: Tensor = self.output(heads.transpose(1, 2).flatten(2).to(queries.dtype))
        return joined

    def weights(self, queries: Tensor, keys: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return how much each query attends to each key, (B, H, Q, K), rows that add up to 1.

        Args:
            queries: as for `forward`.
            keys: as for `forward`.
            bias: as for `forward`.
        """
        query, key = self._split(self.query(queries)), self._split(keys)
        scores: Tensor = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        return (scores if bias is None else scores + bias).softmax(-1)

    def _split(self, tensor: Tensor) -> Tensor:
        """Return (B, K, D) as (B, H, K, d)."""
        heads: Tensor = tensor.unflatten(2, (self.num_heads, -1))
        return heads.transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Return the mean values of (B, H, Q, d) queries, weighted by the softmax of their scores."""
    # In bfloat16, PyTorch's backward pass on a CPU takes several times as long as in float32.
    on_cpu = query.device.type == "cpu"
    dtype = torch.float32 if on_cpu else query.dtype
    bias = None if bias is None else bias.to(dtype)
    with torch.autocast("cpu", enabled=False) if on_cpu else contextlib.nullcontext():
        return F.scaled_dot_product_attention(
            query.to(dtype), key.to(dtype), value.to(dtype), attn_mask=bias
        )
