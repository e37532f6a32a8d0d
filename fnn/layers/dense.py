"""The fully connected layer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.keys import fold
from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.checks import check_floating, check_positive_int, check_shapes
from fnn.ops.linear import linear


def dense(
    features: int,
    *,
    bias: bool = True,
    kernel_init: Callable[..., jax.Array] = jax.nn.initializers.lecun_normal(),
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """Multiply the last axis by a matrix and add a bias.

    Args:
        features: Size of the last axis of the output.
        bias: Whether to add a bias.
        kernel_init: Initializer of the kernel.
        bias_init: Initializer of the bias.
        dtype: Dtype of the parameters. The product is done in the dtype of x.

    Returns:
        A layer without state.

        - x: ``(*leading, features_in)``, floating
        - y: ``(*leading, features)``
        - params: ``kernel (features_in, features)``, ``bias (features,)``

    Raises:
        LayerError: at init, when x is a scalar or has an integer dtype.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.dense(3)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((8, 5)))
        >>> y, state = net.apply(params, state, jnp.ones((8, 5)))
        >>> y.shape, params["kernel"].shape
        ((8, 3), (5, 3))
    """
    check_positive_int("features", features)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        check_floating(x)
        if not x.shape:
            raise ValueError("x is a scalar, wanted (*leading, features); add an axis: x[None]")
        params = {"kernel": kernel_init(fold(key, "kernel"), (x.shape[-1], features), dtype)}
        return params | {"bias": bias_init(fold(key, "bias"), (features,), dtype)} if bias else params

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        check_shapes(params, kernel=(None, features), bias=(features,) if bias else None)
        return linear(x, params["kernel"], params["bias"] if bias else None)

    return layer(init, apply)
