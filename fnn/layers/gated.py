"""Gated linear units: one product opens or closes another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.keys import fold
from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.checks import check_floating, check_positive_int, check_shapes
from fnn.ops.linear import linear


def glu(
    features: int,
    *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
    bias: bool = True,
    kernel_init: Callable[..., jax.Array] = jax.nn.initializers.lecun_normal(),
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """Multiply a dense layer by an activated one, ``activation(x @ gate_kernel + gate_bias) * (x @ kernel + bias)``.

    Args:
        features: Size of the last axis of the output.
        activation: What opens and closes the gate, such as ``jax.nn.gelu`` for a GEGLU.
        bias: Whether to add the two biases.
        kernel_init: Initializer of both kernels.
        bias_init: Initializer of both biases.
        dtype: Dtype of the parameters. The products are done in the dtype of x.

    Returns:
        A layer without state.

        - x: ``(*leading, features_in)``, floating
        - y: ``(*leading, features)``
        - params: ``kernel (features_in, features)``, ``gate_kernel (features_in, features)``, ``bias (features,)``,
          ``gate_bias (features,)``

    Raises:
        LayerError: at init, when x is a scalar or has an integer dtype.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.glu(3)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((8, 5)))
        >>> net.apply(params, state, jnp.ones((8, 5)))[0].shape
        (8, 3)

    References:
        Dauphin et al., Language modeling with gated convolutional networks, 2016, arXiv:1612.08083.
    """
    return _gated("glu", features, activation, bias, kernel_init, bias_init, dtype)


def swiglu(
    features: int,
    *,
    bias: bool = False,
    kernel_init: Callable[..., jax.Array] = jax.nn.initializers.lecun_normal(),
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """`glu` whose gate is a SiLU, ``silu(x @ gate_kernel) * (x @ kernel)``.

    The feed-forward part of many transformers is ``serial(swiglu(hidden), dense(features, bias=False))``.

    Args:
        features: Size of the last axis of the output.
        bias: Whether to add the two biases.
        kernel_init: Initializer of both kernels.
        bias_init: Initializer of both biases.
        dtype: Dtype of the parameters. The products are done in the dtype of x.

    Returns:
        A layer without state.

        - x: ``(*leading, features_in)``, floating
        - y: ``(*leading, features)``
        - params: ``kernel (features_in, features)``, ``gate_kernel (features_in, features)``; with ``bias`` also
          ``bias (features,)``, ``gate_bias (features,)``

    Raises:
        LayerError: at init, when x is a scalar or has an integer dtype.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.serial(fnn.swiglu(16), fnn.dense(4, bias=False))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> sorted(params["swiglu_0"])
        ['gate_kernel', 'kernel']

    References:
        Shazeer, GLU variants improve transformer, 2020, arXiv:2002.05202.
    """
    return _gated("swiglu", features, jax.nn.silu, bias, kernel_init, bias_init, dtype)


def _gated(
    name: str, features: int, activation: Any, bias: bool, kernel_init: Any, bias_init: Any, dtype: Any
) -> Layer:
    check_positive_int("features", features)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        check_floating(x)
        if not x.shape:
            raise ValueError("x is a scalar, wanted (*leading, features); add an axis: x[None]")
        shape = (x.shape[-1], features)
        params = {part: kernel_init(fold(key, part), shape, dtype) for part in ("kernel", "gate_kernel")}
        biases = {part: bias_init(fold(key, part), (features,), dtype) for part in ("bias", "gate_bias")}
        return params | biases if bias else params

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        kernel, one = (None, features), (features,) if bias else None
        check_shapes(params, kernel=kernel, gate_kernel=kernel, bias=one, gate_bias=one)
        gate = linear(x, params["gate_kernel"], params["gate_bias"] if bias else None)
        return activation(gate) * linear(x, params["kernel"], params["bias"] if bias else None)

    return layer(init, apply, name=name)
