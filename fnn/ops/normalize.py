"""The standardisation, and the learned scale and bias, that all normalisations share."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from fnn.ops.checks import check_channels, check_floating
from fnn.ops.dtypes import widen


def check_normalizable(x: Any, axes: int, wanted: str) -> None:
    """Raise unless ``x`` is real, floating and has at least ``axes`` axes."""
    check_floating(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"x is {x.dtype}, wanted a real dtype; normalise its real and imaginary parts, or jnp.abs(x)")
    if len(x.shape) < axes:
        raise ValueError(f"x has shape {x.shape}, wanted {wanted}; add the missing axes, such as x[None]")


def standardize(
    x: jax.Array,
    axes: tuple[int, ...],
    epsilon: Any,
    weight: jax.Array | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Bring ``x`` to mean 0 and variance 1 over ``axes``, in the dtype of statistics.

    The deviations are squared after the mean is known: the shorter ``mean(x**2) - mean**2`` cancels to noise where the
    mean is large beside the spread. The derivative is written by hand, so that of all the arrays as large as x only
    the result is kept for the backward pass.

    Args:
        x: Any array.
        axes: The axes to normalise over.
        epsilon: Added to the variance; may be traced.
        weight: How much each element counts, broadcast to x; it has no gradient. None: all the same.
        axis_name: Name of a mapped axis over which the statistics are taken too.

    Returns:
        An array of the shape of ``x``, the mean and the biased variance, which keep ``axes`` with size 1.
    """
    x = widen(x)
    weight = None if weight is None else jax.lax.stop_gradient(weight)
    return _standardize(axes, axis_name, x, jnp.asarray(epsilon, x.dtype), weight)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _standardize(axes: tuple[int, ...], axis_name: Any, x: jax.Array, epsilon: jax.Array, weight: Any) -> Any:
    mean = _average(x, weight, axes, axis_name)
    var = _average(jnp.square(x - mean), weight, axes, axis_name)
    return (x - mean) * jax.lax.rsqrt(var + epsilon), mean, var


@_standardize.defjvp
def _standardize_jvp(axes: tuple[int, ...], axis_name: Any, primals: Any, tangents: Any) -> Any:
    x, epsilon, weight = primals
    x_dot, epsilon_dot, _ = tangents
    y, mean, var = _standardize(axes, axis_name, x, epsilon, weight)
    inverse = jax.lax.rsqrt(var + epsilon)
    mean_dot = _average(x_dot, weight, axes, axis_name)
    half_var_dot = _average(y * x_dot, weight, axes, axis_name)  # of the variance of y, for an x as wide as y
    y_dot = inverse * (x_dot - mean_dot - y * (half_var_dot + epsilon_dot * inverse / 2))
    return (y, mean, var), (y_dot, mean_dot, 2 * half_var_dot / inverse)


def _average(x: jax.Array, weight: jax.Array | None, axes: tuple[int, ...], axis_name: Any) -> jax.Array:
    if weight is None:
        mean = jnp.mean(x, axes, keepdims=True)
        return mean if axis_name is None else jax.lax.pmean(mean, axis_name)
    total = jnp.sum(x * weight, axes, keepdims=True)
    count = jnp.sum(jnp.broadcast_to(weight, x.shape), axes, keepdims=True)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    return total / jnp.where(count > 0, count, 1)


def unit_square(x: jax.Array, epsilon: Any) -> jax.Array:
    """Bring the last axis of ``x`` to a mean square of 1, in the dtype of statistics."""
    wide = widen(x)
    return wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + epsilon)


def affine(y: jax.Array, scale: jax.Array | None, bias: jax.Array | None, dtype: Any) -> jax.Array:
    """``scale * y + bias``, each where it is not None, in the dtype of ``y``; the result in ``dtype``."""
    check_channels(y, scale=scale, bias=bias)
    if scale is not None:
        y = y * scale.astype(y.dtype)
    if bias is not None:
        y = y + bias.astype(y.dtype)
    return y.astype(dtype)
