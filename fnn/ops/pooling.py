"""The largest and the mean element beneath a window that slides over space. Arrays are channels last."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.ops.checks import check_floating
from fnn.ops.dtypes import widen
from fnn.ops.windows import Padding, Pairs, check_rank, output_sizes, per_axis, resolve_padding

# Windows up to these sizes are unrolled: measured on CPUs, and it keeps what XLA must compile short.
_UNROLLED_MAX = 5
_UNROLLED_MEAN = 16


def pool_max(
    x: jax.Array,
    window: tuple[int, ...],
    *,
    strides: int | tuple[int, ...] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Find the largest element beneath each place of the window; padding never is the largest.

    Of equal elements the gradient goes to the first in row-major order, as in PyTorch and TensorFlow. A NaN is larger
    than any number.

    Args:
        x: ``(batch, *space, channels)``, integer or real.
        window: Extent along each spatial axis.
        strides: Step of the window; None: the window, so that places do not overlap.
        padding: See `fnn.ops.windows.resolve_padding`.

    Returns:
        ``(batch, *space', channels)``.
    """
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise TypeError(f"x is {x.dtype}, wanted real numbers, which have an order")
    strides, pairs = _geometry(x, window, strides, padding)
    return _pool_max(window, strides, pairs, x)


def pool_mean(
    x: jax.Array,
    window: tuple[int, ...],
    *,
    strides: int | tuple[int, ...] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Average the elements beneath each place of the window; padding is not counted.

    Sums are float32 or wider, the result has the dtype of x.

    Args:
        x: ``(batch, *space, channels)``, floating.
        window: Extent along each spatial axis.
        strides: Step of the window; None: the window, so that places do not overlap.
        padding: See `fnn.ops.windows.resolve_padding`.

    Returns:
        ``(batch, *space', channels)``.
    """
    check_floating(x)
    strides, pairs = _geometry(x, window, strides, padding)
    wide = widen(x)
    counts = math.prod(window)
    if any(low or high for low, high in pairs):
        inside = [_count(*axis) for axis in zip(x.shape[1:-1], window, strides, pairs)]
        counts = functools.reduce(np.multiply.outer, inside)[..., None].astype(wide.dtype)
    return (_pool_sum(wide, window, strides, pairs) / counts).astype(x.dtype)


def _geometry(
    x: jax.Array, window: tuple[int, ...], strides: int | tuple[int, ...] | None, padding: Padding
) -> tuple[tuple[int, ...], Pairs]:
    check_rank(x, len(window))
    strides = per_axis("strides", window if strides is None else strides, len(window))
    sizes = x.shape[1:-1]
    pairs = resolve_padding(padding, sizes, window, strides)
    output_sizes(sizes, window, strides, pairs)
    for extent, pair in zip(window, pairs):
        if max(pair) >= extent:
            raise ValueError(
                f"padding of {max(pair)} leaves a window of {extent} with nothing but padding beneath it; "
                "pad less than the window on each side"
            )
    return strides, pairs


def _pool_sum(x: jax.Array, window: tuple[int, ...], strides: tuple[int, ...], pairs: Pairs) -> jax.Array:
    if math.prod(window) > _UNROLLED_MEAN:
        return lax.reduce_window(
            x, np.zeros((), x.dtype), lax.add, (1, *window, 1), (1, *strides, 1), ((0, 0), *pairs, (0, 0))
        )
    x = jnp.pad(x, ((0, 0), *pairs, (0, 0))) if any(low or high for low, high in pairs) else x
    sizes = [(size - extent) // stride + 1 for size, extent, stride in zip(x.shape[1:-1], window, strides)]

    # Sums of slices take XLA:CPU half the time of its reduce_window, forward and backward.
    def beneath(place: tuple[int, ...]) -> jax.Array:
        last = [start + (size - 1) * stride + 1 for start, size, stride in zip(place, sizes, strides)]
        return lax.slice(x, (0, *place, 0), (x.shape[0], *last, x.shape[-1]), (1, *strides, 1))

    return functools.reduce(jnp.add, map(beneath, np.ndindex(*window)))


def _count(size: int, extent: int, stride: int, pair: tuple[int, int]) -> np.ndarray:
    starts = np.arange(-pair[0], size + pair[1] - extent + 1, stride)
    return np.minimum(starts + extent, size) - np.maximum(starts, 0)


def _lowest(x: jax.Array) -> np.ndarray:
    return np.array(-np.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min, x.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _pool_max(window: tuple[int, ...], strides: tuple[int, ...], pairs: Pairs, x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, _lowest(x), lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *pairs, (0, 0)))


@_pool_max.defjvp
def _pool_max_jvp(
    window: tuple[int, ...],
    strides: tuple[int, ...],
    pairs: Pairs,
    primals: tuple[jax.Array],
    tangents: tuple[jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Pool one axis after the other, the last first, which finds the first maximum in row-major order.

    What reduce_window transposes to, select_and_scatter, is 3 to 30 times slower on CPUs. This is linear in the tangent
    and transposes to a broadcast and a select. It holds no reduce_window, so that it can be differentiated again.
    """
    (y,), (y_dot,) = primals, tangents
    axes = enumerate(zip(window, strides, pairs), start=1)
    for axis, (extent, stride, pair) in reversed(list(axes)):
        offset, y = _first_max(_windows(y, axis, extent, stride, pair, _lowest(y)), axis + 1, stride, pair)
        y_dot = _pick(_windows(y_dot, axis, extent, stride, pair, np.zeros((), y_dot.dtype)), offset, axis + 1)
    return y, y_dot


def _windows(x: jax.Array, axis: int, extent: int, stride: int, pair: tuple[int, int], fill: np.ndarray) -> jax.Array:
    """Cut ``axis`` into its windows: ``(..., places, extent, ...)``."""
    size = x.shape[axis]
    places = (size + sum(pair) - extent) // stride + 1
    parts = -(-extent // stride)  # a window lies on so many blocks of stride elements
    blocks = places + parts - 1
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (pair[0], blocks * stride - size - pair[0], 0)
    x = lax.pad(x, fill, config).reshape(*x.shape[:axis], blocks, stride, *x.shape[axis + 1 :])
    shifted = [lax.slice_in_dim(x, part, part + places, axis=axis) for part in range(parts)]
    return lax.slice_in_dim(lax.concatenate(shifted, axis + 1), 0, extent, axis=axis + 1)


def _first_max(windows: jax.Array, axis: int, stride: int, pair: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Find the first maximum along ``axis``, or the first NaN: its offset and its value."""
    places, extent = windows.shape[axis - 1 : axis + 1]
    # Where all of a window is -inf, the padding before it must not come first.
    inside = np.maximum(pair[0] - np.arange(places) * stride, 0).reshape(places, *(1,) * (windows.ndim - axis - 1))
    if extent > _UNROLLED_MAX:
        offset = jnp.maximum(lax.argmax(windows, axis, np.int32), inside.astype(np.int32))
        return offset, _pick(windows, offset, axis)
    best = lax.index_in_dim(windows, 0, axis, keepdims=False)
    offset = jnp.broadcast_to(inside.astype(np.int8), best.shape)
    for place in range(1, extent):
        value = lax.index_in_dim(windows, place, axis, keepdims=False)
        better = ~(value <= best) & (best == best)
        best, offset = jnp.where(better, value, best), jnp.where(better, np.int8(place), offset)
    return offset, best


def _pick(windows: jax.Array, offset: jax.Array, axis: int) -> jax.Array:
    """Take the element at ``offset`` along ``axis``; transposes to a broadcast and a select."""
    here = jnp.expand_dims(offset, axis) == lax.broadcasted_iota(offset.dtype, windows.shape, axis)
    return jnp.sum(jnp.where(here, windows, 0), axis=axis)
