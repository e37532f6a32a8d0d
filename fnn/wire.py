"""Any network as a function of its children."""

from collections.abc import Callable
from typing import Any

from fnn.core.compose import as_child, compose
from fnn.core.layer import Layer


def wire(forward: Callable[..., Any], **children: Any) -> Layer:
    """Build a network from a function that calls its children.

    ``forward(f, *xs)`` reaches a child as ``f.name``. Calling ``f.name(x)`` runs it with its own parameters, state and
    key; calling it twice shares the weights. ``f.name.params`` and ``f.name.state`` read its trees (tied weights),
    ``f.train`` says whether the network is training. Within a jax transformation inside ``forward`` a child without
    state works, one that draws random numbers is given them, ``f.name(x, key=key)``, and one with state raises.

    Args:
        forward: The network's function. It is traced once at init, and again for training only where a child is not
            called otherwise.
        **children: Layers, plain functions, and lists or dicts of them (``f.blocks[i]``, path ``blocks/0/kernel``).

    Returns:
        A layer whose params and state hold an entry for each child that owns something.

        - x: whatever ``forward`` takes
        - y: whatever ``forward`` returns
        - params, state: ``{child: tree}``

    Raises:
        LayerError: at init, when a child is never called, or is called again with inputs that need other parameters.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> def forward(f, x):
        ...     return x + f.outer(jax.nn.relu(f.inner(x)))
        >>> block = fnn.wire(forward, inner=fnn.dense(16), outer=fnn.dense(4))
        >>> params, state = block.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> block.apply(params, state, jnp.ones((2, 4)))[0].shape
        (2, 4)
    """
    return compose("wire", forward, tuple((name, as_child(name, child)) for name, child in children.items()))
