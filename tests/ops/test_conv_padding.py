"""Convolutions whose padding crops x, or exceeds the window, against one sum of products in float64."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.ops.conv_plain import Geometry, plain_product
from fnn.ops.conv_products import conv_product
from fnn.ops.convolution import convolve, convolve_transpose

NAMES = {"x": "nhwgc", "kernel": "ijcgf", "y": "npqgf"}
OPERANDS = {"y": ("x", "kernel"), "x": ("y", "kernel"), "kernel": ("x", "y")}


def elements(size: int, window: int, stride: int, pair: tuple[int, int], dilation: int) -> np.ndarray:
    """Which element of x lies beneath which element of the window: ``(places, window, size)``, zeros and ones."""
    low, high = pair
    places = (size + low + high - (window - 1) * dilation - 1) // stride + 1
    beneath = np.zeros((places, window, size))
    for place, tap in np.ndindex(places, window):
        at = place * stride + tap * dilation - low
        if 0 <= at < size:
            beneath[place, tap, at] = 1
    return beneath


def written_out(of: str, a: Any, b: Any, geometry: Geometry, einsum: Callable[..., Any] = np.einsum) -> Any:
    """One product of a convolution over one or two axes as a sum over all elements of x and of the window."""
    axes = zip(geometry.sizes, geometry.window, geometry.strides, geometry.padding, geometry.dilation)
    down, across = (*(elements(*axis) for axis in axes), np.ones((1, 1, 1)))[:2]

    def split(name: str, array: Any) -> Any:
        space = array.shape[:-2] if name == "kernel" else array.shape[1:-1]
        space = (*space, 1)[:2]
        if name == "kernel":
            return array.reshape(*space, array.shape[-2], geometry.groups, -1)
        return array.reshape(len(array), *space, geometry.groups, -1)

    given = [split(name, array) for name, array in zip(OPERANDS[of], (a, b))]
    first, second = (NAMES[name] for name in OPERANDS[of])
    c = einsum(f"{first},{second},pih,qjw->{NAMES[of]}", *given, down, across, optimize="optimal")
    return c.reshape(geometry.shape_of(of, a.shape, b.shape))


def all_products(operands: dict[str, Any], geometry: Geometry) -> tuple[Any, ...]:
    """The output and both gradients of a convolution, in float64."""
    double = {name: np.float64(array) for name, array in operands.items()}
    pairs = {of: [double[name] for name in OPERANDS[of]] for of in ("y", "x", "kernel")}
    return tuple(written_out(of, a, b, geometry) for of, (a, b) in pairs.items())


def arrays(geometry: Geometry, channels: int, features: int, batch: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "x": (batch, *geometry.sizes, channels),
        "kernel": (*geometry.window, channels // geometry.groups, features),
        "y": (batch, *geometry.outputs, features),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def close(got: Any, wanted: Any) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(np.float64(a), b, atol=3e-6 * (1 + np.abs(b).max(initial=0)))


def pairs(extent: int, size: int) -> list[tuple[int, int]]:
    """From -2 to more than the window at both ends, such that there is a place for the window."""
    highs = (-2, extent + 3, 0, -1, extent - 1)
    rotated = [(low, highs[(low + turn) % 5]) for low in range(-2, extent + 4) for turn in range(2)]
    return [(low, high) for low, high in rotated if size + low + high >= extent]


def geometries(name: str) -> tuple[list[Geometry], int, int]:
    """Geometries of all paddings, channels and features."""
    strides, dilation = (1, 2)["strided" in name], (1, 2)["dilated" in name]
    groups = 3 if "depthwise" in name else 1
    window, sizes = ((3,), (5,)) if "sequence" in name else ((3, 2), (5, 3))
    extents = tuple((size - 1) * dilation + 1 for size in window)
    found = []
    for number, pair in enumerate(pairs(extents[0], sizes[0])):
        others = pairs(extents[-1], sizes[-1])
        padding = (pair, others[number % len(others)])[: len(window)]
        found.append(Geometry(sizes, window, (strides,) * len(window), padding, (dilation,) * len(window), groups))
    return found, 3 if groups > 1 else 2, 6 if groups > 1 else 3


KINDS = ["sequence", "strided sequence", "dilated sequence", "strided depthwise sequence"]
KINDS += ["image", "strided image", "dilated image", "depthwise image", "strided dilated image"]


@pytest.mark.parametrize("product", [conv_product, plain_product])
@pytest.mark.parametrize("kind", KINDS)
def test_any_padding_gives_the_convolution_and_its_gradients(kind: str, product: Any) -> None:
    # XLA:CPU reads outside of x where padding is negative, which gradients ask for if padding exceeds the window.
    all_of_them, channels, features = geometries(kind)
    given = [arrays(geometry, channels, features) for geometry in all_of_them]

    @jax.jit
    def run(given: Any) -> Any:
        results = []
        for geometry, mine in zip(all_of_them, given):
            convolved = functools.partial(lambda geometry, x, kernel: product("y", x, kernel, geometry), geometry)
            y, back = jax.vjp(convolved, mine["x"], mine["kernel"])
            results.append((y, *back(mine["y"])))
        return results

    wanted = [all_products(mine, geometry) for geometry, mine in zip(all_of_them, given)]
    close(run(given), wanted)


SMALL = Geometry((2, 5), (3, 2), (1, 2), ((4, 1), (-1, 3)), (1, 1), 1)  # an image that is lower than the window


@pytest.mark.parametrize("product", [conv_product, plain_product])
@pytest.mark.parametrize("of", OPERANDS)
def test_any_padding_gives_derivatives_of_any_order_in_both_modes(of: str, product: Any) -> None:
    # Derivatives of gradients ask for negative padding where x is smaller than the window, too.
    given = arrays(SMALL, 2, 3)
    a, b = (given[name] for name in OPERANDS[of])
    a_dot, b_dot = (np.cos(np.arange(array.size, dtype=np.float32)).reshape(array.shape) for array in (a, b))

    def derivatives(product: Callable[[Any, Any], Any]) -> Any:
        grads = jax.grad(lambda a, b: jnp.sum(jnp.sin(0.1 * product(a, b))), (0, 1))
        backward = lambda a, b: jax.grad(lambda a, b: jnp.vdot(grads(a, b)[0], a_dot), (0, 1))(a, b)
        forward = lambda a, b: jax.jvp(grads, (a, b), (a_dot, b_dot))[1]
        run = lambda a, b: (jax.jvp(product, (a, b), (a_dot, b_dot)), grads(a, b), backward(a, b), forward(a, b))
        return jax.jit(run)(a, b)

    close(
        derivatives(lambda a, b: product(of, a, b, SMALL)),
        derivatives(lambda a, b: written_out(of, a, b, SMALL, jnp.einsum)),
    )


@pytest.mark.parametrize(
    ("size", "window", "padding"),
    [((33,), (4,), ((4, 2),)), ((5, 2), (2, 4), ((3, 3), (6, 0)))],
)
def test_padding_beyond_the_window_is_right_without_jit_too(size: Any, window: Any, padding: Any) -> None:
    # The gradient with respect to x read outside of its array, and held numbers such as 1e31.
    geometry = Geometry(size, window, (1,) * len(size), padding, (1,) * len(size), 1)
    given = arrays(geometry, 5, 4)
    y, back = jax.vjp(lambda x, kernel: convolve(x, kernel, padding=padding), given["x"], given["kernel"])
    close((y, *back(jnp.asarray(given["y"]))), all_products(given, geometry))


@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)])
def test_a_transposed_convolution_may_be_cut_or_extended_anywhere(strides: int, dilation: int) -> None:
    steps, spread = (strides,) * 2, (dilation,) * 2
    rng = np.random.default_rng(1)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 4, 2), (3, 2, 2, 3)))
    full = [(n - 1) * strides + (w - 1) * dilation + 1 for n, w in zip(x.shape[1:3], kernel.shape)]
    cuts = [((low, high), (high, low)) for low, high in ((-2, -1), (0, -2), (2, -1), (-1, 3), (4, -2), (3, 0))]
    cuts = [both for both in cuts if all(n > low + high for n, (low, high) in zip(full, both))]

    @jax.jit
    def run(x: Any, kernel: Any, g: Any) -> Any:
        results = []
        for padding, one in zip(cuts, g):
            f = lambda x, kernel, padding=padding: convolve_transpose(
                x, kernel, strides=strides, dilation=dilation, padding=padding
            )
            y, back = jax.vjp(f, x, kernel)
            results.append((y, *back(one)))
        return results

    wanted, cotangents = [], []
    for padding in cuts:
        sizes = tuple(n - low - high for n, (low, high) in zip(full, padding))
        geometry = Geometry(sizes, kernel.shape[:2], steps, padding, spread, 1)
        g = rng.normal(size=(2, *sizes, 3)).astype(np.float32)
        turned = np.float64(kernel[::-1, ::-1].swapaxes(2, 3))
        y = written_out("x", np.float64(x), turned, geometry)
        x_grad = written_out("y", np.float64(g), turned, geometry)
        kernel_grad = written_out("kernel", np.float64(g), np.float64(x), geometry)[::-1, ::-1].swapaxes(2, 3)
        wanted.append((y, x_grad, kernel_grad))
        cotangents.append(g)
    close(run(x, kernel, cotangents), wanted)
