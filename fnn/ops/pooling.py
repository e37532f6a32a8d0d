"""Pooling: the largest or the mean element beneath a window that slides over space."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.ops.convolution import Padding, check_rank, output_sizes, per_axis, resolve_padding


def pool_max(
    x: jax.Array, window: tuple[int, ...], strides: int | tuple[int, ...] | None = None, padding: Padding = "VALID"
) -> jax.Array:
    """Largest element beneath each place of the window."""
    strides, pairs = resolve(x, window, strides, padding)
    lowest = np.array(-np.inf if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo(x.dtype).min, x.dtype)
    pairs = ((0, 0), *pairs, (0, 0))
    return lax.reduce_window(x, lowest, lax.max, (1, *window, 1), (1, *strides, 1), pairs)


def resolve(x, window, strides, padding):
    check_rank(x, len(window))
    strides = window if strides is None else per_axis("strides", strides, len(window))
    pairs = resolve_padding(padding, x.shape[1:-1], window, strides)
    output_sizes(x.shape[1:-1], window, strides, pairs)
    return strides, pairs
