"""The interface of image encoders, and the functions they share.

Axes: B batch, P planes, H, W screen, F features.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

MAX_LAYERS = 64
"""Layers of one kind in an encoder; a stranger's file may ask for any number."""
_MAX_SIZE = 2**20  # Of a layer.
_MAX_OUTPUTS = 2**26  # Numbers that a layer computes from one image: 256 MiB in float32.


class PerceptionError(ValueError):
    """An encoder does not support the observations; the message is one line with a remedy."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The configuration of an encoder; each has its own subclass. Every field is a layer size.

    Raises:
        ValueError: If a size is not positive, or if it or the number of layers is too large.
    """

    def __post_init__(self) -> None:
        """Check sizes, which are integers or tuples of them."""
        for field in fields(self):
            value = getattr(self, field.name)
            sizes = value if isinstance(value, tuple) else (value,)
            if len(sizes) > MAX_LAYERS:
                raise ValueError(
                    f"{field.name} must be at most {MAX_LAYERS} layers, got {len(sizes):,}"
                )
            if any(type(size) is int and size < 1 for size in sizes):
                raise ValueError(f"{field.name} must be positive, got {value}")
            if any(type(size) is int and size > _MAX_SIZE for size in sizes):
                raise ValueError(f"{field.name} must be at most {_MAX_SIZE:,}, got {value}")


class Encoder(nn.Module):
    """Encodes decoded images, (B, P, H, W) float32, as features, (B, F) float32.

    Args:
        config: layer sizes.
        input_shape: (P, H, W).

    Attributes:
        num_features: F.
        block: side of the blocks, in pixels, in which the encoder processes images fastest; see
            `Decoder`. With 1, images are passed whole.

    Raises:
        PerceptionError: If images of that shape are too small.
    """

    num_features: int
    block: int = 1

    def __init__(self, config: Any, input_shape: tuple[int, ...]) -> None:
        super().__init__()


def orthogonal(layer: nn.Module, gain: float = sqrt(2.0)) -> nn.Module:
    """Initialise weights orthogonally and biases with zero (Engstrom et al. 2020, section 4).

    Args:
        layer: a linear or convolutional layer.
        gain: scale of the weights; sqrt(2) preserves the variance through a ReLU.

    Returns:
        The layer.
    """
    assert isinstance(layer.weight, Tensor)
    nn.init.orthogonal_(layer.weight, gain)
    if isinstance(layer.bias, Tensor):
        nn.init.zeros_(layer.bias)
    return layer


def output_size(layers: nn.Sequential, input_shape: tuple[int, ...], smallest: int) -> int:
    """Return the number of outputs of a sequence of layers that ends with a flattening layer.

    Args:
        layers: the layers; only the shapes of their outputs are computed.
        input_shape: (P, H, W).
        smallest: the smallest H and W that they support.

    Raises:
        PerceptionError: If H or W is smaller, or a layer has too many outputs.
    """
    height, width = input_shape[1:]
    if min(height, width) < smallest:
        raise PerceptionError(
            f"a screen of {height}x{width} is too small for this encoder, which needs at least "
            f"{smallest}x{smallest}; raise --height and --width, or use --encoder mlp"
        )
    outputs = torch.zeros(1, *input_shape, device="meta")
    with torch.no_grad():
        for layer in copy.deepcopy(layers).to("meta"):
            outputs = layer(outputs)
            if outputs.numel() > _MAX_OUTPUTS:
                raise PerceptionError(
                    f"a layer computes {outputs.numel():,} numbers from a screen of "
                    f"{height}x{width}; at most {_MAX_OUTPUTS:,} are possible: lower --height and "
                    "--width, or the number of channels"
                )
    return int(outputs.shape[1])
