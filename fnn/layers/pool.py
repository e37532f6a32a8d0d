"""Pooling: fewer places, each with the largest or the mean of what was beneath its window."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.checks import check_floating
from fnn.ops.pooling import pool_max, pool_mean
from fnn.ops.windows import Padding, check_geometry


def max_pool(
    window: tuple[int, ...], *, strides: int | tuple[int, ...] | None = None, padding: Padding = "VALID"
) -> Layer:
    """Keep the largest element beneath each place of a sliding window.

    Of equal elements the gradient goes to the first in row-major order.

    Args:
        window: Extent along each spatial axis; ``(2, 2)`` halves an image.
        strides: Step of the window; one int, or one for each axis. None: the window, so that places do not overlap.
        padding: Places around x that are never the largest; ``"VALID"`` (none), ``"SAME"``, an int, or an int or pair
            for each axis, as in `conv`. Less than the window on each side.

    Returns:
        A layer that owns nothing.

        - x: ``(batch, *space, channels)``, integer or real
        - y: ``(batch, *space', channels)``, with ``space' = (space + low + high - window) // strides + 1``; elements
          at the end that fill no window are left out

    Raises:
        ValueError: when window, strides or padding is none of the above.
        LayerError: at init, when x has another rank, or the window is larger than the padded x.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> fnn.max_pool((2, 2)).apply({}, {}, jnp.ones((8, 5, 4, 3)))[0].shape
        (8, 2, 2, 3)
    """
    check_geometry(window, 1 if strides is None else strides, padding)

    def apply(x: jax.Array) -> jax.Array:
        return pool_max(x, window, strides=strides, padding=padding)

    return layer(None, apply)


def mean_pool(
    window: tuple[int, ...], *, strides: int | tuple[int, ...] | None = None, padding: Padding = "VALID"
) -> Layer:
    """Average the elements beneath each place of a sliding window.

    Args:
        window: Extent along each spatial axis.
        strides: Step of the window; one int, or one for each axis. None: the window, so that places do not overlap.
        padding: Places around x that are not counted; ``"VALID"`` (none), ``"SAME"``, an int, or an int or pair for
            each axis, as in `conv`. Less than the window on each side.

    Returns:
        A layer that owns nothing.

        - x: ``(batch, *space, channels)``, floating
        - y: ``(batch, *space', channels)``, with ``space' = (space + low + high - window) // strides + 1``; elements
          at the end that fill no window are left out

    Raises:
        ValueError: when window, strides or padding is none of the above.
        LayerError: at init, when x has another rank or an integer dtype, or the window is larger than the padded x.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> y, _ = fnn.mean_pool((2,)).apply({}, {}, jnp.arange(4.0)[None, :, None])
        >>> y[0, :, 0].tolist()
        [0.5, 2.5]
    """
    check_geometry(window, 1 if strides is None else strides, padding)

    def apply(x: jax.Array) -> jax.Array:
        return pool_mean(x, window, strides=strides, padding=padding)

    return layer(None, apply)


def global_max_pool() -> Layer:
    """Keep the largest element of each channel over all of space.

    Of equal elements the gradient goes to the first in row-major order.

    Returns:
        A layer that owns nothing.

        - x: ``(batch, *space, channels)``, integer or real
        - y: ``(batch, channels)``

    Raises:
        LayerError: at init, when x has no spatial axis, or an empty one.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> fnn.global_max_pool().apply({}, {}, jnp.ones((8, 5, 4, 3)))[0].shape
        (8, 3)
    """

    def apply(x: jax.Array) -> jax.Array:
        flat = _flatten_space(x)
        return pool_max(flat, flat.shape[1:2])[:, 0]

    return layer(None, apply)


def global_mean_pool() -> Layer:
    """Average each channel over all of space.

    Returns:
        A layer that owns nothing.

        - x: ``(batch, *space, channels)``, floating
        - y: ``(batch, channels)``

    Raises:
        LayerError: at init, when x has no spatial axis or an empty one, or an integer dtype.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> fnn.global_mean_pool().apply({}, {}, jnp.ones((8, 5, 4, 3)))[0].shape
        (8, 3)
    """

    def apply(x: jax.Array) -> jax.Array:
        check_floating(x)
        return jnp.mean(_flatten_space(x), axis=1)

    return layer(None, apply)


def _flatten_space(x: Any) -> Any:
    size = math.prod(x.shape[1:-1])
    if x.ndim < 3 or not size:
        raise ValueError(
            f"x has shape {x.shape}, wanted (batch, *space, channels) with elements in space; "
            "pool before fnn.flatten(), and give images without channels an axis: x[..., None]"
        )
    return x.reshape(x.shape[0], size, x.shape[-1])
