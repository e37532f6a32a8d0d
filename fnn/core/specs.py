"""Shapes and dtypes of inputs, without their values."""

from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.arrays import as_array

Spec = jax.ShapeDtypeStruct


def specs(tree: Any) -> Any:
    """Replace every array of a pytree by its `jax.ShapeDtypeStruct`."""

    def spec(leaf: Any) -> Spec:
        if isinstance(leaf, Spec):
            return Spec(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True))
        kind = jax.typeof(as_array(leaf, "x"))
        return Spec(kind.shape, kind.dtype)

    return jax.tree.map(spec, tree)


def zeros(tree: Any) -> Any:
    """Arrays that stand for a tree of specs while a network is planned."""
    return jax.tree.map(lambda spec: jnp.zeros(spec.shape, spec.dtype), tree)


def same(a: Any, b: Any) -> bool:
    """Whether two trees of specs have the same structure, shapes and dtypes."""
    key = lambda tree: (jax.tree.structure(tree), [(s.shape, s.dtype) for s in jax.tree.leaves(tree)])
    return key(a) == key(b)


def show(tree: Any) -> str:
    """Write a pytree of arrays as ``float32[32,28,28]``; the inputs of a call are joined by commas."""
    if isinstance(tree, tuple | list):
        return ", ".join(f"({show(item)})" if isinstance(item, tuple | list) else show(item) for item in tree)
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{name}: {show(item)}" for name, item in tree.items()) + "}"
    if hasattr(tree, "shape") and hasattr(tree, "dtype"):
        return f"{tree.dtype}[{','.join(map(str, tree.shape))}]"
    return type(tree).__name__
