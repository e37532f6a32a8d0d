"""The products of a convolution as `jax.lax` writes them, and the geometry that ties their shapes together."""

from typing import NamedTuple

import jax
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


def plain_product(of: str, a: jax.Array, b: jax.Array, geometry: Geometry) -> jax.Array:
    """One product of a convolution by `jax.lax.conv_general_dilated` and its transposes; see `conv_product`."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            geometry.strides,
            geometry.padding,
            rhs_dilation=geometry.dilation,
            dimension_numbers=channels_last(len(geometry.window)),
            feature_group_count=geometry.groups,
        )

    if of == "y":
        return convolve(a, b)
    spec = jax.ShapeDtypeStruct(geometry.shape_of(of, a.shape, b.shape), a.dtype)
    if of == "x":
        return jax.linear_transpose(lambda x: convolve(x, b), spec)(a)[0]
    return jax.linear_transpose(lambda kernel: convolve(a, kernel), spec)(b)[0]
