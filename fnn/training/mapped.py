"""Batches that are spread over a mapped axis, of `jax.vmap` or `jax.shard_map`."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType

AxisName = str | tuple[str, ...]


def vary(tree: Any, axis_name: AxisName) -> Any:
    """Mark arrays as different on each device, so that gradients by them are those of the device's own rows.

    `jax.shard_map` with ``check_vma=True`` sums the gradients by arrays that all devices share.
    """
    mesh = jax.sharding.get_abstract_mesh()
    manual = [name for name, kind in zip(mesh.axis_names, mesh.axis_types) if kind == AxisType.Manual]
    for name in (axis_name,) if isinstance(axis_name, str) else axis_name:
        if name in manual:  # and not an axis of `jax.vmap`
            tree = jax.tree.map(lambda leaf, name=name: _vary(leaf, name), tree)
    return tree


def _vary(leaf: Any, name: str) -> Any:
    try:
        if hasattr(jax.lax, "pcast"):
            return jax.lax.pcast(leaf, name, to="varying")
        return getattr(jax.lax, "pvary")(leaf, name)  # noqa: B009 - its name before JAX 0.8.2, gone in newer ones
    except ValueError:  # it varies already
        return leaf


def mean_over(tree: Any, axis_name: AxisName | None) -> Any:
    """The mean over the mapped axis, the same on all devices; the tree itself without an axis."""
    return tree if axis_name is None else jax.lax.pmean(vary(tree, axis_name), axis_name)


def mean_value(value_and_grad: Callable[[Any], tuple[jax.Array, Any]]) -> Callable[[Any], jax.Array]:
    """A function of parameters whose gradient is the one given: the mean over devices, however the axis is mapped."""

    @jax.custom_vjp
    def value(params: Any) -> jax.Array:
        return value_and_grad(params)[0]

    def backward(grads: Any, cotangent: jax.Array) -> tuple[Any]:
        return (jax.tree.map(lambda grad: (cotangent * grad).astype(grad.dtype), grads),)

    value.defvjp(value_and_grad, backward)
    return value
