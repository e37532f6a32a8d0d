"""The products of a convolution as `jax.lax` writes them, and the geometry that ties their shapes together."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import lax

from fnn.ops.windows import Pairs, dilated


class Geometry(NamedTuple):
    """A convolution without its batch, channels and features.

    Attributes:
        sizes: Sizes of the spatial axes of x.
        window: Number of elements of the kernel along each of them.
        strides: Steps of the window.
        padding: Zeros before and after x along each axis; a negative number takes elements away.
        dilation: Distance between neighbouring elements of the window.
        groups: Number of equal parts of the channels.
    """

    sizes: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    groups: int

    @property
    def extents(self) -> tuple[int, ...]:
        """Extents of the window, with its dilation."""
        return dilated(self.window, self.dilation)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Sizes of the spatial axes of y."""
        return tuple(
            (size + low + high - extent) // stride + 1
            for size, (low, high), extent, stride in zip(self.sizes, self.padding, self.extents, self.strides)
        )

    def shape_of(self, product: str, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of ``"y"``, ``"x"`` or ``"kernel"``, given those of the other two in the order x, y, kernel."""
        if product == "y":
            return (a[0], *self.outputs, b[-1])
        if product == "x":
            return (a[0], *self.sizes, b[-2] * self.groups)
        return (*self.window, a[-1] // self.groups, b[-1])


def channels_last(space: int) -> lax.ConvDimensionNumbers:
    """Images ``(batch, *space, channels)`` and kernels ``(*space, channels, features)``."""
    axes = tuple(range(1, space + 1))
    image = (0, space + 1, *axes)
    return lax.ConvDimensionNumbers(image, (space + 1, space, *range(space)), image)


def lax_convolution(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    padding: Sequence[tuple[int, int]],
    *,
    lhs_dilation: tuple[int, ...] | None = None,
    rhs_dilation: tuple[int, ...] | None = None,
    groups: int = 1,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, channels last, for any padding.

    XLA:CPU reads outside of x where padding is negative (jax 0.10.2), so that x is cropped before. Its derivatives by
    JAX may ask for negative padding again; `plain_product` does not.
    """
    if any(min(pair) < 0 for pair in padding):
        steps = lhs_dilation or (1,) * len(padding)
        config = [(0, 0, 0), *((*pair, step - 1) for pair, step in zip(padding, steps)), (0, 0, 0)]
        x = lax.pad(x, np.zeros((), x.dtype), config)
        padding, lhs_dilation = [(0, 0)] * len(padding), None
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=channels_last(kernel.ndim - 2),
        feature_group_count=groups,
    )


def plain_product(of: str, a: jax.Array, b: jax.Array, geometry: Geometry) -> jax.Array:
    """One product of a convolution by `jax.lax.conv_general_dilated` and its transposes; see `conv_product`."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x, padding = _fit(x, geometry)
        return lax_convolution(
            x, kernel, geometry.strides, padding, rhs_dilation=geometry.dilation, groups=geometry.groups
        )

    if of == "y":
        return convolve(a, b)
    spec = jax.ShapeDtypeStruct(geometry.shape_of(of, a.shape, b.shape), a.dtype)
    if of == "x":
        return jax.linear_transpose(lambda x: convolve(x, b), spec)(a)[0]
    return jax.linear_transpose(lambda kernel: convolve(a, kernel), spec)(b)[0]


def _fit(x: jax.Array, geometry: Geometry) -> tuple[jax.Array, Pairs]:
    """Crop or pad x where a derivative of its convolution, of any order, would need negative padding.

    With ``low`` and ``high`` zeros around x, JAX pads by ``extent - 1 - low`` in the gradient with respect to x, by
    ``high`` less the elements at the end that no window reaches in that with respect to the kernel, and by ``size + low
    - extent`` in derivatives of these; likewise at the other end.
    """
    fits = True
    pairs = []
    for size, extent, stride, out, (low, high) in zip(
        geometry.sizes, geometry.extents, geometry.strides, geometry.outputs, geometry.padding
    ):
        high -= size + low + high - extent - (out - 1) * stride  # elements that no window reaches
        pairs.append((low, high))
        fits &= all(0 <= side < extent <= size + side for side in (low, high))
    if fits:
        return x, tuple(pairs)
    config = [(0, 0, 0), *((*pair, 0) for pair in pairs), (0, 0, 0)]
    return lax.pad(x, np.zeros((), x.dtype), config), ((0, 0),) * len(pairs)
