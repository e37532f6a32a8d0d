"""The part of a transformer that works on each step by itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.keys import fold
from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.checks import check_floating, check_positive_int, check_range, check_shapes
from fnn.ops.drop import drop
from fnn.ops.linear import linear


def feed_forward(
    hidden: int,
    *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.gelu,
    gated: bool = False,
    rate: Any = None,
    bias: bool = True,
    kernel_init: Callable[..., jax.Array] = jax.nn.initializers.lecun_normal(),
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """Go up to many features, through an activation, and back down to those of x.

    Args:
        hidden: Features in between, often 4 times those of x.
        activation: The nonlinearity; ``jax.nn.silu`` with ``gated`` makes a SwiGLU, as in Llama. `jax.nn.gelu` is the
            approximation by tanh.
        gated: Whether the activated product opens and closes another, ``activation(gate) * up``.
        rate: The fraction of the hidden features that is dropped in training; may be traced. None: no dropout.
        bias: Whether the products have biases.
        kernel_init: Initializer of the kernels.
        bias_init: Initializer of the biases.
        dtype: Dtype of the parameters. The products are done in the dtype of x.

    Returns:
        A layer without state; with ``rate`` it needs a key when training.

        - x: ``(*leading, features)``, floating
        - y: the shape and dtype of x
        - params: ``up_kernel (features, hidden)``, ``down_kernel (hidden, features)``, with ``gated`` ``gate_kernel
          (features, hidden)``; ``up_bias (hidden,)``, ``down_bias (features,)``, ``gate_bias (hidden,)``

    Raises:
        LayerError: at init, when x is a scalar or has an integer dtype.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.feed_forward(32)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 5, 8)))
        >>> net.apply(params, state, jnp.ones((2, 5, 8)))[0].shape, params["up_kernel"].shape
        ((2, 5, 8), (8, 32))

    References:
        Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
        Shazeer, GLU variants improve transformer, 2020, arXiv:2002.05202.
    """
    check_positive_int("hidden", hidden)
    if rate is not None:
        check_range("rate", rate, 0.0, 1.0)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        check_floating(x)
        if not x.shape:
            raise ValueError("x is a scalar, wanted (*leading, features); add an axis: x[None]")
        features = x.shape[-1]
        shapes = {"up": (features, hidden), "gate": (features, hidden), "down": (hidden, features)}
        params = {}
        for part, shape in shapes.items():
            if part != "gate" or gated:
                params[f"{part}_kernel"] = kernel_init(fold(key, f"{part}_kernel"), shape, dtype)
                if bias:
                    params[f"{part}_bias"] = bias_init(fold(key, f"{part}_bias"), shape[1:], dtype)
        return params

    def run(params: dict[str, jax.Array], x: jax.Array, key: Any) -> jax.Array:
        up, wide, narrow = (None, hidden), (hidden,) if bias else None, (None,) if bias else None
        check_shapes(params, up_kernel=up, gate_kernel=up if gated else None, down_kernel=(hidden, None))
        check_shapes(params, up_bias=wide, gate_bias=wide if gated else None, down_bias=narrow)
        product = lambda part, x: linear(x, params[f"{part}_kernel"], params.get(f"{part}_bias"))

        @jax.checkpoint  # for the gradient the activation is computed again, which is faster than to keep all of it
        def down(products: list[jax.Array]) -> jax.Array:
            h = activation(products[0]) * products[1] if gated else activation(products[0])
            return product("down", h if key is None else drop(h, rate, key, h.shape))

        return down([product(part, x) for part in (["gate", "up"] if gated else ["up"])])

    def plain(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return run(params, x, None)

    def dropped(params: dict[str, jax.Array], x: jax.Array, *, key: Any, train: bool) -> jax.Array:
        return run(params, x, key if train else None)

    return layer(init, plain if rate is None else dropped)
