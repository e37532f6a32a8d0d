"""Ways to compute the products of a convolution that XLA turns into fast code on CPUs.

Each differs from the others by rounding only. Images are ``(batch, height, width, channels)`` and groups are 1, unless
a function says otherwise. `fnn.ops.conv_rule` chooses among them.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.ops.conv_plain import Geometry, channels_last

Product = Callable[[jax.Array, jax.Array, Geometry], jax.Array]


def direct_y(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """One convolution; any rank and groups."""
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.padding,
        rhs_dilation=geometry.dilation,
        dimension_numbers=channels_last(len(geometry.window)),
        feature_group_count=geometry.groups,
    )


def direct_x(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """One convolution of y, its elements strides apart, with the kernel turned round; any rank and groups."""
    padding = [
        (extent - 1 - low, size + low - (places - 1) * stride - 1)
        for size, extent, places, stride, (low, _) in zip(
            geometry.sizes, geometry.extents, geometry.outputs, geometry.strides, geometry.padding
        )
    ]
    return lax.conv_general_dilated(
        y,
        turned(kernel, geometry.groups),
        (1,) * len(geometry.window),
        padding,
        lhs_dilation=geometry.strides,
        rhs_dilation=geometry.dilation,
        dimension_numbers=channels_last(len(geometry.window)),
        feature_group_count=geometry.groups,
    )


def direct_kernel(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    """One convolution of x with y, in which batch and channels change places; any rank.

    The arrays are transposed and not relabelled: XLA:CPU computes other labels a hundred times slower within loops.
    """
    space = len(geometry.window)
    axes = tuple(range(1, space + 1))
    padding = [
        (low, (size - 1) * step + (places - 1) * stride + 1 - extent - low)
        for extent, size, step, places, stride, (low, _) in zip(
            geometry.sizes, geometry.window, geometry.dilation, geometry.outputs, geometry.strides, geometry.padding
        )
    ]
    kernel = lax.conv_general_dilated(
        x.transpose(space + 1, *axes, 0),
        y.transpose(*axes, 0, space + 1),
        geometry.dilation,
        padding,
        rhs_dilation=geometry.strides,
        dimension_numbers=channels_last(space),
    )
    return kernel.transpose(*axes, 0, space + 1)


def turned(kernel: jax.Array, groups: int = 1) -> jax.Array:
    """The kernel whose convolution transposes: each axis reversed, channels and features changed."""
    *window, channels, features = kernel.shape
    kernel = lax.rev(kernel, range(len(window))).reshape(*window, channels, groups, features // groups)
    return jnp.moveaxis(kernel, -3, -1).reshape(*window, features // groups, groups * channels) if groups == 1 else (
        kernel.transpose(*range(len(window)), -1 % kernel.ndim, -2 % kernel.ndim, -3 % kernel.ndim)
    ).reshape(*window, features // groups, groups * channels)


def rows_y(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolve along the width with all rows of the kernel at once, then add up shifted rows; height strides of 1."""
    height, width, channels, features = kernel.shape
    (low, high), sides = geometry.padding
    rows = lax.conv_general_dilated(
        x.reshape(-1, *x.shape[2:]),
        kernel.transpose(1, 2, 0, 3).reshape(width, channels, height * features),
        geometry.strides[1:],
        [sides],
        rhs_dilation=geometry.dilation[1:],
        dimension_numbers=channels_last(1),
    )
    rows = rows.reshape(*x.shape[:2], -1, height * features)
    rows = pad(rows, [(0, 0), (low, high), (0, 0), (0, 0)])
    places, step = geometry.outputs[0], geometry.dilation[0]
    return sum(
        lax.slice(rows, (0, row * step, 0, row * features),
                  (rows.shape[0], row * step + places, rows.shape[2], (row + 1) * features))
        for row in range(height)
    )


