"""Activations that `jax.nn` does not have: one with parameters, one with a gradient of its own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.keys import fold
from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.checks import check_channels, check_floating


def prelu(*, init: Callable[..., jax.Array] = jax.nn.initializers.constant(0.25), dtype: Any = jnp.float32) -> Layer:
    """Multiply negative entries by a learned slope, one for each channel.

    Args:
        init: Initializer of the slopes.
        dtype: Dtype of the parameters.

    Returns:
        A layer without state.

        - x: ``(*leading, channels)``, floating
        - y: the shape and dtype of x
        - params: ``negative_slope (channels,)``

    Raises:
        LayerError: at init, when x is a scalar or has an integer dtype.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> x = jnp.array([[-4.0, 2.0]])
        >>> params, state = fnn.prelu().init(jax.random.key(0), x)
        >>> fnn.prelu().apply(params, state, x)[0].tolist()
        [[-1.0, 2.0]]

    References:
        He et al., Delving deep into rectifiers, 2015, arXiv:1502.01852.
    """

    def start(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        check_floating(x)
        if not x.shape:
            raise ValueError("x is a scalar, wanted (*leading, channels); add an axis: x[None]")
        return {"negative_slope": init(fold(key, "negative_slope"), x.shape[-1:], dtype)}

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        check_channels(x, negative_slope=params["negative_slope"])
        return jnp.where(x > 0, x, params["negative_slope"].astype(x.dtype) * x)

    return layer(start, apply)


def step(*, threshold: Any = 0.0, straight_through: bool = False) -> Layer:
    """Give 1 above a threshold and 0 at or below it: the threshold unit.

    Its gradient is zero, so nothing before it learns. With ``straight_through`` the derivative is that of
    ``x - threshold``, in forward and reverse mode, while the output stays exactly 0 or 1.

    Args:
        threshold: The largest x that gives 0; may be traced.
        straight_through: Whether to let gradients pass.

    Returns:
        A layer that owns nothing.

        - x: any shape, floating
        - y: the shape and dtype of x, with entries 0 and 1

    Raises:
        LayerError: at init, when x has an integer dtype.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> x = jnp.array([-1.0, 0.0, 2.0])
        >>> fnn.step().apply({}, {}, x)[0].tolist()
        [0.0, 0.0, 1.0]
        >>> net = fnn.step(straight_through=True)
        >>> jax.grad(lambda x: net.apply({}, {}, x)[0].sum())(x).tolist()
        [1.0, 1.0, 1.0]

    References:
        Bengio, Leonard and Courville, Estimating or propagating gradients through stochastic neurons, 2013,
        arXiv:1308.3432.
    """

    def apply(x: jax.Array) -> jax.Array:
        check_floating(x)
        limit = jnp.broadcast_to(jnp.asarray(threshold, x.dtype), x.shape)
        return _passing_step(x, limit) if straight_through else _step(x, limit)

    return layer(None, apply)


def _step(x: jax.Array, threshold: jax.Array) -> jax.Array:
    return (x > threshold).astype(x.dtype)


# A rule of its own, for x + stop_gradient(step - x) is not exactly 0 or 1, and NaN where x is infinite.
_passing_step = jax.custom_jvp(_step)


@_passing_step.defjvp
def _pass_tangent(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return _passing_step(*primals), tangents[0] - tangents[1]
