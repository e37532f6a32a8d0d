"""The moments, and the learned scale and bias, that all normalisations share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.ops.checks import check_floating
from fnn.ops.dtypes import widen


def check_normalizable(x: Any, axes: int, wanted: str) -> None:
    """Raise unless ``x`` is real, floating and has at least ``axes`` axes."""
    check_floating(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"x is {x.dtype}, wanted a real dtype; normalise its real and imaginary parts, or jnp.abs(x)")
    if len(x.shape) < axes:
        raise ValueError(f"x has shape {x.shape}, wanted {wanted}; add the missing axes, such as x[None]")


def moments(x: jax.Array, average: Callable[[jax.Array], jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of ``x`` under ``average``.

    The deviations are squared after the mean is known: the shorter ``average(x**2) - mean**2`` cancels to noise where
    the mean is large beside the spread.

    Args:
        x: Any array.
        average: Takes the mean over the axes that are normalised, and keeps a shape that broadcasts to x.

    Returns:
        ``(mean, var)``.
    """
    mean = average(x)
    return mean, average(jnp.square(x - mean))


def standardize(x: jax.Array, axes: int | tuple[int, ...], epsilon: Any) -> jax.Array:
    """Bring ``x`` to mean 0 and variance 1 over ``axes``, in the dtype of statistics.

    Args:
        x: Any array.
        axes: The axes to normalise over.
        epsilon: Added to the variance; may be traced.

    Returns:
        An array of the shape of ``x``.
    """
    x = widen(x)
    mean, var = moments(x, lambda values: jnp.mean(values, axes, keepdims=True))
    return (x - mean) * jax.lax.rsqrt(var + epsilon)


def affine(y: jax.Array, scale: jax.Array | None, bias: jax.Array | None, dtype: Any) -> jax.Array:
    """``scale * y + bias``, each where it is not None, in the dtype of ``y``; the result in ``dtype``."""
    if scale is not None:
        y = y * scale.astype(y.dtype)
    if bias is not None:
        y = y + bias.astype(y.dtype)
    return y.astype(dtype)
