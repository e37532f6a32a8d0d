"""The three products of a convolution, as one bilinear primitive.

A convolution ties three arrays together: x, the kernel and y. Each is a bilinear function of the other two: y of x and
the kernel is the convolution, x of y and the kernel is its gradient with respect to x, the kernel of x and y that with
respect to the kernel. Transposing one of the three with respect to one of its arguments gives another of the three, so
that they are closed under differentiation of any order, forward and reverse, and each is computed in the way that is
fastest by itself. `jax.lax.conv_general_dilated` leaves the way to XLA, which on CPUs is slow at the kernel's product,
at all of them within loops (jax-ml/jax#12868), and at groups, which kernels under `jax.vmap` become.

How a product is computed is decided when the program is lowered: `fnn.ops.conv_plain` on GPUs and TPUs, which have
libraries for it, `fnn.ops.conv_rule` on CPUs.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType

from fnn.ops.conv_plain import Geometry, plain_product
from fnn.ops.conv_rule import fast_product


def conv_product(of: str, a: jax.Array, b: jax.Array, geometry: Geometry) -> jax.Array:
    """One of the three arrays of a convolution from the other two.

    Args:
        of: ``"y"``: from x and the kernel. ``"x"``: from y and the kernel. ``"kernel"``: from x and y.
        a: The first of the two, in the order x, y, kernel.
        b: The second, of the same dtype.
        geometry: Ties their shapes together.

    Returns:
        x ``(batch, *sizes, channels)``, y ``(batch, *outputs, features)`` or the kernel
        ``(*window, channels // groups, features)``.
    """
    if _sharded_by_hand(a) or _sharded_by_hand(b):
        return plain_product(of, a, b, geometry)  # whose rules know about such arrays
    return _bind(a, b, of=of, geometry=geometry, mapped=False)


_convolution_p = Primitive("fnn_convolution")
_bind = _convolution_p.bind


@_convolution_p.def_impl
def _impl(a: jax.Array, b: jax.Array, **params: Any) -> jax.Array:
    return _compiled(a, b, **params)


@functools.partial(jax.jit, static_argnames=("of", "geometry", "mapped"))
def _compiled(a: jax.Array, b: jax.Array, **params: Any) -> jax.Array:
    return _bind(a, b, **params)


@_convolution_p.def_abstract_eval
def _abstract(a: Any, b: Any, *, of: str, geometry: Geometry, mapped: bool) -> Any:
    shape = geometry.shape_of(of, a.shape[mapped:], b.shape[mapped:])
    return a.update(shape=(*a.shape[:mapped], *shape), weak_type=False)


def _sharded_by_hand(array: jax.Array) -> bool:
    """Whether this is a part of an array within `jax.shard_map`, or its sharding is in its type."""
    return any(kind != AxisType.Auto for kind in jax.typeof(array).sharding.mesh.axis_types)


# What each product transposes to: for its first and its second argument, what is made, and of which two of the
# cotangent "ct" and the other argument "other", in the order x, y, kernel.
_TRANSPOSES = {
    "y": (("x", ("ct", "other")), ("kernel", ("other", "ct"))),
    "x": (("y", ("ct", "other")), ("kernel", ("ct", "other"))),
    "kernel": (("x", ("other", "ct")), ("y", ("other", "ct"))),
}


def _transpose(place: int, ct: jax.Array, a: Any, b: Any, *, of: str, **params: Any) -> jax.Array:
    target, order = _TRANSPOSES[of][place]
    given = {"ct": ct, "other": a if place else b}
    return _bind(*(given[name] for name in order), of=target, **params)


ad.defbilinear(_convolution_p, functools.partial(_transpose, 0), functools.partial(_transpose, 1))


def _batch(
    arguments: tuple[jax.Array, jax.Array],
    axes: tuple[int | None, int | None],
    *,
    of: str,
    geometry: Geometry,
    mapped: bool,
) -> tuple[jax.Array, int]:
    """An axis of one argument joins its batch, channels or features; an axis of both is mapped over."""
    bind = functools.partial(_bind, of=of, geometry=geometry)
    size = next(argument.shape[axis] for argument, axis in zip(arguments, axes) if axis is not None)
    joins = _JOINS[of][0 if axes[1] is None else 1]
    if None not in axes or mapped or (geometry.groups > 1 and joins != ("batch", "batch")):
        a, b = (
            jnp.broadcast_to(argument, (size, *argument.shape)) if axis is None else jnp.moveaxis(argument, axis, 0)
            for argument, axis in zip(arguments, axes)
        )
        if not mapped:
            return bind(a, b, mapped=True), 0
        y = bind(a.reshape(-1, *a.shape[2:]), b.reshape(-1, *b.shape[2:]), mapped=True)
        return y.reshape(size, -1, *y.shape[1:]), 0
    place = 0 if axes[1] is None else 1
    into, out = (_PLACES[join] for join in joins)
    moved = jnp.moveaxis(arguments[place], axes[place], into if into >= 0 else into - 1)
    both = list(arguments)
    both[place] = _join(moved, into if into >= 0 else into - 1)
    y = bind(*both, mapped=False)
    axis = out % y.ndim
    return y.reshape(*y.shape[:axis], size, y.shape[axis] // size, *y.shape[axis + 1 :]), axis


# Which axis of its array an axis under vmap joins, and which axis of the result it then is part of.
_PLACES = {"batch": 0, "kernel channels": -2, "last": -1}
_JOINS = {
    "y": (("batch", "batch"), ("last", "last")),
    "x": (("batch", "batch"), ("kernel channels", "last")),
    "kernel": (("last", "kernel channels"), ("last", "last")),
}


def _join(array: jax.Array, axis: int) -> jax.Array:
    axis %= array.ndim
    return array.reshape(*array.shape[:axis], math.prod(array.shape[axis : axis + 2]), *array.shape[axis + 2 :])


batching.primitive_batchers[_convolution_p] = _batch


def _lower_plain(a: jax.Array, b: jax.Array, *, of: str, geometry: Geometry, mapped: bool) -> jax.Array:
    product = functools.partial(plain_product, of, geometry=geometry)
    return jax.vmap(product)(a, b) if mapped else product(a, b)


def _lower_fast(a: jax.Array, b: jax.Array, *, of: str, geometry: Geometry, mapped: bool) -> jax.Array:
    product = functools.partial(fast_product, of, geometry=geometry)
    return lax.map(lambda both: product(*both), (a, b)) if mapped else product(a, b)


mlir.register_lowering(_convolution_p, mlir.lower_fun(_lower_plain, multiple_results=False))
mlir.register_lowering(_convolution_p, mlir.lower_fun(_lower_fast, multiple_results=False), platform="cpu")
