"""Checks of inputs and hyperparameters that layers share; each message says the fix."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_floating(x: Any) -> None:
    """Raise unless ``x`` has a floating or complex dtype."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        hint = "x.astype(jnp.float32) / 255 for pixels" if x.dtype == jnp.uint8 else "x.astype(jnp.float32)"
        raise TypeError(f"x is {x.dtype}, wanted a floating dtype; convert it first: {hint}")


def check_shapes(params: Any, **wanted: tuple[int | None, ...] | None) -> None:
    """Raise unless parameters have the shapes that a layer's configuration gives them.

    Args:
        params: The parameters by name; one that is missing is a KeyError.
        **wanted: Shapes by name, with None for a size that the inputs decide. None for a parameter that the layer does
            not have.
    """
    for name, shape in wanted.items():
        if shape is None:
            if name in params:
                raise ValueError(
                    f"params has a {name}, which this layer does not have; "
                    "pass the params that this network's init returned"
                )
            continue
        have = jnp.shape(params[name])
        if len(have) != len(shape) or any(size not in (None, found) for size, found in zip(shape, have)):
            padded = (*have, *(None,) * len(shape))
            full = tuple(found if size is None else size for size, found in zip(shape, padded))
            raise ValueError(
                f"{name} has shape {have}, wanted {full}; pass the params that this network's init returned"
            )


def check_channels(x: Any, **leaves: jax.Array | None) -> None:
    """Raise unless each parameter or statistic that is not None has one entry for each channel of ``x``."""
    for name, leaf in leaves.items():
        if leaf is not None and leaf.shape != x.shape[-1:]:
            raise ValueError(
                f"x has {x.shape[-1]} features on its last axis and {name} has shape {leaf.shape}; pass inputs like "
                "those that init saw, and the trees that it returned"
            )


def check_positive_int(name: str, value: Any) -> None:
    """Raise unless ``value`` is an int of at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{name} must be a positive int, got {value!r}")


def check_counts(**counts: tuple[int | None, int]) -> None:
    """Raise where a number is no int, or is smaller than the second one; None is the default of some."""
    for name, (value, smallest) in counts.items():
        if value is None:
            continue
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise TypeError(f"{name} must be an int, got {value!r}")
        if value < smallest:
            raise ValueError(f"{name} must be at least {smallest}, got {value}")


def check_choice(name: str, value: Any, *choices: str) -> None:
    """Raise where a value is none of the choices."""
    if value not in choices:
        listed = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{name} must be {listed}, got {value!r}")


def check_range(name: str, value: Any, low: float, high: float, *, closed: bool = False) -> None:
    """Raise if a concrete ``value`` is not in ``[low, high)``, or ``[low, high]``; a traced one passes."""
    try:
        number = float(value)
    except jax.errors.ConcretizationTypeError:
        return
    if not (low <= number < high or (closed and number == high)):
        raise ValueError(f"{name} must lie in [{low}, {high}{']' if closed else ')'}, got {number}")
