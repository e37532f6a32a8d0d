from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fnn.ops.convolution import convolve, convolve_transpose
from fnn.ops.windows import Padding

# x, window, features, strides, padding, dilation, groups
Case = tuple[tuple[int, ...], tuple[int, ...], int, Any, Padding, Any, int]

CASES: dict[str, Case] = {
    "same": ((2, 5, 4, 3), (3, 3), 2, 1, "SAME", 1, 1),
    "valid": ((2, 5, 4, 3), (3, 2), 2, 1, "VALID", 1, 1),
    "even window": ((1, 5, 4, 2), (2, 4), 2, 1, "SAME", 1, 1),
    "strided": ((2, 7, 6, 2), (3, 3), 4, (2, 3), "SAME", 1, 1),
    "strides beyond the window": ((2, 8, 7, 2), (1, 2), 2, 3, "VALID", 1, 1),
    "dilated": ((1, 9, 8, 2), (3, 2), 2, 1, "SAME", (2, 3), 1),
    "dilated and strided": ((1, 9, 2), (3,), 2, 2, 2, 3, 1),
    "grouped": ((2, 5, 4, 6), (3, 3), 4, 1, "SAME", 1, 2),
    "depthwise": ((2, 5, 4, 3), (3, 3), 6, 2, 1, 1, 3),
    "pairs": ((1, 4, 5, 2), (3, 3), 2, 1, ((2, 0), 1), 1, 1),
    "sequence": ((3, 6, 2), (3,), 4, 1, ((2, 0),), 1, 1),
    "volume": ((1, 3, 4, 3, 2), (2, 3, 2), 2, (1, 2, 1), "SAME", 1, 1),
    "one by one": ((2, 3, 4, 3), (1, 1), 5, 1, "SAME", 1, 1),
    "one by one, strided": ((2, 5, 4, 3), (1, 1), 5, 2, "SAME", 1, 1),
    "one by one, padded": ((2, 3, 4, 3), (1, 1), 5, 1, 1, 1, 1),
    "one by one, grouped": ((2, 3, 4, 4), (1, 1), 6, 1, "VALID", 1, 2),
    "no examples": ((0, 5, 4, 3), (3, 3), 2, 1, "SAME", 1, 1),
    "no examples, one by one": ((0, 5, 4, 3), (1, 1), 2, 1, "SAME", 1, 1),
}
in_every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def operands(case: Case) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    shape, window, features, strides, padding, dilation, groups = case
    options = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    return normal(*shape), normal(*window, shape[-1] // groups, features, seed=1), options


def tuples(case: Case) -> tuple[tuple[int, ...], tuple[int, ...], list[int]]:
    """Strides, dilation and extents of a case, by axis."""
    _, window, _, strides, _, dilation, _ = case
    strides, dilation = (v if isinstance(v, tuple) else (v,) * len(window) for v in (strides, dilation))
    return strides, dilation, [(size - 1) * step + 1 for size, step in zip(window, dilation)]


def grouped(x: np.ndarray, kernel: np.ndarray, groups: int) -> np.ndarray:
    """Multiply the last axis by one tap of the kernel, ``(channels // groups, features)``, in groups."""
    parts = zip(np.split(x, groups, axis=-1), np.split(kernel, groups, axis=-1))
    return np.concatenate([part @ tap for part, tap in parts], axis=-1)


def zeros_around(padding: Any, sizes: Any, extents: Any, strides: Any) -> list[tuple[int, int]]:
    if isinstance(padding, str):
        return list(lax.padtype_to_pads(sizes, extents, strides, padding))
    pairs = padding if isinstance(padding, tuple) else (padding,) * len(sizes)
    return [(pair, pair) if isinstance(pair, int) else pair for pair in pairs]


def convolve_by_loops(case: Case) -> np.ndarray:
    x, kernel, options = operands(case)
    strides, _, extents = tuples(case)
    x = np.pad(x, [(0, 0), *zeros_around(case[4], x.shape[1:-1], extents, strides), (0, 0)])
    return slide(x, kernel, options, case)


def slide(x: np.ndarray, kernel: np.ndarray, options: dict[str, Any], case: Case) -> np.ndarray:
    """Slide the window over an x that is padded."""
    strides, dilation, extents = tuples(case)
    sizes = [(size - extent) // stride + 1 for size, extent, stride in zip(x.shape[1:-1], extents, strides)]
    y = np.zeros((x.shape[0], *sizes, kernel.shape[-1]), x.dtype)
    for place in np.ndindex(*sizes):
        for tap in np.ndindex(*kernel.shape[:-2]):
            at = tuple(p * stride + t * step for p, stride, t, step in zip(place, strides, tap, dilation))
            y[(slice(None), *place)] += grouped(x[(slice(None), *at)], kernel[tap], options["groups"])
    return y


@in_every_case
def test_a_convolution_is_its_loops(case: Case) -> None:
    x, kernel, options = operands(case)
    y = convolve(jnp.asarray(x), jnp.asarray(kernel), **options)
    np.testing.assert_allclose(y, convolve_by_loops(case), rtol=1e-4, atol=1e-5)


@in_every_case
def test_a_convolution_is_bilinear_in_both_modes(case: Case) -> None:
    x, kernel, options = operands(case)
    x_dot, kernel_dot = normal(*x.shape, seed=2), normal(*kernel.shape, seed=3)
    f = lambda x, kernel: convolve(x, kernel, **options)
    y, y_dot = jax.jvp(f, (x, kernel), (x_dot, kernel_dot))
    np.testing.assert_allclose(y_dot, f(x_dot, kernel) + f(x, kernel_dot), rtol=1e-4, atol=1e-4)
    weight = normal(*y.shape, seed=4)
    x_grad, kernel_grad = jax.vjp(f, x, kernel)[1](weight)
    paired = np.vdot(x_grad, x_dot) + np.vdot(kernel_grad, kernel_dot)
    np.testing.assert_allclose(paired, np.vdot(weight, y_dot), rtol=1e-3, atol=1e-3)


MODES: dict[str, Any] = {"CAUSAL": "constant", "REFLECT": "reflect", "CIRCULAR": "wrap"}


@pytest.mark.parametrize(
    ("padding", "shape", "window", "strides", "dilation", "groups"),
    [
        ("CAUSAL", (2, 7, 4), (3,), 2, 2, 2),
        ("CAUSAL", (2, 2, 4), (4,), 1, 1, 1),
        ("REFLECT", (2, 6, 7, 4), (3, 4), 1, 1, 1),
        ("REFLECT", (2, 6, 7, 4), (3, 2), (2, 3), (2, 1), 4),
        ("CIRCULAR", (2, 6, 7, 4), (3, 4), 1, 1, 1),
        ("CIRCULAR", (2, 6, 7, 4), (3, 2), (2, 3), (2, 1), 4),
        ("CIRCULAR", (2, 2, 4), (7,), 1, 1, 1),
        ("CIRCULAR", (0, 5, 4), (3,), 1, 1, 1),
        ("REFLECT", (0, 5, 4), (3,), 1, 1, 1),
    ],
)
def test_padding_modes_are_those_of_numpy(
    padding: str, shape: Any, window: Any, strides: Any, dilation: Any, groups: int
) -> None:
    case = (shape, window, 4, strides, "VALID", dilation, groups)
    _, _, extents = tuples(case)
    pairs = [(extent - 1, 0) if padding == "CAUSAL" else ((extent - 1) // 2, extent // 2) for extent in extents]
    x, kernel, options = operands(case)
    padded = np.pad(x, [(0, 0), *pairs, (0, 0)], MODES[padding])
    got = convolve(jnp.asarray(x), jnp.asarray(kernel), **{**options, "padding": padding})
    assert got.shape[1:-1] == tuple(-(-size // stride) for size, stride in zip(shape[1:-1], tuples(case)[0]))
    np.testing.assert_allclose(got, slide(padded, kernel, options, case), rtol=1e-4, atol=1e-5)


TRANSPOSED: dict[str, Case] = {
    "doubled": ((2, 3, 4, 3), (4, 4), 2, 2, "SAME", 1, 1),
    "doubled, odd window": ((2, 3, 4, 3), (3, 3), 2, 2, "SAME", 1, 1),
    "valid": ((2, 3, 4, 3), (3, 2), 2, (2, 1), "VALID", 1, 1),
    "strides beyond the window": ((1, 3, 2), (2,), 2, 4, "SAME", 1, 1),
    "strides beyond the window, valid": ((1, 3, 2), (2,), 2, 4, "VALID", 1, 1),
    "dilated": ((1, 4, 3, 2), (3, 2), 2, 2, "SAME", (2, 3), 1),
    "cut": ((1, 4, 3, 2), (4, 3), 2, 2, 1, 1, 1),
    "cut unequally": ((1, 4, 3, 2), (3, 3), 2, 2, ((1, 0), (0, 2)), 1, 1),
    "cut beyond the window": ((1, 6, 2), (2,), 2, 3, 3, 1, 1),
    "grouped": ((2, 3, 4, 4), (3, 3), 6, 2, "SAME", 1, 2),
    "volume": ((1, 2, 3, 2, 2), (2, 3, 2), 2, (2, 1, 2), "SAME", 1, 1),
}


def convolve_transpose_by_loops(case: Case) -> np.ndarray:
    """Put flipped kernels into the full output, then cut or fill to the documented size."""
    x, kernel, options = operands(case)
    strides, dilation, extents = tuples(case)
    full = [(size - 1) * stride + extent for size, stride, extent in zip(x.shape[1:-1], strides, extents)]
    y = np.zeros((x.shape[0], *full, kernel.shape[-1]), x.dtype)
    for place in np.ndindex(*x.shape[1:-1]):
        for tap in np.ndindex(*kernel.shape[:-2]):
            at = tuple(p * stride + t * step for p, stride, t, step in zip(place, strides, tap, dilation))
            flipped = tuple(size - 1 - t for size, t in zip(kernel.shape, tap))
            y[(slice(None), *at)] += grouped(x[(slice(None), *place)], kernel[flipped], options["groups"])
    for axis, (size, stride, total) in enumerate(zip(x.shape[1:-1], strides, full), start=1):
        low, high = cut(case[4], axis, total, size * stride)
        y = np.pad(y, [(0, max(-high, 0) if a == axis else 0) for a in range(y.ndim)])
        y = np.take(y, range(low, total - high), axis=axis)
    return y


def cut(padding: Padding, axis: int, total: int, grown: int) -> tuple[int, int]:
    if padding == "SAME":
        low = max(total - grown, 0) // 2
        return low, total - grown - low
    if isinstance(padding, str):
        return 0, min(total - grown, 0)
    one = padding if isinstance(padding, int) else padding[axis - 1]
    return (one, one) if isinstance(one, int) else one


@pytest.mark.parametrize("case", TRANSPOSED.values(), ids=TRANSPOSED)
def test_a_transposed_convolution_is_its_loops(case: Case) -> None:
    x, kernel, options = operands(case)
    y = convolve_transpose(jnp.asarray(x), jnp.asarray(kernel), **options)
    np.testing.assert_allclose(y, convolve_transpose_by_loops(case), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("window", "strides"), [((4, 3), (2, 2)), ((2, 1), (3, 2)), ((3, 2), (1, 1))])
def test_padding_by_name_is_that_of_lax_and_flax(
    window: tuple[int, int], strides: tuple[int, int], padding: str
) -> None:
    x, kernel = normal(2, 3, 4, 2), normal(*window, 2, 3, seed=1)
    got = convolve_transpose(jnp.asarray(x), jnp.asarray(kernel), strides=strides, padding=padding)
    np.testing.assert_allclose(
        got, lax.conv_transpose(jnp.asarray(x), jnp.asarray(kernel), strides, padding), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("padding", "sizes"), [("SAME", (6, 9)), ("VALID", (7, 10)), (1, (5, 8)), (((0, 1), (2, 1)), (6, 7))]
)
def test_it_is_the_transpose_of_the_strided_convolution(padding: Padding, sizes: tuple[int, int]) -> None:
    kernel = jnp.asarray(normal(3, 4, 3, 2))
    strided = lambda y: convolve(y, kernel[::-1, ::-1].swapaxes(2, 3), strides=(2, 3), padding=padding)
    x = normal(2, 3, 3, 3, seed=1)
    (wanted,) = jax.vjp(strided, jnp.zeros((2, *sizes, 2)))[1](x)
    got = convolve_transpose(jnp.asarray(x), kernel, strides=(2, 3), padding=padding)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [convolve, convolve_transpose])
def test_the_result_has_the_dtype_of_the_input(function: Any) -> None:
    kernel = jnp.asarray(normal(3, 2, 4))
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        assert function(jnp.ones((1, 5, 2), dtype), kernel).dtype == dtype
        assert function(jnp.ones((1, 5, 2), dtype), kernel[:1]).dtype == dtype


def test_convolutions_work_under_vmap_over_inputs_and_kernels() -> None:
    xs, kernels = normal(3, 2, 5, 4, 2), normal(3, 3, 3, 2, 4, seed=1)
    for function in (convolve, convolve_transpose):
        f = lambda x, kernel, function=function: function(x, kernel, strides=2)
        wanted = np.stack([f(jnp.asarray(x), jnp.asarray(kernel)) for x, kernel in zip(xs, kernels)])
        np.testing.assert_allclose(jax.vmap(f)(xs, kernels), wanted, rtol=1e-4, atol=1e-5)
        shared = np.stack([f(jnp.asarray(xs[0]), jnp.asarray(kernel)) for kernel in kernels])
        np.testing.assert_allclose(jax.vmap(f, (None, 0))(xs[0], kernels), shared, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        ((1, 2, 1), {"padding": "VALID"}, "the window spans 3 and axis 1 of x has size 2; use a smaller window"),
        ((1, 2, 1), {"padding": 1, "dilation": 3}, r"spans 7 and axis 1 of x has size 4 \(2 with padding 1 and 1\)"),
        ((1, 0, 1), {}, "axis 1 of x is empty"),
        ((1, 0, 1), {"padding": "CIRCULAR"}, "axis 1 of x is empty"),
        (
            (1, 2, 1),
            {"padding": "REFLECT", "dilation": 2},
            "mirrors 2 and 2 elements at the ends of axis 1 of x, which has size 2; use a window that spans at most 3",
        ),
        ((1, 4, 2), {}, "x has 2 channels and the kernel was made for 1"),
    ],
)
def test_an_input_that_does_not_fit_the_kernel_raises(x: tuple[int, ...], options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convolve(jnp.ones(x), jnp.ones((3, 1, 1)), **options)


def test_a_cut_that_leaves_nothing_raises() -> None:
    with pytest.raises(ValueError, match="nothing is left of axis 1: its full size is 4 and padding cuts off 2 and 2"):
        convolve_transpose(jnp.ones((1, 2, 1)), jnp.ones((3, 1, 1)), padding=2)
    with pytest.raises(ValueError, match="nothing is left of axis 1"):
        convolve_transpose(jnp.ones((1, 0, 1)), jnp.ones((3, 1, 1)))


@pytest.mark.parametrize("function", [convolve, convolve_transpose])
def test_integers_raise(function: Any) -> None:
    with pytest.raises(TypeError, match=r"x is uint8, wanted a floating dtype.*/ 255 for pixels"):
        function(jnp.ones((1, 4, 1), jnp.uint8), jnp.ones((3, 1, 1)))


@pytest.mark.parametrize(
    ("window", "strides"), [((3, 3), (2, 2)), ((5, 4), (2, 3)), ((4, 4), (2, 2)), ((2, 3), (3, 2))]
)
@pytest.mark.parametrize(("channels", "features"), [(16, 16), (2, 3)])
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_an_infinite_pixel_reaches_only_the_outputs_whose_window_holds_it(
    window: Any, strides: Any, channels: int, features: int, bad: float
) -> None:
    # With strides, zeros were multiplied with it, and so it spread one element further.
    x, kernel = normal(2, 4, 4, channels), np.abs(normal(*window, channels, features, seed=1)) + 0.1
    up = lambda x: convolve_transpose(x, jnp.asarray(kernel), strides=strides, padding="VALID")
    down = lambda x: convolve(x, jnp.asarray(kernel[::-1, ::-1].swapaxes(2, 3)), strides=strides, padding="VALID")
    outputs = jax.eval_shape(up, jax.ShapeDtypeStruct(x.shape, x.dtype))
    gradient = lambda g: jax.vjp(down, jnp.zeros(outputs.shape))[1](g)[0]
    spoiled = x.copy()
    spoiled[0, 1, 2, 0] = bad
    expected = np.zeros(outputs.shape, bool)
    expected[0, strides[0] :, 2 * strides[1] :][: window[0], : window[1]] = True
    for function in (up, gradient) if min(w - s for w, s in zip(window, strides)) >= 0 else (up,):
        y, clean = jax.jit(function)(spoiled), jax.jit(function)(x)
        np.testing.assert_array_equal(~np.isfinite(y), expected)
        np.testing.assert_allclose(y[~expected], clean[~expected], rtol=1e-5, atol=1e-5)
