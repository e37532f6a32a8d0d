"""Predictions, targets and weights that fit together: what metrics share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.ops.dtypes import widen


def as_numbers(name: str, values: Any) -> jax.Array:
    """An array; strings and other objects are an error that says how to encode labels."""
    try:
        return jnp.asarray(values)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} is no array of numbers; encode labels as integers: "
            "classes, target = np.unique(labels, return_inverse=True)"
        ) from None


def with_columns(y: Any, target: Any) -> tuple[jax.Array, jax.Array]:
    """Give logits a class axis and targets none.

    Args:
        y: ``(*shape, columns)``; or ``(batch,)``, one logit for two classes.
        target: ``(*shape)``; also ``(*shape, 1)`` if y has one column.

    Returns:
        ``(*shape, columns)`` and ``(*shape)``.
    """
    y, target = as_numbers("y", y), as_numbers("target", target)
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(f"y is {y.dtype}, wanted floating logits, not classes")
    if y.ndim and y.shape[:-1] == target.shape:
        return y, target
    if y.shape == target.shape and y.ndim == 1:
        return y[:, None], target
    if y.shape == target.shape and y.shape[-1:] == (1,):
        return y, target[..., 0]
    reason = f"y has shape {y.shape} and target {target.shape}"
    if y.shape == target.shape and y.ndim:
        raise ValueError(
            f"{reason}: is that one-hot, or {y.shape[-1]} labels that are each true or false? "
            "For one-hot pass jnp.argmax(target, axis=-1), for labels pass y[..., None]"
        )
    hint = "; drop its last axis: target[..., 0]" if target.shape == (*y.shape[:-1], 1) else ""
    raise ValueError(f"{reason}, wanted logits (*shape, classes) and integer targets (*shape){hint}")


def to_classes(y: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The class that logits with columns predict, and the one that is right, both int32 ``(*shape)``."""
    if y.shape[-1] == 1:
        return (y[..., 0] > 0).astype(jnp.int32), (target > 0.5).astype(jnp.int32)
    check_integer(target)
    return jnp.argmax(y, axis=-1).astype(jnp.int32), target.astype(jnp.int32)


def counted(target: jax.Array, exists: jax.Array, weight: jax.Array, classes: int) -> jax.Array:
    """The weight, and 0 where no such class exists.

    Raises:
        ValueError: when a concrete target that is no class has a weight.
    """
    try:
        wrong = np.asarray(target)[np.asarray(~exists & (weight != 0))]
    except jax.errors.TracerArrayConversionError:
        return jnp.where(exists, weight, 0)
    if len(wrong):
        raise ValueError(
            f"target holds {wrong[0]}, wanted classes 0 to {classes - 1}; subtract the first class if counting starts "
            "at 1, or give targets to ignore weight 0"
        )
    return jnp.where(exists, weight, 0)


def is_class(target: Any, classes: int) -> Any:
    """Where integers are in ``[0, classes)``; JAX wraps a bound that the dtype cannot hold, such as 256 in uint8."""
    largest = 1 if target.dtype == bool else int(jnp.iinfo(target.dtype).max)
    return (target >= 0) & (target <= min(classes - 1, largest))


def check_integer(target: jax.Array) -> None:
    """Raise unless ``target`` may hold classes."""
    if not (jnp.issubdtype(target.dtype, jnp.integer) or target.dtype == bool):
        raise ValueError(f"target is {target.dtype}, wanted integer classes; convert it: target.astype(jnp.int32)")


def difference(y: Any, target: Any) -> jax.Array:
    """``target - y`` in at least float32, for arrays of exactly one shape: broadcasting would hide a mistake."""
    y, target = as_numbers("y", y), as_numbers("target", target)
    if y.shape == target.shape and y.ndim:
        return widen(target) - widen(y)
    fixes = {(*y.shape, 1): "target[..., 0]", y.shape[:-1]: "target[..., None]"}
    hint = f"; give the target the shape of y: {fixes[target.shape]}" if y.ndim and target.shape in fixes else ""
    raise ValueError(f"y has shape {y.shape} and target {target.shape}, wanted one shape (batch, *features){hint}")


def mean_over_features(values: jax.Array) -> jax.Array:
    """The mean of each example, ``(batch,)``."""
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def expand(weight: Any, shape: tuple[int, ...]) -> jax.Array:
    """A weight for every value of an array of this shape: given for its leading axes, or None for 1 each."""
    weight = jnp.ones(shape) if weight is None else widen(weight)
    if weight.shape != shape[: weight.ndim]:
        raise ValueError(f"weight has shape {weight.shape}, wanted (batch,) or more of the leading axes of {shape}")
    return jnp.broadcast_to(weight.reshape(*weight.shape, *(1,) * (len(shape) - weight.ndim)), shape)


def masked(values: jax.Array, weight: jax.Array) -> jax.Array:
    """The values, and 0 where the weight is 0: padding may hold NaN."""
    return jnp.where(weight == 0, 0, values)


def namespace(*trees: Any) -> Any:
    """`jax.numpy` if a tree holds any JAX array, else `numpy`."""
    return jnp if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(trees)) else np


def ratio(above: Any, below: Any, empty: Any = 0.0) -> Any:
    """``above / below``, and ``empty`` where that is a division by zero."""
    xp = namespace(above, below)
    return xp.where(below == 0, empty, above / xp.where(below == 0, 1, below))
