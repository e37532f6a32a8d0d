"""Random keys go by name, so that adding a layer changes no other layer's numbers."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def fold(key: jax.Array, name: str) -> jax.Array:
    """Derive the key of the part called ``name``.

    One `jax.random.fold_in` of a stable 32-bit hash (CRC-32 of the UTF-8 name). A key is either folded or drawn
    from, never both.

    Args:
        key: A typed PRNG key from `jax.random.key`.
        name: One component of a path, such as ``"kernel"``.

    Returns:
        A key that depends on ``key`` and ``name`` and on nothing else.

    Example:
        >>> import jax, fnn
        >>> key = jax.random.key(0)
        >>> kernel = jax.random.normal(fnn.fold(key, "kernel"), (3, 2))
        >>> bias = jax.random.normal(fnn.fold(key, "bias"), (2,))
    """
    return jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))


def _name_key(key: Any) -> str:
    kind = "Array" if isinstance(key, jax.Array) else type(key).__name__
    return f"{kind} of dtype {key.dtype}" if hasattr(key, "dtype") else kind


def check_key(key: jax.Array) -> None:
    """Raise unless ``key`` is one typed PRNG key."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise TypeError(f"key must be a typed key such as jax.random.key(0), got {_name_key(key)}")
    if key.shape != ():
        raise TypeError(f"key must be one key, got an array of keys of shape {key.shape}; use jax.vmap over keys")
