"""Networks from layers: in a row, side by side, around, repeated."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.compose import compose, name_children
from fnn.core.keys import fold
from fnn.core.layer import Layer
from fnn.core.leaf import as_layer, layer
from fnn.ops.checks import check_shapes


def serial(*layers: Any, **named: Any) -> Layer:
    """Run layers one after another.

    All inputs go to the first layer and one value to each later one; a tuple is one value. Positional layers are named
    by kind, ``conv_0``, ``conv_1``, each kind counted by itself.

    Args:
        *layers: Layers or plain functions.
        **named: More of them, after the positional ones, under the given names.

    Returns:
        A layer; without any children it is the identity.

        - params, state: ``{child: tree}`` for each child that owns something

    Raises:
        LayerError: when a name is taken twice, or a constructor is passed uncalled.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.serial(fnn.dense(16), jax.nn.relu, head=fnn.dense(3))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> sorted(params)
        ['dense_0', 'head']
    """
    children = name_children(layers, named)

    def forward(f: Any, *xs: Any) -> Any:
        for name, _ in children:
            xs = (f[name](*xs),)
        return xs[0] if len(xs) == 1 else xs

    return compose("serial", forward, children)


def parallel(*layers: Any, join: Callable[..., Any] | None = None, **named: Any) -> Layer:
    """Give the same inputs to every layer.

    Args:
        *layers: Layers or plain functions.
        join: Combines the outputs, ``join(y_0, y_1, ...)``, such as ``jnp.add``. None: they are returned as a tuple.
        **named: More layers under given names.

    Returns:
        A layer from the inputs of all children to the tuple, or the join, of their outputs.

        - params, state: ``{child: tree}`` for each child that owns something

    Raises:
        LayerError: when a name is taken twice.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.parallel(fnn.dense(2), fnn.dense(3), join=lambda *ys: jnp.concatenate(ys, axis=-1))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> net.apply(params, state, jnp.ones((2, 4)))[0].shape
        (2, 5)
    """
    children = name_children(layers, named)

    def forward(f: Any, *xs: Any) -> Any:
        ys = tuple(f[name](*xs) for name, _ in children)
        return ys if join is None else join(*ys)

    return compose("parallel", forward, children)


def residual(body: Any, shortcut: Any = None) -> Layer:
    """Add a layer's output to its input, ``shortcut(x) + body(x)``.

    Args:
        body: A layer or function. Inputs after the first go to it alone.
        shortcut: A layer that brings x to the shape of the body's output. None: x itself.

    Returns:
        A layer with the children ``body`` and ``shortcut``.

        - x: any shape
        - y: the shape of the body's output
        - params, state: ``{"body": tree, "shortcut": tree}``

    Raises:
        LayerError: at init, when the two shapes differ.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.residual(fnn.dense(4))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> net.apply(params, state, jnp.ones((2, 4)))[0].shape
        (2, 4)

    References:
        He et al., Deep residual learning for image recognition, 2015, arXiv:1512.03385.
    """
    children = (("body", as_layer(body)),) + (() if shortcut is None else (("shortcut", as_layer(shortcut)),))

    def forward(f: Any, x: Any, *more: Any) -> Any:
        y = f.body(x, *more)
        x = x if shortcut is None else f.shortcut(x)
        if jnp.shape(x) != jnp.shape(y):
            raise ValueError(
                f"the shortcut has shape {jnp.shape(x)} and the body's output {jnp.shape(y)}; "
                "pass shortcut=fnn.dense(...) or fnn.conv(...) that makes them equal"
            )
        return x + y

    return compose("residual", forward, children)


def parameter(shape: tuple[int, ...], init: Callable[..., jax.Array], *, dtype: Any = jnp.float32) -> Layer:
    """Hold raw weights as a layer of no inputs: a class token, positions, a temperature.

    Args:
        shape: Shape of the weights.
        init: An initializer such as ``jax.nn.initializers.normal(0.02)``.
        dtype: Dtype of the weights.

    Returns:
        A layer without inputs or state.

        - y: ``shape``
        - params: ``value shape``

    Example:
        >>> import fnn, jax
        >>> net = fnn.wire(lambda f, x: f.temperature() * x, temperature=fnn.parameter((), jax.nn.initializers.ones))
        >>> params, state = net.init(jax.random.key(0), 2.0)
        >>> float(net.apply(params, state, 2.0)[0])
        2.0
    """

    def start(key: jax.Array) -> dict[str, Any]:
        return {"value": init(fold(key, "value"), shape, dtype)}

    def apply(params: Any) -> jax.Array:
        check_shapes(params, value=tuple(shape))
        return params["value"]

    return layer(start, apply, name="parameter")
