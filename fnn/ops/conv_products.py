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
    return _bind(a, b, of=of, geometry=geometry, mapped=False, derived=False)


_convolution_p = Primitive("fnn_convolution")
_bind = _convolution_p.bind


@_convolution_p.def_impl
def _impl(a: jax.Array, b: jax.Array, **params: Any) -> jax.Array:
    return _compiled(a, b, **params)


@functools.partial(jax.jit, static_argnames=("of", "geometry", "mapped", "derived"))
def _compiled(a: jax.Array, b: jax.Array, **params: Any) -> jax.Array:
    return _bind(a, b, **params)


@_convolution_p.def_abstract_eval
def _abstract(a: Any, b: Any, *, of: str, geometry: Geometry, mapped: bool, derived: bool) -> Any:
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
_bilinear_jvp = ad.primitive_jvps[_convolution_p]


def _jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    """Both the value and its derivative know that they are part of one, and so does all that these transpose to."""
    return _bilinear_jvp(primals, tangents, **{**params, "derived": True})


ad.primitive_jvps[_convolution_p] = _jvp


# Under vmap an axis of one array alone becomes part of another axis of it, and so of an axis of the product: of the
# batch, the channels or the features. By product and place of the array: which of its axes, which of the product's.
_JOINED = {
    ("y", 0): (0, 0),
    ("y", 1): (-1, -1),
    ("x", 0): (0, 0),
    ("x", 1): (-2, -1),
    ("kernel", 0): (-1, -2),
    ("kernel", 1): (-1, -1),
}


def _batch(
    arrays: tuple[jax.Array, jax.Array],
    axes: tuple[int | None, int | None],
    *,
    of: str,
    geometry: Geometry,
    mapped: bool,
    derived: bool,
) -> tuple[jax.Array, int]:
    size = next(array.shape[axis] for array, axis in zip(arrays, axes) if axis is not None)
    place = 0 if axes[1] is None else 1
    bind = functools.partial(_bind, of=of, geometry=geometry, derived=derived)
    joined, part = _JOINED[of, place]
    if None not in axes or mapped or (geometry.groups > 1 and joined != 0):
        a, b = (
            jnp.broadcast_to(array, (size, *array.shape)) if axis is None else jnp.moveaxis(array, axis, 0)
            for array, axis in zip(arrays, axes)
        )
        if not mapped:
            return bind(a, b, mapped=True), 0
        count = a.shape[1]
        a, b = (array.reshape(size * count, *array.shape[2:]) for array in (a, b))
        c = bind(a, b, mapped=True)
        return c.reshape(size, count, *c.shape[1:]), 0
    joined %= arrays[place].ndim - 1
    one = jnp.moveaxis(arrays[place], axes[place] or 0, joined)
    count = one.shape[joined + 1]
    one = one.reshape(*one.shape[:joined], size * count, *one.shape[joined + 2 :])
    c = bind(*((arrays[0], one) if place else (one, arrays[1])), mapped=False)
    part %= c.ndim
    return c.reshape(*c.shape[:part], size, count, *c.shape[part + 1 :]), part


batching.primitive_batchers[_convolution_p] = _batch


def _lower_plain(a: jax.Array, b: jax.Array, *, of: str, geometry: Geometry, mapped: bool, **_: Any) -> jax.Array:
    product = functools.partial(plain_product, of, geometry=geometry)
    return jax.vmap(product)(a, b) if mapped else product(a, b)


def _lower_fast(a: jax.Array, b: jax.Array, *, mapped: bool, **params: Any) -> jax.Array:
    product = functools.partial(fast_product, **params)
    return lax.map(lambda both: product(*both), (a, b)) if mapped else product(a, b)


mlir.register_lowering(_convolution_p, mlir.lower_fun(_lower_plain, multiple_results=False))
mlir.register_lowering(_convolution_p, mlir.lower_fun(_lower_fast, multiple_results=False), platform="cpu")
