"""The dtype that sums and statistics are computed in."""

from typing import Any

import jax
import jax.numpy as jnp


def widen(x: Any) -> jax.Array:
    """``x`` in float32, or in its own dtype where that is wider."""
    x = jnp.asarray(x)
    is_wide = jnp.issubdtype(x.dtype, jnp.inexact) and jnp.finfo(x.dtype).bits >= 32
    return x if is_wide else x.astype(jnp.float32)
