"""The dtype that sums and statistics are computed in."""

from typing import Any

import jax
import jax.numpy as jnp


def wide(dtype: Any) -> Any:
    """float32, or ``dtype`` itself where that is wider."""
    is_wide = jnp.issubdtype(dtype, jnp.inexact) and jnp.finfo(dtype).bits >= 32
    return dtype if is_wide else jnp.float32


def widen(x: Any) -> jax.Array:
    """``x`` in float32, or in its own dtype where that is wider."""
    x = jnp.asarray(x)
    return x.astype(wide(x.dtype))
