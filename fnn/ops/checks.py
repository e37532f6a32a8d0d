"""Checks of inputs and hyperparameters that layers share; each message says the fix."""

from typing import Any

import jax
import jax.numpy as jnp


def check_floating(x: Any) -> None:
    """Raise unless ``x`` has a floating or complex dtype."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        hint = "x.astype(jnp.float32) / 255 for pixels" if x.dtype == jnp.uint8 else "x.astype(jnp.float32)"
        raise TypeError(f"x is {x.dtype}, wanted a floating dtype; convert it first: {hint}")


def check_positive_int(name: str, value: Any) -> None:
    """Raise unless ``value`` is an int of at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{name} must be a positive int, got {value!r}")


def check_range(name: str, value: Any, low: float, high: float, *, closed: bool = False) -> None:
    """Raise if a concrete ``value`` is not in ``[low, high)``, or ``[low, high]``; a traced one passes."""
    try:
        number = float(value)
    except jax.errors.ConcretizationTypeError:
        return
    if not (low <= number < high or (closed and number == high)):
        raise ValueError(f"{name} must lie in [{low}, {high}{']' if closed else ')'}, got {number}")
