"""Which way each product of a convolution is computed on a CPU: one rule for each product, by shape.

Measured with ``python -m benchmarks convolutions`` on 2 cores with AVX-512, jax 0.10.2, against
`jax.lax.conv_general_dilated`; ``benchmarks/README.md`` has the figures, and where they scatter or fall behind:

* y that is not part of a derivative. As it is, since XLA makes one kernel of a whole network of such convolutions.
* Any other y. Up to 32 products for each number, of which there are many: their sum, which XLA fuses with the bias
  and the activation after it. Images up to 13 wide with 32 channels and more, and results of few features: rows. Other
  images with 32 channels and features and more, unless there is little to do: one row more than asked for. All else as
  it is.
* x. A convolution of y, for which the rule of y is asked; with strides, all strides * strides parts of x at once, or
  in up to four convolutions where strides do not divide the window.
* The kernel. One convolution for every few images, or one matrix product where channels and images are large; for
  one channel one matrix product. None of them loses its speed within loops, as the gradient of
  `jax.lax.conv_general_dilated` does.
* Depthwise: sums of products. Other groups of 16 channels and more, and the kernels of all: one
  group after the other.
"""

import math

import jax
import jax.numpy as jnp

from fnn.ops import conv_cpu as ways
from fnn.ops.conv_plain import Geometry, plain_product


def fast_product(a: jax.Array, b: jax.Array, *, of: str, geometry: Geometry, derived: bool) -> jax.Array:
    """One product of a convolution, in the way that is fastest on a CPU; see `conv_product`.

    ``derived`` says whether it is part of a derivative.
    """
    sizes = (*a.shape, *b.shape)
    if not all(isinstance(size, int) for size in sizes) or 0 in sizes or jnp.iscomplexobj(a):
        return plain_product(of, a, b, geometry)
    if a.dtype.itemsize < 4:
        wide = (array.astype(jnp.float32) for array in (a, b))
        return fast_product(*wide, of=of, geometry=geometry, derived=derived).astype(a.dtype)
    if of == "y" and not derived and geometry.groups == 1:
        return ways.direct_y(a, b, geometry)
    return {"y": _y, "x": _x, "kernel": _kernel}[of](a, b, geometry)


def _y(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    *window, channels, features = kernel.shape
    if geometry.groups > 1:
        if channels == 1:
            return ways.depthwise_y(x, kernel, geometry)
        return (ways.grouped(_y) if channels >= 16 else ways.direct_y)(x, kernel, geometry)
    places = math.prod(geometry.outputs)
    if math.prod(window) * channels <= 32 and len(x) * places >= 4096:
        large = len(x) * places * features > 2**21  # then the pages for it cost more than computing it anew
        return (ways.sum_y if large else ways.apart(ways.sum_y))(x, kernel, geometry)
    if len(window) != 2 or geometry.strides[0] > 1 or window[0] == 1:
        return ways.direct_y(x, kernel, geometry)
    small = max(geometry.outputs) <= 13 and channels >= 32 and len(x) >= 8
    if small or (channels >= 16 and 2 <= features <= 12):
        return ways.rows_y(x, kernel, geometry)
    tall = min(channels, features) >= 32 and len(x) * places * channels * features >= 2**22
    return (ways.tall_y if tall else ways.direct_y)(x, kernel, geometry)


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
    space, channels, places = len(geometry.window), x.shape[-1], math.prod(geometry.outputs)
    if channels == 1 and math.prod(geometry.window) <= 9:
        return ways.taps_kernel(x, y, geometry)
    if space == 1:
        return ways.direct_kernel(x, y, geometry)
    images = 8
    while images * places < 512:
        images *= 2
    wide = space == 2 and geometry.strides[0] == 1 and min(channels, y.shape[-1]) >= 64 and places >= 144
    return ways.chunked(ways.split_kernel if wide else ways.direct_kernel, images)(x, y, geometry)
