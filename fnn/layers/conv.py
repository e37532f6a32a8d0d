"""Convolution: one small set of weights at every place."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.keys import fold
from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.checks import check_floating, check_positive_int
from fnn.ops.convolution import (
    Padding,
    check_groups,
    check_padding,
    check_rank,
    check_window,
    convolve,
    convolve_transpose,
    per_axis,
)


def conv(
    features: int,
    window: tuple[int, ...],
    *,
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Callable[..., jax.Array] = jax.nn.initializers.lecun_normal(),
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """Slide a window over space and mix the channels beneath it."""
    check_positive_int("features", features)
    check_positive_int("groups", groups)
    check_window(window)
    check_padding(padding, len(window))
    per_axis("strides", strides, len(window))
    per_axis("dilation", dilation, len(window))

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        check_floating(x)
        check_rank(x, len(window))
        check_groups(x.shape[-1], features, groups)
        params = {"kernel": kernel_init(fold(key, "kernel"), (*window, x.shape[-1] // groups, features), dtype)}
        return params | {"bias": bias_init(fold(key, "bias"), (features,), dtype)} if bias else params

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        y = convolve(x, params["kernel"], strides=strides, padding=padding, dilation=dilation, groups=groups)
        return y + params["bias"].astype(x.dtype) if bias else y

    return layer(init, apply)