def sum_y(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The sum of every element beneath the window times its features, one loop that XLA fuses: for few channels."""
    x = pad(x, [(0, 0), *geometry.padding, (0, 0)])
    terms = []
    for place in np.ndindex(*geometry.window):
        shifted = beneath(x, place, geometry)
        terms += [shifted[..., channel, None] * kernel[place][channel] for channel in range(x.shape[-1])]
    return sum(terms)


def beneath(x: jax.Array, place: tuple[int, ...], geometry: Geometry) -> jax.Array:
    """The elements of a padded x beneath one element of the window, at each of its places."""
    start = [i * step for i, step in zip(place, geometry.dilation)]
    last = [low + (out - 1) * stride + 1 for low, out, stride in zip(start, geometry.outputs, geometry.strides)]
    return lax.slice(x, (0, *start, 0), (x.shape[0], *last, x.shape[-1]), (1, *geometry.strides, 1))


def blocks_y(x: jax.Array, kernel: jax.Array, geometry: Geometry, block: int) -> jax.Array:
    """Make ``block`` neighbours of y at once, as features of one wider kernel: for few channels."""
    height, width, channels, features = kernel.shape
    (_, stride), (_, places) = geometry.strides, geometry.outputs
    rows, (low, high) = geometry.padding
    blocks = -(-places // block)
    wide = jnp.stack(
        [pad(kernel, [(0, 0), (turn * stride, (block - 1 - turn) * stride), (0, 0), (0, 0)]) for turn in range(block)], -2
    ).reshape(height, -1, channels, block * features)
    y = lax.conv_general_dilated(
        x,
        wide,
        (geometry.strides[0], block * stride),
        [rows, (low, high + (blocks * block - places) * stride)],
        rhs_dilation=(geometry.dilation[0], 1),
        dimension_numbers=channels_last(2),
    )
    return y.reshape(*y.shape[:2], blocks * block, features)[:, :, :places]


def subpixel_x(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Make strides × strides neighbours of x at once, as channels of one convolution, and put them side by side."""
    window, strides, sizes = geometry.window, geometry.strides, geometry.sizes
    *_, channels, features = kernel.shape
    taps = tuple(-(-size // stride) for size, stride in zip(window, strides))
    parts = pad(kernel, [*((0, tap * stride - size) for tap, stride, size in zip(taps, strides, window)), (0, 0), (0, 0)])
    parts = parts.reshape(taps[0], strides[0], taps[1], strides[1], channels, features)
    parts = parts.transpose(0, 2, 1, 3, 4, 5).reshape(*taps, -1, features)
    # Element s * place + part of x, counted from the padding, is part `part` of place `place`.
    places = [-(-(low + size) // stride) for size, stride, (low, _) in zip(sizes, strides, geometry.padding)]
    padding = tuple((tap - 1, place - out) for tap, place, out in zip(taps, places, geometry.outputs))
    inner = Geometry(geometry.outputs, taps, (1, 1), padding, (1, 1), 1)
    x = PRODUCTS_Y(y, turned(parts), inner)
    x = x.reshape(-1, *places[:1], places[1], *strides, channels).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(-1, places[0] * strides[0], places[1] * strides[1], channels)
    (top, _), (left, _) = geometry.padding
    return x[:, top : top + sizes[0], left : left + sizes[1]]


def chunked(product: Product, images: int) -> Product:
    """The sum of a kernel's product over chunks of so many images, so that what it copies stays in the cache."""

    def summed(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
        batch = x.shape[0]
        whole = batch // images
        if whole < 2:
            return product(x, y, geometry)
        cut = lambda array: array[: whole * images].reshape(whole, images, *array.shape[1:])
        zeros = jnp.zeros(geometry.shape_of("kernel", x.shape, y.shape), x.dtype)
        total, _ = lax.scan(lambda total, both: (total + product(*both, geometry), None), zeros, (cut(x), cut(y)))
        rest = whole * images
        return total if rest == batch else total + product(x[rest:], y[rest:], geometry)

    return summed


def split_kernel(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product of columns beneath the window's width with rows of y shifted by its height; height strides 1."""
    height, width = geometry.window
    (step, across), (_, stride) = geometry.dilation, geometry.strides
    batch, places, columns, features = y.shape
    x = pad(x, [(0, 0), *geometry.padding, (0, 0)])
    channels = x.shape[-1]
    beneath = jnp.stack([x[:, :, i * across : i * across + (columns - 1) * stride + 1 : stride] for i in range(width)], -2)
    shifted = jnp.stack(
        [pad(y, [(0, 0), (i * step, x.shape[1] - places - i * step), (0, 0), (0, 0)]) for i in range(height)], -2
    )
    product = inner(beneath.reshape(-1, width * channels), shifted.reshape(-1, height * features))
    return product.reshape(width, channels, height, features).transpose(2, 0, 1, 3)


def patches_kernel(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product of all that lies beneath the window with y."""
    x = pad(x, [(0, 0), *geometry.padding, (0, 0)])
    batch, channels = x.shape[0], x.shape[-1]
    beneath = []
    for place in np.ndindex(*geometry.window):
        start = [i * step for i, step in zip(place, geometry.dilation)]
        last = [low + (out - 1) * stride + 1 for low, out, stride in zip(start, geometry.outputs, geometry.strides)]
        beneath.append(lax.slice(x, (0, *start, 0), (batch, *last, channels), (1, *geometry.strides, 1)))
    patches = jnp.stack(beneath, -2).reshape(-1, math.prod(geometry.window) * channels)
    return inner(patches, y.reshape(-1, y.shape[-1])).reshape(*geometry.window, channels, y.shape[-1])


def inner(a: jax.Array, b: jax.Array) -> jax.Array:
    """``a.T @ b``, with the wider of the two last: XLA:CPU is up to twice as fast at that."""
    return jnp.einsum("na,nb->ba", a, b).T if a.shape[1] > b.shape[1] else jnp.einsum("na,nb->ab", a, b)


def pad(x: jax.Array, padding: list[tuple[int, int]]) -> jax.Array:
    """Zeros before and after each axis; negative numbers take elements away."""
    return lax.pad(x, np.zeros((), x.dtype), [(*pair, 0) for pair in padding])


PRODUCTS_Y = direct_y
