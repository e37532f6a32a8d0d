from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.combinators import serial
from fnn.core.errors import LayerError
from fnn.core.layer import Layer
from fnn.layers.pool import global_max_pool, global_mean_pool, max_pool, mean_pool


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(net: Layer, x: Any) -> jax.Array:
    params, state = net.init(jax.random.key(0), x)
    assert params == state == {}
    y, state = net.apply(params, state, x)
    assert state == {}
    return y


REDUCERS: dict[str, tuple[Callable[..., Layer], Callable[..., Any]]] = {
    "max_pool": (max_pool, np.max),
    "mean_pool": (mean_pool, np.mean),
}
both = pytest.mark.parametrize(("make", "reduce"), REDUCERS.values(), ids=REDUCERS)


@both
def test_places_do_not_overlap_unless_strides_are_given(make: Callable[..., Layer], reduce: Callable[..., Any]) -> None:
    x = normal(2, 6, 9, 4)
    wanted = reduce(x.reshape(2, 3, 2, 3, 3, 4), axis=(2, 4))
    np.testing.assert_allclose(run(make((2, 3)), x), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(make((2, 3), strides=(2, 3)), x), wanted, rtol=1e-5, atol=1e-6)
    wanted = np.stack([reduce(x[:, i : i + 2, j : j + 3], axis=(1, 2)) for i in range(0, 5, 3) for j in range(0, 7, 3)])
    y = run(make((2, 3), strides=3), x)
    np.testing.assert_allclose(y, np.moveaxis(wanted.reshape(2, 3, 2, 4), 2, 0), rtol=1e-5, atol=1e-6)


@both
def test_elements_at_the_end_that_fill_no_window_are_left_out(
    make: Callable[..., Layer], reduce: Callable[..., Any]
) -> None:
    x = normal(2, 7, 3)
    wanted = np.stack([reduce(x[:, start : start + 3], axis=1) for start in (0, 3)], axis=1)
    np.testing.assert_allclose(run(make((3,)), x), wanted, rtol=1e-5, atol=1e-6)


@both
def test_padding_is_neither_the_largest_nor_counted(make: Callable[..., Layer], reduce: Callable[..., Any]) -> None:
    x = -np.abs(normal(2, 5, 3)) - 1
    parts = [x[:, max(start, 0) : start + 3] for start in (-1, 1, 3)]
    wanted = np.stack([reduce(part, axis=1) for part in parts], axis=1)
    for padding in ("SAME", 1, (1,), ((1, 1),)):
        np.testing.assert_allclose(run(make((3,), strides=2, padding=padding), x), wanted, rtol=1e-5)


@pytest.mark.parametrize("space", [(7,), (3, 4), (2, 3, 2)])
def test_global_pools_leave_batch_and_channels(space: tuple[int, ...]) -> None:
    x = normal(2, *space, 3)
    axes = tuple(range(1, x.ndim - 1))
    np.testing.assert_array_equal(run(global_max_pool(), x), x.max(axis=axes))
    np.testing.assert_allclose(run(global_mean_pool(), x), x.mean(axis=axes), rtol=1e-5, atol=1e-6)


def test_the_gradient_of_global_max_pool_goes_to_the_first_maximum() -> None:
    x = np.maximum(np.round(normal(2, 3, 4, 3) - 2), -1)
    weight = normal(2, 3, seed=1)
    first = x.reshape(2, 12, 3).argmax(axis=1)[:, None]
    wanted = np.zeros((2, 12, 3), np.float32)
    np.put_along_axis(wanted, first, weight[:, None], axis=1)
    got = jax.grad(lambda x: jnp.vdot(global_max_pool().apply({}, {}, x)[0], weight))(x)
    np.testing.assert_array_equal(got, wanted.reshape(x.shape))


