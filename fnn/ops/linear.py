"""The product that dense layers, gated units and projections share."""

import math

import jax

from fnn.ops.checks import check_floating


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """``x @ kernel + bias`` over the last axis of ``x``, in the dtype of ``x``.

    Leading axes are flattened before the product and restored after it: the transpose of a dot with two of them copies
    its operand in a cache-hostile order on CPUs, which doubles the time of a transformer's training step.

    Args:
        x: ``(*leading, features_in)``, floating.
        kernel: ``(features_in, features)``.
        bias: ``(features,)`` or None.

    Returns:
        ``(*leading, features)``.
    """
    check_floating(x)  # or the kernel would be cast to integers, which are mostly zeros
    if x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"x has {x.shape[-1]} features on its last axis and the kernel was made for {kernel.shape[0]}; "
            "pass inputs like those that init saw"
        )
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]) if x.ndim > 2 else x
    y = flat @ kernel.astype(x.dtype)
    if bias is not None:
        y = y + bias.astype(x.dtype)
    return y.reshape(*x.shape[:-1], kernel.shape[-1]) if x.ndim > 2 else y
