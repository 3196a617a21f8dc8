"""Encoding short texts: their words' embeddings, joined by attention.

Axes: B batch, K tokens, W width of an embedding, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception.encoders import orthogonal


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """A part of an observation that is a text, as tokens; 0 is no word.

    Attributes:
        length: K.
        vocabulary: the number of different tokens.

    Raises:
        ValueError: If a number is not positive.
    """

    length: int
    vocabulary: int

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.length < 1 or self.vocabulary < 1:
            raise ValueError(f"a text of {self.length} of {self.vocabulary} tokens is impossible")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one text, (K,)."""
        return (self.length,)


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The configuration of the encoder of texts.

    Raises:
        ValueError: If a value is out of range.
    """

    text_features: int = 64
    """Number of features of a text."""
    embedding_size: int = 32
    """Width of the vector that a word is represented by."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("text_features", "embedding_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class TextEncoder(nn.Module):
    """Encodes texts, (B, K) integers to (B, F) float32.

    Each word is represented by an embedding of it and one of its place. Their mean, weighted by
    attention (Bahdanau et al. 2015) to one learned query, represents the text; that of no word is
    zero.

    Args:
        spec: the texts.
        config: configuration of the layers.

    Attributes:
        num_features: F.
    """

    def __init__(self, spec: TextSpec, config: TextConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.words = nn.Embedding(spec.vocabulary, width)
        self.places = nn.Parameter(0.1 * torch.randn(spec.length, width))
        self.query = nn.Parameter(torch.zeros(width))
        self.output = orthogonal(nn.Linear(width, config.text_features))
        self.num_features = config.text_features

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode (B, K) tokens as (B, F) float32."""
        tokens = tokens.long()
        there = tokens != 0
        words = self.words(tokens) + self.places
        scores = (words @ self.query) / words.shape[-1] ** 0.5
        # Words that are not there have no weight, also if there is no word at all.
        weights = scores.masked_fill(~there, -1e9).softmax(-1) * there
        mean = (weights[..., None] * words).sum(1)
        return torch.relu(self.output(mean))

    def observe(self, tokens: Tensor) -> None:
        """Do nothing: tokens are not normalised."""