def test_the_gradient_of_global_mean_pool_is_spread_evenly() -> None:
    weight = normal(2, 3)
    got = jax.grad(lambda x: jnp.vdot(global_mean_pool().apply({}, {}, x)[0], weight))(jnp.zeros((2, 4, 5, 3)))
    np.testing.assert_allclose(got, np.broadcast_to(weight[:, None, None] / 20, (2, 4, 5, 3)), rtol=1e-6)


def test_the_global_mean_of_half_precision_is_summed_in_float32() -> None:
    x = jnp.full((1, 40, 40, 1), 1.0078125, jnp.bfloat16)  # sums in bfloat16 stop growing at 256
    y = run(global_mean_pool(), x)
    assert y.dtype == jnp.bfloat16
    assert float(y[0, 0]) == 1.0078125


@pytest.mark.parametrize("net", [max_pool((2, 2)), global_max_pool()], ids=repr)
def test_pixels_may_be_pooled_by_their_maximum(net: Layer) -> None:
    x = np.random.default_rng(0).integers(0, 255, (2, 4, 4, 3)).astype(np.uint8)
    assert run(net, x).dtype == jnp.uint8
    np.testing.assert_array_equal(run(net, x).max(axis=(0, *range(1, run(net, x).ndim - 1))), x.max(axis=(0, 1, 2)))


@pytest.mark.parametrize(
    ("net", "x", "message"),
    [
        (max_pool((2, 2)), jnp.ones((8, 28, 28)), r"x has 3 axes, wanted 4 .*add the channel axis, x\[\.\.\., None\]"),
        (mean_pool((2, 2)), jnp.ones((8, 28)), "x has 2 axes, wanted 4"),
        (max_pool((2,)), jnp.ones((8, 28, 28, 3)), r"x has 4 axes, wanted 3 .*give the window 2 entries"),
        (max_pool((2, 5)), jnp.ones((8, 4, 4, 3)), "the window spans 5 and axis 2 of x has size 4; use a smaller"),
        (mean_pool((9,), padding=2), jnp.ones((8, 4, 3)), r"spans 9 .* size 8 \(4 with padding 2 and 2\)"),
        (mean_pool((2,), padding=2), jnp.ones((8, 4, 3)), "padding of 2 leaves a window of 2 with nothing but padding"),
        (mean_pool((2,)), jnp.ones((8, 4, 3), jnp.uint8), r"x is uint8, .*x.astype\(jnp.float32\) / 255"),
        (global_mean_pool(), jnp.ones((8, 4, 3), jnp.uint8), "x is uint8"),
        (max_pool((2,)), jnp.ones((8, 4, 3), bool), "x is bool, wanted real numbers"),
        (global_max_pool(), jnp.ones((8, 3)), r"x has shape \(8, 3\), wanted .* pool before fnn.flatten\(\)"),
        (global_mean_pool(), jnp.ones((8, 0, 3)), r"x has shape \(8, 0, 3\), wanted .* with elements in space"),
    ],
    ids=str,
)
def test_a_wrong_input_raises_at_init_with_the_path_and_the_fix(net: Layer, x: Any, message: str) -> None:
    with pytest.raises(LayerError) as caught:
        serial(reduce=net).init(jax.random.key(0), x)
    assert caught.value.path == ("reduce",)
    caught.match(rf"reduce: (?s:.)*{message}")


@pytest.mark.parametrize("make", [max_pool, mean_pool])
@pytest.mark.parametrize(
    ("window", "options", "message"),
    [
        (2, {}, r"window must be a tuple of positive ints.*got 2; write \(3,\)"),
        ((2, 0), {}, "window must be a tuple of positive ints"),
        ((2, 2), {"strides": 0}, "strides must be a positive int, got 0"),
        ((2, 2), {"strides": (2,)}, "strides has 1 entries and the window 2"),
        ((2, 2), {"padding": -1}, "padding must not be negative, got -1"),
        ((2, 2), {"padding": "same"}, "padding must be \"SAME\".*got 'same'"),
    ],
)
def test_a_wrong_setting_raises_where_it_is_written(make: Any, window: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(window, **options)
