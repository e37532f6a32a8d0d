"""Arrays of other libraries, such as tensors of PyTorch and tables of pandas, as arrays that JAX takes."""

from typing import Any

import jax
import numpy as np


def as_arrays(tree: Any, name: str) -> Any:
    """A pytree whose leaves are all numbers or arrays that JAX takes; what is one already stays as it is.

    Args:
        tree: Of arrays, tensors, columns of a table: of all that NumPy can read.
        name: Of the tree in messages, such as ``"data"``.

    Raises:
        TypeError: if a leaf is no array, or one of objects or strings. The message says which, and shows no data.
    """
    return jax.tree.map_with_path(lambda path, leaf: as_array(leaf, name + jax.tree_util.keystr(path)), tree)


def as_array(leaf: Any, name: str) -> Any:
    """One leaf of `as_arrays`."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | bool | int | float | complex | np.number | np.bool):
        return leaf
    kind = type(leaf).__name__
    if not isinstance(leaf, np.ndarray):
        if isinstance(leaf, str | bytes):
            raise TypeError(f"{name} is a string; encode labels: names, y = np.unique(labels, return_inverse=True)")
        if not hasattr(leaf, "__array__"):
            loader = "; for a DataLoader: pass collate_fn=..." if name.startswith("batch") else ""
            raise TypeError(f"{name} is of type {kind}, which NumPy cannot read as an array; pass arrays{loader}")
        try:
            leaf = np.asarray(leaf)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name} is of type {kind}, which NumPy cannot read as an array: {error}") from None
    shown = f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
    if leaf.dtype.kind in "SU" or (leaf.dtype.kind == "O" and all(isinstance(item, str) for item in leaf.flat)):
        raise TypeError(f"{name} holds strings; encode labels: names, y = np.unique(labels, return_inverse=True)")
    if leaf.dtype.kind == "O":
        raise TypeError(
            f"{name} is an array of objects, {shown}; give its rows the same length and its columns numbers, so "
            "that .astype(np.float32) works"
        )
    if leaf.dtype.kind in "Mm" or leaf.dtype.names:
        raise TypeError(f"{name} is {shown}, which JAX does not know; convert it: .astype(np.float32)")
    return leaf if leaf.dtype.isnative else leaf.astype(leaf.dtype.newbyteorder("="))  # as files of MNIST hold them
