"""Positions that are added to a sequence; those inside attention are `fnn.Rotary` and `fnn.Alibi`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.keys import fold
from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.checks import check_floating, check_positive_int, check_shapes
from fnn.ops.positions import sinusoids
from fnn.ops.sequences import check_sequence


def learned_positions(
    length: int,
    *,
    cache: bool = False,
    embedding_init: Callable[..., jax.Array] = jax.nn.initializers.normal(0.02),
    dtype: Any = jnp.float32,
) -> Layer:
    """Add a learned vector to every step, by its position.

    Args:
        length: How many positions there are.
        cache: Whether to count steps over several calls, in state; steps beyond ``length`` then give NaN.
        embedding_init: Initializer of the vectors.
        dtype: Dtype of the parameters.

    Returns:
        A layer; without ``cache`` it has no state.

        - x: ``(batch, time, features)``, floating
        - y: the shape and dtype of x
        - params: ``embedding (length, features)``
        - state: with ``cache`` ``cache/position ()``

    Raises:
        LayerError: at init, when x is no batch of sequences, or has more steps than there are positions.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.serial(fnn.embedding(50, 8), fnn.learned_positions(16))
        >>> ids = jnp.zeros((2, 5), int)
        >>> params, state = net.init(jax.random.key(0), ids)
        >>> net.apply(params, state, ids)[0].shape
        (2, 5, 8)
    """
    check_positive_int("length", length)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        check_sequence(x)
        return {"embedding": embedding_init(fold(key, "embedding"), (length, x.shape[-1]), dtype)}

    def rows(params: Any, x: jax.Array, start: Any) -> jax.Array:
        time = x.shape[1]
        if time > length:
            raise ValueError(f"x has {time} steps and there are {length} positions; pass length={time} or more")
        check_shapes(params, embedding=(length, x.shape[2]))
        table = params["embedding"].astype(x.dtype)
        if isinstance(start, int):
            return table[:time]
        row = jax.lax.dynamic_slice_in_dim(table, start, time)
        return jnp.where(start + time <= length, row, jnp.nan)

    return _added("learned_positions", init, rows, cache)


def sinusoidal_positions(*, cache: bool = False) -> Layer:
    """Add sines and cosines of the position, of wavelengths from ``2 * pi`` to ``20 000 * pi``.

    Args:
        cache: Whether to count steps over several calls, in state.

    Returns:
        A layer without parameters, and without state where there is no ``cache``.

        - x: ``(batch, time, features)``, floating
        - y: the shape and dtype of x
        - state: with ``cache`` ``cache/position ()``

    Raises:
        LayerError: at init, when x is no batch of sequences.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> y, _ = fnn.sinusoidal_positions().apply({}, {}, jnp.zeros((1, 3, 4)))
        >>> y[0, 0].tolist()
        [0.0, 1.0, 0.0, 1.0]

    References:
        Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """

    def rows(params: Any, x: jax.Array, start: Any) -> jax.Array:
        return sinusoids(start, x)

    return _added("sinusoidal_positions", None, rows, cache)


def _added(name: str, init: Any, rows: Any, cache: bool) -> Layer:
    """A leaf that adds rows, beginning at 0 or where the last call ended."""

    def make(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        return {} if init is None else init(key, x)

    def start(key: jax.Array, x: Any) -> Any:
        check_sequence(x)
        return make(key, x), {"cache": {"position": jnp.zeros((), jnp.int32)}}

    def add(params: Any, x: jax.Array, position: Any) -> jax.Array:
        check_sequence(x)
        check_floating(x)
        return x + rows(params, x, position)

    def stepped(params: Any, state: Any, x: jax.Array) -> Any:
        position = state["cache"]["position"]
        return add(params, x, position), {"cache": {"position": position + x.shape[1]}}

    if cache:
        return layer(start, stepped, stateful=True, name=name)
    if init is None:
        return layer(None, lambda x: add({}, x, 0), name=name)
    return layer(init, lambda params, x: add(params, x, 0), name=name)
