"""Convolution and its transpose over space.

Every convolution of fnn is computed here. Arrays are channels last, ``(batch, *space, channels)``, and kernels are
``(*window, channels // groups, features)``.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fnn.ops.checks import check_floating
from fnn.ops.conv_cpu import turned
from fnn.ops.conv_plain import Geometry
from fnn.ops.conv_products import conv_product
from fnn.ops.linear import linear
from fnn.ops.windows import (
    Padding,
    Pairs,
    check_groups,
    check_padding,
    check_rank,
    dilated,
    output_sizes,
    per_axis,
    resolve_padding,
)


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> jax.Array:
    """Slide ``kernel`` over the space of ``x``, in the dtype of ``x``.

    Args:
        x: ``(batch, *space, channels)``.
        kernel: ``(*window, channels // groups, features)``.
        strides: Step of the window along each spatial axis.
        padding: See `resolve_padding`. ``"REFLECT"`` and ``"CIRCULAR"`` put elements of x around it in place of zeros:
            mirrored, without the edge itself, or from the other end.
        dilation: Distance between neighbouring elements of the window.
        groups: Number of equal parts of the channels, each of which makes its own part of the features.

    Returns:
        ``(batch, *space', features)``, where ``space'`` is what `output_sizes` returns.
    """
    space = kernel.ndim - 2
    _check_operands(x, kernel, groups)
    strides, dilation = per_axis("strides", strides, space), per_axis("dilation", dilation, space)
    window = dilated(kernel.shape[:-2], dilation)
    if padding in ("REFLECT", "CIRCULAR"):
        x, padding = _surround(x, window, str(padding)), "VALID"
    sizes = x.shape[1:-1]
    pairs = resolve_padding(padding, sizes, window, strides)
    output_sizes(sizes, window, strides, pairs)
    if set(kernel.shape[:-2]) == {1} and set(pairs) == {(0, 0)} and groups == 1:
        steps = (slice(None), *(slice(None, None, stride) for stride in strides))
        return linear(x[steps], kernel.reshape(kernel.shape[-2:]))
    geometry = Geometry(sizes, kernel.shape[:-2], strides, pairs, dilation, groups)
    return conv_product("y", x, kernel.astype(x.dtype), geometry)


def convolve_transpose(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> jax.Array:
    """Put a flipped ``kernel``, weighted by ``x``, at every stride and add up, in the dtype of ``x``.

    Along one axis of size n the sum has the full size ``(n - 1) * strides + (window - 1) * dilation + 1``. ``padding``
    says how much of it is cut off: explicit pairs as they are; ``"SAME"`` leaves ``n * strides``, centred; ``"VALID"``
    leaves it whole. Where strides exceed the dilated window, both strings add zeros at the end, up to ``n * strides``.

    Args:
        x: ``(batch, *space, channels)``.
        kernel: ``(*window, channels // groups, features)``.
        strides: Distance in the output between neighbours in x.
        padding: What is cut off: ``"SAME"``, ``"VALID"``, an int, or one int or pair for each axis. Negative numbers
            add zeros.
        dilation: Distance between neighbouring elements of the window.
        groups: Number of equal parts of the channels, each of which makes its own part of the features.

    Returns:
        ``(batch, *space', features)``.
    """
    space = kernel.ndim - 2
    _check_operands(x, kernel, groups)
    strides, dilation = per_axis("strides", strides, space), per_axis("dilation", dilation, space)
    window = dilated(kernel.shape[:-2], dilation)
    sizes = x.shape[1:-1]
    cuts = _resolve_cuts(padding, window, strides)
    for axis, (size, extent, stride, (low, high)) in enumerate(zip(sizes, window, strides, cuts), start=1):
        full = (size - 1) * stride + extent
        if size < 1 or full - low - high < 1:
            raise ValueError(
                f"nothing is left of axis {axis}: its full size is {max(full, 0)} and padding cuts off {low} and "
                f"{high}; use less padding"
            )
    outputs = tuple(
        (size - 1) * stride + extent - low - high
        for size, extent, stride, (low, high) in zip(sizes, window, strides, cuts)
    )
    geometry = Geometry(outputs, kernel.shape[:-2], strides, cuts, dilation, groups)
    return conv_product("x", x, turned(kernel.astype(x.dtype), groups), geometry)


def _surround(x: jax.Array, window: tuple[int, ...], mode: str) -> jax.Array:
    """Extend each spatial axis by the extent of the window less one, the odd element at the end, with elements of x."""
    pairs = [((extent - 1) // 2, extent // 2) for extent in window]
    for axis, (size, (low, high)) in enumerate(zip(x.shape[1:-1], pairs), start=1):
        if size < 1:
            raise ValueError(f"axis {axis} of x is empty, wanted at least one element")
        if mode == "REFLECT" and size <= high:
            raise ValueError(
                f'padding="REFLECT" mirrors {low} and {high} elements at the ends of axis {axis} of x, which has size '
                f'{size}; use a window that spans at most {2 * size - 1}, or padding="SAME"'
            )
    return jnp.pad(x, [(0, 0), *pairs, (0, 0)], {"REFLECT": "reflect", "CIRCULAR": "wrap"}[mode])


def _resolve_cuts(padding: Padding, window: tuple[int, ...], strides: tuple[int, ...]) -> Pairs:
    padding = check_padding(padding, len(window), may_be_negative=True)
    if not isinstance(padding, str):
        return padding
    excess = [extent - stride for extent, stride in zip(window, strides)]
    if padding == "VALID":
        return tuple((0, min(over, 0)) for over in excess)
    return tuple((max(over, 0) // 2, over - max(over, 0) // 2) for over in excess)


def _check_operands(x: Any, kernel: Any, groups: int) -> None:
    check_rank(x, kernel.ndim - 2)
    check_floating(x)
    check_groups(x.shape[-1], kernel.shape[-1], groups)
    if x.shape[-1] != kernel.shape[-2] * groups:
        raise ValueError(
            f"x has {x.shape[-1]} channels and the kernel was made for {kernel.shape[-2] * groups}; "
            "pass an x like the one that init saw"
        )
