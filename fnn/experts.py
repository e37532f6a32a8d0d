"""Mixture of experts: many networks, of which each step uses a few."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.layers.dense import dense
from fnn.ops.checks import check_floating, check_positive_int
from fnn.ops.dtypes import widen
from fnn.wire import wire
from fnn.wrappers import ensemble


def experts(expert: Layer, size: int, *, top: int = 2, capacity: float = 1.25, balance: Any = 0.01) -> Layer:
    """Sparse mixture of experts with top-k routing.

    Every expert takes the same number of tokens, ``capacity`` times an equal share, so that shapes are known; tokens
    beyond an expert's capacity are dropped. First choices come before second ones and earlier tokens before later ones,
    so the output of one example may depend on the others of its batch. The outputs of the chosen experts are summed,
    weighted by the softmax of the router's scores over them.

    Args:
        expert: A layer from ``(steps, features)`` to the same, such as `fnn.feed_forward`.
        size: How many experts.
        top: How many of them each step uses.
        capacity: Room in each expert, as a multiple of an equal share.
        balance: Weight of the loss that keeps the router from preferring few experts; may be traced. It is 1 times
            this number when all get the same, and is added to the loss of `fnn.supervised`.

    Returns:
        A layer with the children ``router``, ``experts`` and ``balance``.

        - x: ``(*leading, features)``, floating
        - y: the shape of x
        - params: ``router/kernel (features, size)``; ``experts``, the tree of one, each leaf ``(size, *shape)``
        - state: ``balance/auxiliary_loss ()``

    Raises:
        ValueError: when ``top`` is more than ``size``, or the capacity is not positive.
        LayerError: at init, when the expert changes the shape of its input.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.experts(fnn.feed_forward(32), 4)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 5, 8)))
        >>> net.apply(params, state, jnp.ones((2, 5, 8)))[0].shape, params["experts"]["up_kernel"].shape
        ((2, 5, 8), (4, 8, 32))

    References:
        Shazeer et al., Outrageously large neural networks, 2017, arXiv:1701.06538.
        Fedus, Zoph and Shazeer, Switch transformers, 2021, arXiv:2101.03961 (the loss).
        Lepikhin et al., GShard, 2020, arXiv:2006.16668 (capacity).
    """
    check_positive_int("size", size)
    check_positive_int("top", top)
    if top > size:
        raise ValueError(f"each step uses {top} experts and there are {size}; pass top={size} or less")
    if capacity <= 0:
        raise ValueError(f"capacity must be positive, got {capacity}")

    def forward(f: Any, x: jax.Array) -> jax.Array:
        check_floating(x)
        steps = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        room = max(1, math.ceil(len(steps) * top * capacity / size))
        scores = f.router(widen(steps))
        best, chosen = jax.lax.top_k(scores, top)
        f.balance(scores, chosen)
        place, fits = _places(chosen, size, room)
        rows = jnp.broadcast_to(steps[:, None], (*chosen.shape, x.shape[-1]))
        taken = jnp.zeros((size * room, x.shape[-1]), x.dtype)
        taken = taken.at[jnp.where(fits, place, size * room)].set(rows, mode="drop")
        y = f.experts(taken.reshape(size, room, -1)).reshape(size * room, x.shape[-1])
        weights = jnp.where(fits, jax.nn.softmax(best, -1), 0).astype(x.dtype)
        rows = y.at[jnp.where(fits, place, size * room)].get(mode="fill", fill_value=0)
        return jnp.einsum("nk,nkf->nf", weights, rows).reshape(x.shape)

    return wire(
        forward,
        router=dense(size, bias=False),
        experts=ensemble(expert, size, shared=False),
        balance=_balance(size, balance),
    )


def _places(chosen: jax.Array, size: int, room: int) -> tuple[jax.Array, jax.Array]:
    """Where each step stands among all places of all experts, and whether there is room; both ``(steps, top)``."""
    steps, top = chosen.shape
    waiting = chosen.T.reshape(-1)  # first choices before second ones
    theirs = jax.nn.one_hot(waiting, size, dtype=jnp.int32)
    before = jnp.take_along_axis(jnp.cumsum(theirs, 0) - theirs, waiting[:, None], 1)[:, 0]
    place, fits = waiting * room + before, before < room
    return place.reshape(top, steps).T, fits.reshape(top, steps).T


def _balance(size: int, weight: Any) -> Layer:
    """Keep the loss of Switch transformers: the product of how often each expert comes first, and its probability."""

    def init(key: jax.Array, scores: Any, chosen: Any) -> Any:
        return {}, {"auxiliary_loss": jnp.zeros((), jnp.float32)}

    def apply(params: Any, state: Any, scores: jax.Array, chosen: jax.Array) -> Any:
        steps = max(1, len(scores))  # a batch without rows has a loss of 0
        probability = jnp.sum(jax.nn.softmax(scores, -1), 0) / steps
        often = jnp.sum(jax.nn.one_hot(chosen[:, 0], size), 0) / steps
        loss = weight * size * jnp.sum(often * probability)
        return (), {"auxiliary_loss": jnp.asarray(loss, jnp.float32)}

    return layer(init, apply, stateful=True, name="balance")
