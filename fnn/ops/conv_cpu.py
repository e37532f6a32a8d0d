"""Ways to compute the products of a convolution that XLA turns into fast code on CPUs.

Each differs from the others by rounding only. Images are ``(batch, height, width, channels)`` and groups are 1, unless
a function says otherwise. `fnn.ops.conv_rule` chooses among them.
"""

import functools
import math
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.ops.conv_plain import Geometry, lax_convolution, plain_product

Product = Callable[[jax.Array, jax.Array, Geometry], jax.Array]


def direct_y(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """One convolution; any rank and groups."""
    return plain_product("y", x, kernel, geometry)


def direct_x(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """One convolution of y, its elements strides apart, with the kernel turned round; any rank and groups."""
    padding = [
        (extent - 1 - low, size + low - (places - 1) * stride - 1)
        for size, extent, places, stride, (low, _) in zip(
            geometry.sizes, geometry.extents, geometry.outputs, geometry.strides, geometry.padding
        )
    ]
    return lax_convolution(
        y,
        turned(kernel, geometry.groups),
        (1,) * len(geometry.window),
        padding,
        lhs_dilation=geometry.strides,
        rhs_dilation=geometry.dilation,
        groups=geometry.groups,
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
    kernel = lax_convolution(
        x.transpose(space + 1, *axes, 0),
        y.transpose(*axes, 0, space + 1),
        geometry.dilation,
        padding,
        rhs_dilation=geometry.strides,
    )
    return kernel.transpose(*axes, 0, space + 1)


def turned(kernel: jax.Array, groups: int = 1) -> jax.Array:
    """The kernel whose convolution transposes: each axis reversed, channels and features changed."""
    *window, channels, features = kernel.shape
    space = len(window)
    kernel = lax.rev(kernel, range(space)).reshape(*window, channels, groups, features // groups)
    return kernel.transpose(*range(space), space + 2, space + 1, space).reshape(*window, -1, groups * channels)


def rows_y(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolve along the width with all rows of the kernel at once, then add up shifted rows; height strides of 1."""
    height, width, channels, features = kernel.shape
    (low, _), sides = geometry.padding
    rows = lax_convolution(
        x.reshape(-1, *x.shape[2:]),
        kernel.transpose(1, 2, 0, 3).reshape(width, channels, height * features),
        geometry.strides[1:],
        [sides],
        rhs_dilation=geometry.dilation[1:],
    )
    rows = rows.reshape(*x.shape[:2], -1, height * features)
    places, step = geometry.outputs[0], geometry.dilation[0]
    above = [low - row * step for row in range(height)]
    return total(
        pad(
            rows[..., row * features : (row + 1) * features],
            [(0, 0), (more, places - x.shape[1] - more), (0, 0), (0, 0)],
        )
        for row, more in enumerate(above)
    )


def sum_y(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The sum of every element beneath the window times its features, in one loop that XLA fuses: for few channels."""
    x = pad(x, [(0, 0), *geometry.padding, (0, 0)])
    terms = []
    for place in np.ndindex(*geometry.window):
        shifted = beneath(x, place, geometry)
        terms += [shifted[..., channel, None] * kernel[place][channel] for channel in range(x.shape[-1])]
    return total(terms)


def apart(product: Product) -> Product:
    """A product that XLA computes once, and not anew in everything that reads it.

    XLA:CPU fuses loops into their readers, but not across a branch: so the product is one branch of two that are
    equally right, of which the other is hardly ever taken.
    """

    def branch(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
        ways = [lambda: direct_y(x, kernel, geometry), lambda: product(x, kernel, geometry)]
        return lax.cond(x[(0,) * x.ndim] == np.inf, *ways)

    return branch


def beneath(x: jax.Array, place: tuple[int, ...], geometry: Geometry) -> jax.Array:
    """The elements of a padded x beneath one element of the window, at each of its places."""
    start = [i * step for i, step in zip(place, geometry.dilation)]
    last = [low + (out - 1) * stride + 1 for low, out, stride in zip(start, geometry.outputs, geometry.strides)]
    return lax.slice(x, (0, *start, 0), (x.shape[0], *last, x.shape[-1]), (1, *geometry.strides, 1))


def tall_y(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """One convolution that makes a row more than x has, and drops it.

    Some versions of XLA compute float32 convolutions whose result is larger than x with Eigen, and all others with
    YNNPACK, which is slower for many channels.
    """
    places, stride = geometry.outputs[0], geometry.strides[0]
    (low, high), *sides = geometry.padding
    more = max(geometry.sizes[0] + 1 - places, 0) * stride
    return direct_y(x, kernel, geometry._replace(padding=((low, high + more), *sides)))[:, :places]


def subpixel_x(y: jax.Array, kernel: jax.Array, geometry: Geometry, product: Product) -> jax.Array:
    """Make strides * strides neighbours of x at once, as channels of one convolution, and put them side by side.

    Neighbour number ``part`` of a place lies beneath the elements ``part``, ``part + stride``, ... of the window. Where
    strides do not divide the window, some parts have an element more than others. Zeros in its place would spread an
    infinite element of y to places outside of its window: so either parts of different sizes are computed by separate
    convolutions, which saves products, or zeros are used only if all of y is finite, faster where little is saved.
    """
    if all(size % stride == 0 for size, stride in zip(geometry.window, geometry.strides)):
        return _subpixel(y, kernel, geometry, product, apart=False)
    filled = math.prod(-(-size // stride) * stride for size, stride in zip(geometry.window, geometry.strides))
    if kernel.shape[-2] >= 16 and filled >= 1.5 * math.prod(geometry.window):
        return _subpixel(y, kernel, geometry, product, apart=True)
    return lax.cond(
        jnp.isfinite(jnp.sum(y * 0)),
        lambda: _subpixel(y, kernel, geometry, product, apart=False),
        lambda: direct_x(y, kernel, geometry),
    )


def _subpixel(y: jax.Array, kernel: jax.Array, geometry: Geometry, product: Product, *, apart: bool) -> jax.Array:
    window, strides, sizes = geometry.window, geometry.strides, geometry.sizes
    *_, channels, features = kernel.shape
    # Element s * place + part of x, counted from the padding, is part `part` of place `place`.
    places = tuple(
        max(-(-(low + size) // stride), 1) for size, stride, (low, _) in zip(sizes, strides, geometry.padding)
    )
    most = tuple(-(-size // stride) for size, stride in zip(window, strides))
    cut = pad(kernel, [*((0, tap * stride - size) for tap, stride, size in zip(most, strides, window)), (0, 0), (0, 0)])
    cut = cut.reshape(most[0], strides[0], most[1], strides[1], channels, features)

    def neighbours(tall: tuple[int, int, int], wide: tuple[int, int, int]) -> jax.Array:
        """Some parts of all places, ``(batch, *places, tall parts, wide parts, channels)``."""
        (top, bottom, rows), (left, right, columns) = tall, wide
        shape = (y.shape[0], *places, bottom - top, right - left, channels)
        if not rows * columns:
            return jnp.zeros(shape, y.dtype)
        part = cut[:rows, top:bottom, :columns, left:right].transpose(0, 2, 1, 3, 4, 5)
        padding = tuple((tap - 1, place - out) for tap, place, out in zip((rows, columns), places, geometry.outputs))
        whole = Geometry(geometry.outputs, (rows, columns), (1, 1), padding, (1, 1), 1)
        return product(y, turned(part.reshape(rows, columns, -1, features)), whole).reshape(shape)

    down, across = (
        [(0, more, tap), (more, stride, tap - 1)] if apart and (more := size % stride) else [(0, stride, tap)]
        for size, stride, tap in zip(window, strides, most)
    )
    x = jnp.concatenate([jnp.concatenate([neighbours(tall, wide) for wide in across], 4) for tall in down], 3)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, places[0] * strides[0], places[1] * strides[1], channels)
    ends = [
        (-low, size + low - place * stride)
        for size, stride, place, (low, _) in zip(sizes, strides, places, geometry.padding)
    ]
    return pad(x, [(0, 0), *ends, (0, 0)])


def chunked(product: Product, images: int) -> Product:
    """The sum of a kernel's product over chunks of so many images, so that what it copies stays in the cache."""

    def summed(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
        batch = x.shape[0]
        whole = batch // images
        if whole < 2:
            return product(x, y, geometry)
        cut = lambda array: array[: whole * images].reshape(whole, images, *array.shape[1:])
        zeros = jnp.zeros(geometry.shape_of("kernel", x.shape, y.shape), x.dtype)
        kernel, _ = lax.scan(lambda part, both: (part + product(*both, geometry), None), zeros, (cut(x), cut(y)))
        rest = whole * images
        return kernel if rest == batch else kernel + product(x[rest:], y[rest:], geometry)

    return summed


def split_kernel(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product of columns beneath the window's width with rows of y shifted by its height.

    Strides along the height must be 1.
    """
    height, width = geometry.window
    (step, across), (_, stride) = geometry.dilation, geometry.strides
    _, places, columns, features = y.shape
    x = pad(x, [(0, 0), *geometry.padding, (0, 0)])
    channels = x.shape[-1]
    neighbours = jnp.stack(
        [x[:, :, i * across : i * across + (columns - 1) * stride + 1 : stride] for i in range(width)], -2
    )
    shifted = jnp.stack(
        [pad(y, [(0, 0), (i * step, x.shape[1] - places - i * step), (0, 0), (0, 0)]) for i in range(height)], -2
    )
    product = inner(neighbours.reshape(-1, width * channels), shifted.reshape(-1, height * features))
    return product.reshape(width, channels, height, features).transpose(2, 0, 1, 3)


def taps_kernel(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product of all that lies beneath each element of the window with y; for one channel."""
    x = pad(x, [(0, 0), *geometry.padding, (0, 0)])
    taps = jnp.stack([beneath(x, place, geometry) for place in np.ndindex(*geometry.window)])
    return (taps.reshape(len(taps), -1) @ y.reshape(-1, y.shape[-1])).reshape(*geometry.window, 1, y.shape[-1])


def inner(a: jax.Array, b: jax.Array) -> jax.Array:
    """``a.T @ b``, with the wider of the two last: XLA:CPU is up to twice as fast at that."""
    return jnp.einsum("na,nb->ba", a, b).T if a.shape[1] > b.shape[1] else jnp.einsum("na,nb->ab", a, b)


def total(terms: Iterable[jax.Array]) -> jax.Array:
    """The sum of arrays."""
    return functools.reduce(jnp.add, terms)


def pad(x: jax.Array, padding: list[tuple[int, int]]) -> jax.Array:
    """Zeros before and after each axis; negative numbers take elements away."""
    return lax.pad(x, np.zeros((), x.dtype), [(*pair, 0) for pair in padding])


def depthwise_y(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The sum of what lies beneath each element of the window times that element: for one channel in each group."""
    x = pad(x, [(0, 0), *geometry.padding, (0, 0)])
    kernel = kernel.reshape(*geometry.window, geometry.groups, -1)
    y = total(beneath(x, place, geometry)[..., None] * kernel[place] for place in np.ndindex(*geometry.window))
    return y.reshape(*y.shape[:-2], -1)


def depthwise_x(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The transpose of `depthwise_y`, for each feature of a channel by itself."""
    spec = jax.ShapeDtypeStruct((y.shape[0], *geometry.sizes, geometry.groups), y.dtype)
    multiplier = y.shape[-1] // geometry.groups

    def of_feature(number: int) -> jax.Array:
        convolve = lambda x: depthwise_y(x, kernel[..., number::multiplier], geometry)
        return jax.linear_transpose(convolve, spec)(y[..., number::multiplier])[0]

    return total(map(of_feature, range(multiplier)))


def depthwise_kernel(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    """Sums of products with y of what lies beneath each element of the window, for one feature of each channel."""
    x = pad(x, [(0, 0), *geometry.padding, (0, 0)])
    axes = tuple(range(x.ndim - 1))
    taps = [jnp.sum(beneath(x, place, geometry) * y, axes) for place in np.ndindex(*geometry.window)]
    return jnp.stack(taps).reshape(*geometry.window, 1, -1)


def grouped(product: Product) -> Product:
    """A product of one group after the other."""

    def mapped(a: jax.Array, b: jax.Array, geometry: Geometry) -> jax.Array:
        part = geometry._replace(groups=1)
        split = lambda array: jnp.moveaxis(array.reshape(*array.shape[:-1], geometry.groups, -1), -2, 0)
        c = lax.map(lambda pair: product(pair[0], pair[1], part), (split(a), split(b)))
        return jnp.moveaxis(c, 0, -2).reshape(*c.shape[1:-1], -1)

    return mapped
