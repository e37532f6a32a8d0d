"""A network as other tools want it: a plain function of its parameters."""

from collections.abc import Callable
from typing import Any

import jax

from fnn.core.errors import LayerError
from fnn.core.layer import Layer
from fnn.core.programs import call_compiled
from fnn.core.specs import specs


def stateless(net: Layer) -> tuple[Callable[..., dict[str, Any]], Callable[..., Any]]:
    """View a network without state as ``init(key, *xs) -> params`` and ``f(params, *xs) -> y``.

    For tools that want a plain function of the parameters: `jax.hessian`, optimistix, blackjax, evosax.

    Args:
        net: A network whose init returns an empty state.

    Returns:
        The pair ``(init, f)``. ``f`` takes the keywords of ``apply``.

    Raises:
        LayerError: from ``init``, when the network has state; it names the leaves.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> init, f = fnn.stateless(fnn.dense(2))
        >>> params = init(jax.random.key(0), jnp.ones((4, 3)))
        >>> f(params, jnp.ones((4, 3))).shape
        (4, 2)
    """

    def init(key: jax.Array, *xs: Any) -> dict[str, Any]:
        params, state = net.init(key, *xs)
        if state:
            leaves = [
                jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(state)
            ]
            raise LayerError(f"the network has state ({', '.join(leaves)}); freeze it with fnn.bind(net, state)")
        return params

    return init, bind(net, {})


def bind(net: Layer, state: dict[str, Any]) -> Callable[..., Any]:
    """Freeze the state of a network: ``f(params, *xs) -> y``.

    Args:
        net: Any network.
        state: The state to apply it with; what a call makes of it is dropped.

    Returns:
        A function of parameters and inputs, and of the keywords of ``apply``.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.serial(fnn.dense(2), fnn.batch_norm())
        >>> params, state = net.init(jax.random.key(0), jnp.ones((4, 3)))
        >>> fnn.bind(net, state)(params, jnp.ones((4, 3))).shape
        (4, 2)
    """

    def f(params: dict[str, Any], *xs: Any, key: jax.Array | None = None, train: bool = False) -> Any:
        return net.apply(params, state, *xs, key=key, train=train)[0]

    return f


def init_state(net: Layer, *xs: Any) -> dict[str, Any]:
    """Make the state that ``net`` starts from, without its parameters.

    Args:
        net: Any network.
        *xs: Inputs, or their specs.

    Returns:
        The state that ``net.init(jax.random.key(0), *xs)`` returns.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> fnn.init_state(fnn.batch_norm(), jnp.ones((4, 3)))["mean"].shape
        (3,)
    """
    leaves, structure = jax.tree.flatten(specs(xs))
    return call_compiled(net, _state, jax.random.key(0), static=(tuple(leaves), structure))


def _state(net: Layer, leaves: Any, structure: Any, key: jax.Array) -> Any:
    """Compiled, it makes no parameters: XLA drops them."""
    return net._plan(*structure.unflatten(leaves)).make(key)[1]
