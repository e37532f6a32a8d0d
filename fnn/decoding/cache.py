"""State of networks that were built with caches."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.core.errors import LayerError
from fnn.core.layer import Layer


def check_prompt(prompt: Any, lengths: Any) -> tuple[jax.Array, np.ndarray]:
    """Check ids and their lengths, which may not be traced; returns both as arrays."""
    prompt = jnp.asarray(prompt)
    if prompt.ndim != 2 or not jnp.issubdtype(prompt.dtype, jnp.integer) or 0 in prompt.shape:
        raise ValueError(
            f"the prompt is {prompt.dtype}{list(prompt.shape)}, wanted ids (batch, time) of an integer dtype, at least "
            "one in each row"
        )
    batch, time = prompt.shape
    counted = np.full(batch, time) if lengths is None else np.asarray(lengths)
    if counted.shape != (batch,) or counted.min() < 1 or counted.max() > time:
        raise ValueError(f"lengths are {counted.tolist()}, wanted one for each of {batch} rows, from 1 to {time}")
    return prompt.astype(jnp.int32), counted


def fresh_state(net: Layer, state: Any, *xs: Any) -> Any:
    """Empty caches for these inputs, and all else of ``state``."""
    _, fresh = net._plan(*xs).make(jax.random.key(0))
    if not any(is_cache for _, is_cache in _marked(fresh)):
        raise LayerError(
            "the network has no cache, so each id would be read without those before it; build it with cache=, such "
            "as fnn.attention(..., cache=length) or fnn.lstm(..., cache=True)"
        )

    def merge(fresh: Any, old: Any) -> Any:
        if not isinstance(fresh, dict) or not isinstance(old, dict):
            return old
        return {
            name: merge(tree, old[name]) if name in old and name != "cache" else tree for name, tree in fresh.items()
        }

    return merge(fresh, state)


def map_cache(function: Callable[[jax.Array], jax.Array], state: Any, *, memory: bool = True) -> Any:
    """Change those leaves of caches that have a batch axis, the first one; counters have no axes.

    Args:
        function: Applied to each.
        state: Any state.
        memory: Whether to change leaves below ``cache/memory`` too, which all beams of an example share.
    """
    changed = [
        function(leaf) if is_cache and leaf.ndim and (memory or not is_memory) else leaf
        for (leaf, is_cache), (_, is_memory) in zip(_marked(state), _marked(state, "cache", "memory"))
    ]
    return jax.tree.unflatten(jax.tree.structure(state), changed)


@partial(jax.tree_util.register_dataclass, data_fields=["leaves"], meta_fields=["structure", "squeezed"])
@dataclass(frozen=True)
class Squeezed:
    """A state whose caches of a single row have lost their axis of rows.

    Carried by a loop with that axis, each is written twice by XLA, with it and without it, and copied for either.
    """

    leaves: tuple[jax.Array, ...]
    structure: Any
    squeezed: tuple[bool, ...]

    @classmethod
    def of(cls, state: Any) -> "Squeezed":
        marked = _marked(state)
        squeezed = tuple(is_cache and leaf.ndim > 1 and len(leaf) == 1 for leaf, is_cache in marked)
        leaves = tuple(leaf[0] if drop else leaf for (leaf, _), drop in zip(marked, squeezed))
        return cls(leaves, jax.tree.structure(state), squeezed)

    def state(self) -> Any:
        leaves = [leaf[None] if dropped else leaf for leaf, dropped in zip(self.leaves, self.squeezed)]
        return jax.tree.unflatten(self.structure, leaves)


def _marked(state: Any, *names: str) -> list[tuple[jax.Array, bool]]:
    """Each leaf, and whether it lies below an entry ``cache``, or below entries of these names in a row."""
    names = names or ("cache",)
    marked = []
    for path, leaf in jax.tree.leaves_with_path(state):
        keys = [getattr(part, "key", None) for part in path]
        marked.append((leaf, any(tuple(keys[at : at + len(names)]) == names for at in range(len(keys)))))
    return marked
