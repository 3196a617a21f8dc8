"""A small vision transformer (Dosovitskiy et al. 2021) on the output of two convolutions.

Convolutions first make it easier to train (Xiao et al. 2021). Blocks normalise their input instead
of their output (pre-norm; Xiong et al. 2020). Learned queries gather the tokens (Lee et al. 2019).

Axes: B batch, P planes, H, W screen, K tokens, D width of a token, Q queries, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception.attention import MultiHeadAttention
from perception.encoders.encoder import MAX_LAYERS, Encoder, EncoderConfig, orthogonal, output_size


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(EncoderConfig):
    """The configuration of the vision transformer."""

    stem_channels: int = 32
    """Channels of the first convolution."""
    token_size: int = 64
    """Width of a token."""
    token_layers: int = 2
    """Number of transformer blocks."""
    token_heads: int = 4
    """Heads of the attention between tokens."""
    token_queries: int = 8
    """Learned queries that gather the tokens; each has its own part of the features."""
    features: int = 256
    """Width of the layer after the queries."""

    def __post_init__(self) -> None:
        """Check sizes.

        Raises:
            ValueError: If a size is out of range, or tokens cannot be divided among the heads.
        """
        super().__post_init__()
        if self.token_layers > MAX_LAYERS:
            raise ValueError(
                f"token_layers must be at most {MAX_LAYERS}, got {self.token_layers:,}"
            )
        if self.token_size % self.token_heads:
            raise ValueError(
                f"token_size ({self.token_size}) must be a multiple of token_heads "
                f"({self.token_heads})"
            )


class _Block(nn.Module):
    """Attention between tokens and a network for each token, both added to their input."""

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(size, num_heads)
        self.before_attention, self.before_mlp = nn.LayerNorm(size), nn.LayerNorm(size)
        self.mlp = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, K, D) tokens for (B, K, D) tokens."""
        tokens = tokens + self._attend(self.before_attention(tokens))
        mixed: Tensor = tokens + self.mlp(self.before_mlp(tokens))
        return mixed

    def _attend(self, normal: Tensor) -> Tensor:
        attended: Tensor = self.attention(
            normal, self.attention.key(normal), self.attention.value(normal)
        )
        return attended


class VisionTransformer(Encoder):
    """Convolutions that turn 8 x 8 pixels into a token, transformer blocks, and learned queries."""

    def __init__(self, config: AttentionConfig, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, input_shape)
        size = config.token_size
        self.stem = nn.Sequential(
            orthogonal(nn.Conv2d(input_shape[0], config.stem_channels, 8, 4, padding=2)),
            nn.ReLU(),
            orthogonal(nn.Conv2d(config.stem_channels, size, 3, 2, padding=1), 1.0),
        )
        flattened = nn.Sequential(*self.stem, nn.Flatten())
        num_tokens = output_size(flattened, input_shape, smallest=8) // size
        # Learned, one for each place in two dimensions.
        self.positions = nn.Parameter(0.02 * torch.randn(num_tokens, size))
        self.blocks = nn.ModuleList(
            _Block(size, config.token_heads) for _ in range(config.token_layers)
        )
        self.norm = nn.LayerNorm(size)
        self.queries = nn.Parameter(torch.randn(config.token_queries, size))
        self.pooling = MultiHeadAttention(size, config.token_heads)
        self.head = nn.Sequential(
            orthogonal(nn.Linear(config.token_queries * size, config.features)), nn.ReLU()
        )
        self.num_features = config.features

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (B, P, H, W) float32 as (B, F) float32."""
        tokens = self._tokens(inputs)
        queries = self.queries.expand(tokens.shape[0], -1, -1)
        pooled = self.pooling(queries, self.pooling.key(tokens), self.pooling.value(tokens))
        features: Tensor = self.head(pooled.flatten(1))
        return features

    @torch.no_grad()
    def attention_maps(self, inputs: Tensor) -> Tensor:
        """Return how much each query attends to each place, averaged over heads.

        Args:
            inputs: (B, P, H, W) float32, decoded images.

        Returns:
            (B, Q, h, w) float32, where (h, w) is the grid of tokens; each map adds up to 1.
        """
        tokens = self._tokens(inputs)
        queries = self.queries.expand(tokens.shape[0], -1, -1)
        weights = self.pooling.weights(queries, self.pooling.key(tokens)).mean(1)
        height, width = self.stem(inputs).shape[2:]
        return weights.view(*weights.shape[:2], height, width)

    def _tokens(self, inputs: Tensor) -> Tensor:
        """Return (B, K, D) tokens of (B, P, H, W) images, row by row."""
        tokens: Tensor = self.stem(inputs).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        normal: Tensor = self.norm(tokens)
        return normal
