"""Windows that slide over space: their padding, their places, and the checks of both."""

import math
from collections.abc import Sequence
from typing import Any

from fnn.ops.checks import check_positive_int

BY_NAME = ("SAME", "VALID")  # what padding may be called anywhere
CONV_BY_NAME = (*BY_NAME, "CAUSAL", "REFLECT", "CIRCULAR")  # and of a convolution, in the spelling of Flax

Padding = str | int | Sequence[int | tuple[int, int]]
Pairs = tuple[tuple[int, int], ...]

_AXES = {1: "time", 2: "height, width", 3: "depth, height, width"}


def resolve_padding(
    padding: Padding, sizes: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...]
) -> Pairs:
    """Turn ``padding`` into the pair of zeros, or elements, before and after each spatial axis.

    Args:
        padding: ``"VALID"``: none. ``"SAME"``: as many as make the output ``ceil(size / stride)`` long, the odd one at
            the end. ``"CAUSAL"``: as many as the window has elements but one, all before the only axis. An int: at both
            ends of every axis. A sequence: an int or a pair ``(low, high)`` for each axis.
        sizes: Sizes of the spatial axes.
        window: Extents of the window, with its dilation.
        strides: Steps of the window.

    Returns:
        A pair for each axis.
    """
    padding = check_padding(padding, len(window), (*BY_NAME, "CAUSAL"))
    if padding == "VALID":
        return ((0, 0),) * len(window)
    if padding == "CAUSAL":
        return ((window[0] - 1, 0),)
    if not isinstance(padding, str):
        return padding
    totals = [
        max((-(-size // stride) - 1) * stride + extent - size, 0)
        for size, extent, stride in zip(sizes, window, strides)
    ]
    return tuple((total // 2, total - total // 2) for total in totals)


def output_sizes(
    sizes: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...], pairs: Pairs
) -> tuple[int, ...]:
    """Count the places of a window along each spatial axis; raise where there is none."""
    for axis, (size, extent, (low, high)) in enumerate(zip(sizes, window, pairs), start=1):
        if size < 1:
            raise ValueError(f"axis {axis} of x is empty, wanted at least one element")
        if extent > size + low + high:
            padded = f" ({size} with padding {low} and {high})" if low or high else ""
            raise ValueError(
                f"the window spans {extent} and axis {axis} of x has size {size + low + high}{padded}; use a smaller "
                'window, more padding (padding="SAME") or a larger x'
            )
    return tuple(
        (size + low + high - extent) // stride + 1
        for size, extent, stride, (low, high) in zip(sizes, window, strides, pairs)
    )


def dilated(window: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """Extents of a window whose elements are ``dilation`` apart."""
    return tuple((size - 1) * step + 1 for size, step in zip(window, dilation))


def per_axis(name: str, value: int | tuple[int, ...], space: int) -> tuple[int, ...]:
    """Give every spatial axis its own positive int."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * space
    if len(values) != space:
        raise ValueError(f"{name} has {len(values)} entries and the window {space}; give one int, or one for each axis")
    for one in values:
        check_positive_int(name, one)
    return values


def check_window(window: Any) -> None:
    """Raise unless ``window`` is a tuple of positive ints."""
    sizes = window if isinstance(window, tuple) else ()
    if not sizes or not all(hasattr(size, "__index__") and size > 0 and size is not True for size in sizes):
        raise ValueError(
            f"window must be a tuple of positive ints, one for each spatial axis, got {window!r}; "
            "write (3,) for sequences, (3, 3) for images"
        )


def check_padding(
    padding: Any, space: int, names: Sequence[str] = BY_NAME, *, may_be_negative: bool = False
) -> str | Pairs:
    """Raise unless ``padding`` is one of ``names`` or made of ints; write ints out as pairs."""
    named = ", ".join(f'"{name}"' for name in names) + ", an int, or pairs (low, high)"
    if isinstance(padding, str):
        if padding not in names:
            raise ValueError(f"padding must be {named}, got {padding!r}")
        if padding == "CAUSAL" and space != 1:
            raise ValueError(
                f'padding="CAUSAL" is for windows with one axis, and this one has {space}; '
                "write the zeros before and after each axis: padding=[(2, 0), (1, 1)]"
            )
        return padding
    entries = tuple(padding) if isinstance(padding, tuple | list) else (padding,) * space
    pairs = tuple(tuple(entry) if isinstance(entry, tuple | list) else (entry, entry) for entry in entries)
    if len(pairs) != space:
        raise ValueError(
            f"padding has {len(pairs)} entries and the window {space} axes, got {padding!r}; "
            f"give one int, or a pair (low, high) for each axis: {((1, 1),) * space}"
        )
    for pair in pairs:
        if len(pair) != 2 or not all(hasattr(side, "__index__") and not isinstance(side, bool) for side in pair):
            raise ValueError(f"padding must be {named}, got {padding!r}")
        if min(pair) < 0 and not may_be_negative:
            raise ValueError(f"padding must not be negative, got {padding!r}; crop x in place of it: x[:, 1:-1]")
    return pairs


def check_geometry(
    window: Any,
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    dilation: int | tuple[int, ...] = 1,
    *,
    names: Sequence[str] = BY_NAME,
    may_be_negative: bool = False,
) -> None:
    """Raise unless window, strides, padding and dilation fit together, whatever x will be."""
    check_window(window)
    per_axis("strides", strides, len(window))
    per_axis("dilation", dilation, len(window))
    check_padding(padding, len(window), names, may_be_negative=may_be_negative)


def check_rank(x: Any, space: int) -> None:
    """Raise unless ``x`` has a batch axis, ``space`` spatial axes and channels."""
    rank = len(x.shape)
    if rank == space + 2:
        return
    if rank == space + 1:
        fix = "add the channel axis, x[..., None], or the batch axis, x[None]"
    elif rank > space + 2:
        fix = f"give the window {rank - 2} entries, or join leading axes, x.reshape(-1, *x.shape[-{space + 1}:])"
    else:
        fix = "reshape it, as fnn.reshape does"
    wanted = f"(batch, {_AXES.get(space, '*space')}, channels)"
    raise ValueError(f"x has {rank} axes, wanted {space + 2} for this window: {wanted}; {fix}")


def check_groups(channels: int, features: int, groups: int) -> None:
    """Raise unless ``groups`` is a positive int that divides the channels and the features."""
    check_positive_int("groups", groups)
    for what, size in (("x has {} channels", channels), ("features is {}", features)):
        if size % groups:
            common = math.gcd(channels, features)
            divisors = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
            raise ValueError(
                f"{what.format(size)}, which groups={groups} does not divide; groups that divide {channels} channels "
                f"and {features} features: {divisors}"
            )
