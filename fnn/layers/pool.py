"""Pooling layers."""

from typing import Any

from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.convolution import Padding
from fnn.ops.pooling import pool_max


def max_pool(
    window: tuple[int, ...], *, strides: int | tuple[int, ...] | None = None, padding: Padding = "VALID"
) -> Layer:
    """Keep the largest element beneath each place of a sliding window."""

    def apply(x: Any) -> Any:
        return pool_max(x, window, strides, padding)

    return layer(None, apply)
