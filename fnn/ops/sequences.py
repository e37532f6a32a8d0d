"""Checks that layers over time share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_sequence(x: Any, what: str = "x") -> None:
    """Raise unless ``x`` has the axes of a batch of sequences."""
    if len(x.shape) != 3:
        raise ValueError(
            f"{what} has shape {x.shape}, wanted (batch, time, features); add the missing axes, such as {what}[None]"
        )


def valid_lengths(lengths: Any, batch: int, time: int) -> jax.Array | None:
    """Check lengths of sequences, ``(batch,)``; which of them lie in ``[0, time]``, or None where they are concrete.

    Raises:
        ValueError: when they are concrete and one does not.
    """
    if not jnp.issubdtype(lengths.dtype, jnp.integer) or lengths.shape != (batch,):
        raise ValueError(f"lengths are {lengths.dtype}{list(lengths.shape)}, wanted integers of shape ({batch},)")
    try:
        found = np.asarray(lengths)
    except jax.errors.TracerArrayConversionError:
        return (lengths >= 0) & (lengths <= time)
    if wrong := found[(found < 0) | (found > time)].tolist():
        raise ValueError(f"lengths hold {wrong[0]}, and the time axis has {time} steps; cut them to 0 to {time}")
    return None
