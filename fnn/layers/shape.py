"""Layers that only move numbers: flatten, reshape, upsample."""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.checks import check_positive_int


def flatten() -> Layer:
    """Join all axes but the batch into one.

    Returns:
        A layer that owns nothing.

        - x: ``(batch, *shape)``
        - y: ``(batch, product of shape)``

    Raises:
        LayerError: at init, when x has no batch axis.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> fnn.flatten().apply({}, {}, jnp.ones((2, 3, 4)))[0].shape
        (2, 12)
    """

    def apply(x: Any) -> Any:
        if x.ndim < 1:
            raise ValueError("x is a scalar, wanted (batch, *shape); add a batch axis: x[None]")
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    return layer(None, apply)


def reshape(*shape: int | tuple[int, ...]) -> Layer:
    """Reshape every example; the batch axis stays.

    Args:
        *shape: Sizes of the axes after the batch, as ints or as one tuple; one may be -1, which stands for the size
            that is left.

    Returns:
        A layer without parameters and state.

        - x: ``(batch, *old)``, where batch may be 0
        - y: ``(batch, *shape)``

    Raises:
        ValueError: if ``shape`` holds anything but positive ints, 0 and one -1.
        LayerError: at init, if the sizes do not fit.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> fnn.reshape(3, -1).apply({}, {}, jnp.ones((2, 12)))[0].shape
        (2, 3, 4)
        >>> fnn.reshape((3, 4)).apply({}, {}, jnp.ones((2, 12)))[0].shape
        (2, 3, 4)
    """
    wanted: tuple[Any, ...] = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    sizes = tuple(operator.index(size) for size in wanted if hasattr(size, "__index__") and not isinstance(size, bool))
    if len(sizes) != len(wanted) or any(size < -1 for size in sizes) or sizes.count(-1) > 1:
        raise ValueError(
            f"shape must be ints, of which one may be -1, got {wanted!r}; "
            "write fnn.reshape(7, 7, 32) or fnn.reshape(7, -1)"
        )

    def apply(x: Any) -> Any:
        if x.ndim < 1:
            raise ValueError("x is a scalar, wanted (batch, *shape); add a batch axis: x[None]")
        total, known = math.prod(x.shape[1:]), math.prod(size for size in sizes if size != -1)
        if total % known if -1 in sizes and known else total != known or -1 in sizes:
            raise ValueError(
                f"each example of x has the shape {x.shape[1:]}, {total} elements, which do not fill {sizes}; "
                "give sizes whose product is that number, or -1 for one of them"
            )
        return x.reshape(x.shape[0], *(total // known if size == -1 else size for size in sizes))

    return layer(None, apply)


def upsample(scale: int | tuple[int, ...] = 2, *, method: str = "nearest") -> Layer:
    """Enlarge the spatial axes by whole factors.

    Args:
        scale: Factor for every spatial axis, or one for each.
        method: ``"nearest"`` repeats; ``"linear"`` and ``"cubic"`` interpolate as `jax.image.resize` does.

    Returns:
        A layer that owns nothing.

        - x: ``(batch, *space, channels)``
        - y: ``(batch, *(space * scale), channels)``

    Raises:
        LayerError: at init, when ``scale`` has another length than x has spatial axes.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> fnn.upsample(2).apply({}, {}, jnp.ones((1, 4, 5, 3)))[0].shape
        (1, 8, 10, 3)
    """
    for factor in scale if isinstance(scale, tuple) else (scale,):
        check_positive_int("scale", factor)

    def apply(x: Any) -> Any:
        space = x.ndim - 2
        factors = scale if isinstance(scale, tuple) else (scale,) * space
        if len(factors) != space or space < 1:
            raise ValueError(
                f"scale has {len(factors)} factors and x {space} spatial axes, wanted (batch, *space, channels)"
            )
        if method != "nearest":
            shape = (x.shape[0], *(size * factor for size, factor in zip(x.shape[1:-1], factors)), x.shape[-1])
            return jax.image.resize(x, shape, method)
        for axis, factor in enumerate(factors, start=1):
            x = jnp.repeat(x, factor, axis=axis)
        return x

    return layer(None, apply)
