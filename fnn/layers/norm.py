"""Normalisation of each example by itself: over its channels, its space or both."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.keys import fold
from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.checks import check_positive_int, check_range
from fnn.ops.normalize import affine, check_normalizable, standardize, unit_square


def layer_norm(
    *,
    epsilon: Any = 1e-5,
    scale: bool = True,
    bias: bool = True,
    scale_init: Callable[..., jax.Array] = jax.nn.initializers.ones,
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """Bring the last axis to mean 0 and variance 1, then scale and shift each of its entries.

    Args:
        epsilon: Added to the variance; may be traced.
        scale: Whether to multiply by a learned scale.
        bias: Whether to add a learned bias.
        scale_init: Initializer of the scale.
        bias_init: Initializer of the bias.
        dtype: Dtype of the parameters. Statistics are float32 whatever x is.

    Returns:
        A layer without state.

        - x: ``(*leading, channels)``, floating
        - y: the shape and dtype of x
        - params: ``scale (channels,)``, ``bias (channels,)``

    Raises:
        LayerError: at init, when x is a scalar or has a dtype that is not floating.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.layer_norm()
        >>> x = jnp.array([[1.0, 3.0], [10.0, 30.0]])
        >>> params, state = net.init(jax.random.key(0), x)
        >>> net.apply(params, state, x)[0].round(3).tolist()
        [[-1.0, 1.0], [-1.0, 1.0]]

    References:
        Ba, Kiros and Hinton, Layer normalization, 2016, arXiv:1607.06450.
    """
    check_range("epsilon", epsilon, 0.0, math.inf)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        check_normalizable(x, 1, "(*leading, channels)")
        return _start(key, x, scale and scale_init, bias and bias_init, dtype)

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        y, _, _ = standardize(x, (-1,), epsilon)
        return affine(y, params["scale"] if scale else None, params["bias"] if bias else None, x.dtype)

    return layer(init, apply)


def rms_norm(
    *,
    epsilon: Any = 1e-6,
    scale: bool = True,
    scale_init: Callable[..., jax.Array] = jax.nn.initializers.ones,
    dtype: Any = jnp.float32,
) -> Layer:
    """Bring the last axis to a mean square of 1, then scale each of its entries.

    It is `layer_norm` without the mean and the bias.

    Args:
        epsilon: Added to the mean square; may be traced.
        scale: Whether to multiply by a learned scale.
        scale_init: Initializer of the scale.
        dtype: Dtype of the parameters. Statistics are float32 whatever x is.

    Returns:
        A layer without state.

        - x: ``(*leading, channels)``, floating
        - y: the shape and dtype of x
        - params: ``scale (channels,)``

    Raises:
        LayerError: at init, when x is a scalar or has a dtype that is not floating.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.rms_norm()
        >>> x = jnp.array([[3.0, -3.0], [50.0, 50.0]])
        >>> params, state = net.init(jax.random.key(0), x)
        >>> net.apply(params, state, x)[0].round(3).tolist()
        [[1.0, -1.0], [1.0, 1.0]]

    References:
        Zhang and Sennrich, Root mean square layer normalization, 2019, arXiv:1910.07467.
    """
    check_range("epsilon", epsilon, 0.0, math.inf)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        check_normalizable(x, 1, "(*leading, channels)")
        return _start(key, x, scale and scale_init, False, dtype)

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return affine(unit_square(x, epsilon), params["scale"] if scale else None, None, x.dtype)

    return layer(init, apply)


def group_norm(
    groups: int,
    *,
    epsilon: Any = 1e-5,
    scale: bool = True,
    bias: bool = True,
    scale_init: Callable[..., jax.Array] = jax.nn.initializers.ones,
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """Bring each group of channels of each example to mean 0 and variance 1 over space and the group.

    Args:
        groups: How many groups of neighbouring channels. 1 normalises over all that an example holds.
        epsilon: Added to the variance; may be traced.
        scale: Whether to multiply by a learned scale, one for each channel.
        bias: Whether to add a learned bias, one for each channel.
        scale_init: Initializer of the scale.
        bias_init: Initializer of the bias.
        dtype: Dtype of the parameters. Statistics are float32 whatever x is.

    Returns:
        A layer without state.

        - x: ``(batch, *space, channels)``, floating
        - y: the shape and dtype of x
        - params: ``scale (channels,)``, ``bias (channels,)``

    Raises:
        LayerError: at init, when the groups do not divide the channels, x has no batch axis, or its dtype is not
            floating.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.group_norm(2)
        >>> x = jnp.array([[1.0, 3.0, 10.0, 30.0]])
        >>> params, state = net.init(jax.random.key(0), x)
        >>> net.apply(params, state, x)[0].round(3).tolist()
        [[-1.0, 1.0, -1.0, 1.0]]

    References:
        Wu and He, Group normalization, 2018, arXiv:1803.08494.
    """
    check_positive_int("groups", groups)
    check_range("epsilon", epsilon, 0.0, math.inf)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        check_normalizable(x, 2, "(batch, *space, channels)")
        if x.shape[-1] % groups:
            fitting = math.gcd(x.shape[-1], groups)
            raise ValueError(f"{groups} groups do not divide {x.shape[-1]} channels; groups={fitting} would")
        return _start(key, x, scale and scale_init, bias and bias_init, dtype)

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        grouped = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), groups, x.shape[-1] // groups)
        y = standardize(grouped, (1, 3), epsilon)[0].reshape(x.shape)
        return affine(y, params["scale"] if scale else None, params["bias"] if bias else None, x.dtype)

    return layer(init, apply)


def instance_norm(
    *,
    epsilon: Any = 1e-5,
    scale: bool = True,
    bias: bool = True,
    scale_init: Callable[..., jax.Array] = jax.nn.initializers.ones,
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """Bring each channel of each example to mean 0 and variance 1 over space.

    Args:
        epsilon: Added to the variance; may be traced.
        scale: Whether to multiply by a learned scale.
        bias: Whether to add a learned bias.
        scale_init: Initializer of the scale.
        bias_init: Initializer of the bias.
        dtype: Dtype of the parameters. Statistics are float32 whatever x is.

    Returns:
        A layer without state.

        - x: ``(batch, *space, channels)`` with at least one axis of space, floating
        - y: the shape and dtype of x
        - params: ``scale (channels,)``, ``bias (channels,)``

    Raises:
        LayerError: at init, when x has no axis of space or a dtype that is not floating.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.instance_norm()
        >>> x = jnp.array([[[1.0, 10.0], [3.0, 30.0]]])
        >>> params, state = net.init(jax.random.key(0), x)
        >>> net.apply(params, state, x)[0].round(3).tolist()
        [[[-1.0, -1.0], [1.0, 1.0]]]

    References:
        Ulyanov, Vedaldi and Lempitsky, Instance normalization, 2016, arXiv:1607.08022.
    """
    check_range("epsilon", epsilon, 0.0, math.inf)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        check_normalizable(x, 3, "(batch, *space, channels) with at least one axis of space")
        return _start(key, x, scale and scale_init, bias and bias_init, dtype)

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        y, _, _ = standardize(x, tuple(range(1, x.ndim - 1)), epsilon)
        return affine(y, params["scale"] if scale else None, params["bias"] if bias else None, x.dtype)

    return layer(init, apply)


def _start(key: jax.Array, x: Any, scale_init: Any, bias_init: Any, dtype: Any) -> dict[str, jax.Array]:
    """One scale and one bias for each channel, where there is an initializer for it."""
    wanted = {"scale": scale_init, "bias": bias_init}
    return {name: make(fold(key, name), x.shape[-1:], dtype) for name, make in wanted.items() if make}
