"""Which way each product of a convolution is computed on a CPU: one rule for each product, by shape.

Measured with ``python -m benchmarks convolutions`` on 2 cores with AVX-512, jax 0.10.2, against
`jax.lax.conv_general_dilated`, which no rule may fall behind by more than measurements scatter:

* y. Up to 32 products for each number: their sum, which XLA fuses with the bias and the activation after it, 1.4 to 6
  times faster. Images up to 16 wide or with windows of 5 and more, in batches: rows, 1.2 to 2.2 times. Wider ones of 32
  channels and more: one row more than asked for, 1.0 to 1.7 times. All else: as it is.
* x. A convolution of y, for which the rule of y is asked; all strides * strides parts of x at once where there are
  strides, 1.0 to 2.4 times. Few channels, as rows, up to 2.8 times.
* The kernel. One convolution for every few images, 1.3 to 2.9 times; one matrix product for every few images where
  channels and images are large, 1.3 to 2.3 times; for one channel one matrix product, 2 to 4 times. Within loops all
  of them are 10 to 100 times faster than what the gradient of `jax.lax.conv_general_dilated` becomes there.
"""

import math

import jax
import jax.numpy as jnp

from fnn.ops import conv_cpu as ways
from fnn.ops.conv_plain import Geometry, plain_product


def fast_product(of: str, a: jax.Array, b: jax.Array, geometry: Geometry) -> jax.Array:
    """One product of a convolution, in the way that is fastest on a CPU; see `conv_product`."""
    sizes = (*a.shape, *b.shape)
    if not all(isinstance(size, int) for size in sizes) or 0 in sizes or jnp.iscomplexobj(a):
        return plain_product(of, a, b, geometry)
    if a.dtype.itemsize < 4:
        return fast_product(of, a.astype(jnp.float32), b.astype(jnp.float32), geometry).astype(a.dtype)
    if len(geometry.window) == 1:
        return _as_images(of, a, b, geometry)
    return {"y": _y, "x": _x, "kernel": _kernel}[of](a, b, geometry)


def _as_images(of: str, a: jax.Array, b: jax.Array, geometry: Geometry) -> jax.Array:
    """A sequence is an image of height 1."""
    images = Geometry(
        (1, *geometry.sizes),
        (1, *geometry.window),
        (1, *geometry.strides),
        ((0, 0), *geometry.padding),
        (1, *geometry.dilation),
        geometry.groups,
    )
    c = fast_product(of, a[:, None], b[:, None] if of == "kernel" else b[None], images)
    return c[0] if of == "kernel" else c[:, 0]


def _y(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    *window, channels, features = kernel.shape
    if geometry.groups > 1:
        if channels == 1:
            return ways.depthwise_y(x, kernel, geometry)
        return (ways.grouped(_y) if channels >= 16 else ways.direct_y)(x, kernel, geometry)
    if math.prod(window) * channels <= 32:
        return ways.sum_y(x, kernel, geometry)
    if len(window) != 2 or geometry.strides[0] > 1 or window[0] == 1:
        return ways.direct_y(x, kernel, geometry)
    narrow = max(geometry.outputs) <= 16 or min(window) >= 5
    if len(x) >= 8 and ((channels >= 32 and narrow) or (channels >= 8 >= features)):
        return ways.rows_y(x, kernel, geometry)
    if min(channels, features) >= 32 and not narrow:
        return ways.tall_y(x, kernel, geometry)
    return ways.direct_y(x, kernel, geometry)


def _x(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    if geometry.groups > 1:
        if kernel.shape[-2] == 1 and y.shape[-1] <= 4 * geometry.groups:
            return ways.depthwise_x(y, kernel, geometry)
        return (ways.grouped(_x) if kernel.shape[-2] >= 16 else ways.direct_x)(y, kernel, geometry)
    if len(geometry.window) != 2 or (geometry.strides != (1, 1) and geometry.dilation != (1, 1)):
        return ways.direct_x(y, kernel, geometry)
    if geometry.strides != (1, 1):
        return ways.subpixel_x(y, kernel, geometry, _y)
    pairs = zip(geometry.extents, geometry.padding)
    padding = tuple((extent - 1 - low, extent - 1 - high) for extent, (low, high) in pairs)
    turned = Geometry(geometry.outputs, geometry.window, (1, 1), padding, geometry.dilation, 1)
    return _y(y, ways.turned(kernel), turned)


def _kernel(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    if geometry.groups > 1:
        depthwise = geometry.groups == x.shape[-1] == y.shape[-1]
        return (ways.depthwise_kernel if depthwise else ways.grouped(_kernel))(x, y, geometry)
    if x.shape[-1] == 1:
        return ways.taps_kernel(x, y, geometry)
    places = math.prod(geometry.outputs)
    images = 8
    while images * places < 512:
        images *= 2
    one_step = len(geometry.window) == 2 and geometry.strides[0] == 1
    if one_step and min(x.shape[-1], y.shape[-1]) >= 32 and places >= 144:
        return ways.chunked(ways.split_kernel, images)(x, y, geometry)
    return ways.chunked(ways.direct_kernel, images)(x, y, geometry)
