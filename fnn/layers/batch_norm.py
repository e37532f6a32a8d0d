"""Normalisation by the statistics of the batch."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.keys import fold
from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.checks import check_channels, check_range
from fnn.ops.dtypes import widen
from fnn.ops.normalize import affine, check_normalizable, standardize


def batch_norm(
    *,
    momentum: Any = 0.9,
    epsilon: Any = 1e-5,
    axis_name: str | tuple[str, ...] | None = None,
    scale: bool = True,
    bias: bool = True,
    scale_init: Callable[..., jax.Array] = jax.nn.initializers.ones,
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """Bring each channel to mean 0 and variance 1 over the batch and space.

    Training uses the statistics of the batch and moves the running ones, ``momentum * running + (1 - momentum) *
    batch``; otherwise the running ones are used. The variance is the biased one, divided by the count, in both: Keras
    and Flax do so too, PyTorch's running variance is unbiased. Statistics are float32 whatever x is.

    Args:
        momentum: How much of the running statistics a step keeps, in [0, 1]; PyTorch's is one minus this. May be
            traced.
        epsilon: Added to the variance; may be traced.
        axis_name: Names of mapped axes (`jax.vmap`, `jax.shard_map`) over which the statistics are averaged too. Under
            `jax.jit` with sharded arrays leave it None: there the batch is the whole batch.
        scale: Whether to multiply by a learned scale.
        bias: Whether to add a learned bias.
        scale_init: Initializer of the scale.
        bias_init: Initializer of the bias.
        dtype: Dtype of the parameters.

    Returns:
        A layer with state.

        - x: ``(batch, *space, channels)``, floating; ``(channels,)`` too where ``axis_name`` maps over the batch
        - mask: optional second input, ``(batch,)`` or ``(batch, *space)``: bools or weights of the examples in the
          statistics of training. With 0 an example is normalised but not counted, and NaN and infinities in it are
          read as 0. Where nothing counts, the running statistics stay
        - y: the shape and dtype of x
        - params: ``scale (channels,)``, ``bias (channels,)``
        - state: ``mean (channels,)``, ``var (channels,)``, float32

    Raises:
        LayerError: at init, when x has no batch axis or a dtype that is not floating, or mask does not fit x.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.batch_norm(momentum=0.5)
        >>> x = jnp.array([[1.0], [3.0]])
        >>> params, state = net.init(jax.random.key(0), x)
        >>> y, state = net.apply(params, state, x, train=True)
        >>> y[:, 0].round(3).tolist(), state["mean"].tolist()
        ([-1.0, 1.0], [1.0])

    References:
        Ioffe and Szegedy, Batch normalization, 2015, arXiv:1502.03167.
    """
    check_range("momentum", momentum, 0.0, 1.0, closed=True)
    check_range("epsilon", epsilon, 0.0, math.inf)

    def init(key: jax.Array, x: Any, mask: Any = None) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        check_normalizable(x, 2 if axis_name is None else 1, "(batch, *space, channels)")
        if mask is not None and (mask.shape != x.shape[: len(mask.shape)] or not 0 < len(mask.shape) < len(x.shape)):
            raise ValueError(f"mask has shape {mask.shape}, wanted (batch,) or (batch, *space) of x {x.shape}")
        shape = x.shape[-1:]
        params = {"scale": scale_init(fold(key, "scale"), shape, dtype)} if scale else {}
        params |= {"bias": bias_init(fold(key, "bias"), shape, dtype)} if bias else {}
        return params, {"mean": jnp.zeros(shape, jnp.float32), "var": jnp.ones(shape, jnp.float32)}

    def apply(params: Any, state: Any, x: jax.Array, mask: jax.Array | None = None, *, train: bool) -> tuple[Any, Any]:
        check_channels(x, mean=state["mean"], var=state["var"])
        weight = None
        if mask is not None:
            weight = mask.astype(widen(x).dtype).reshape(*mask.shape, *(1,) * (x.ndim - mask.ndim))
            x = jnp.where((weight == 0) & ~jnp.isfinite(x), 0, x)
        if train:
            y, *statistics = standardize(x, tuple(range(x.ndim - 1)), epsilon, weight, axis_name)
            mean, var = (values.reshape(-1) for values in statistics)
            counted = math.prod(x.shape[:-1]) > 0 if weight is None else _any(weight, axis_name)

            def move(running: jax.Array, batch: jax.Array) -> jax.Array:
                moved = (momentum * running + (1 - momentum) * batch).astype(running.dtype)
                return jnp.where(counted, moved, running)

            state = {"mean": move(state["mean"], mean), "var": move(state["var"], var)}
        else:
            y = (widen(x) - state["mean"]) * jax.lax.rsqrt(state["var"] + epsilon)
        return affine(y, params["scale"] if scale else None, params["bias"] if bias else None, x.dtype), state

    return layer(init, apply, stateful=True)


def _any(weight: jax.Array, axis_name: str | tuple[str, ...] | None) -> jax.Array:
    """Whether anything counts, here or along the mapped axes."""
    total = jnp.sum(weight)
    return (total if axis_name is None else jax.lax.psum(total, axis_name)) > 0
