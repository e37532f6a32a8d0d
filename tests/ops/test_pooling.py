import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fnn.ops.pooling import pool_max, pool_mean
from fnn.ops.windows import Padding, resolve_padding

Case = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None, Padding]

CASES: dict[str, Case] = {
    "halves": ((2, 6, 4, 3), (2, 2), None, "VALID"),
    "odd size": ((2, 5, 7, 2), (2, 2), None, "VALID"),
    "odd size, padded": ((2, 5, 7, 2), (2, 2), None, "SAME"),
    "overlap": ((1, 7, 6, 2), (3, 3), (2, 2), "SAME"),
    "overlap of unequal sides": ((1, 7, 8, 2), (3, 2), (1, 2), ((2, 1), (0, 1))),
    "gaps": ((2, 8, 7, 2), (2, 1), (3, 2), "VALID"),
    "sequence": ((3, 9, 2), (3,), (1,), 1),
    "volume": ((1, 4, 5, 3, 2), (2, 3, 2), (2, 2, 1), "SAME"),
    "one axis": ((2, 4, 5, 2), (1, 3), (1, 2), "SAME"),
    "large": ((2, 13, 2), (6,), None, "VALID"),
    "large, padded": ((1, 16, 8, 1), (7, 6), (7, 7), ((3, 4), (2, 3))),
    "large overlap": ((1, 20, 2), (9,), (2,), "SAME"),
    "all of space": ((2, 3, 4, 2), (3, 4), None, "VALID"),
}
in_every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def with_ties(*shape: int) -> np.ndarray:
    """Examples one after another: distinct, rectified, integral, constant and partly -inf numbers."""
    x = normal(5 * shape[0], *shape[1:])
    kinds = [lambda x: x, lambda x: np.maximum(x, 0), np.round, np.ones_like, lambda x: np.where(x < 0.5, -np.inf, x)]
    return np.concatenate([kind(part) for kind, part in zip(kinds, np.split(x, 5))]).astype(np.float32)


def pool(function: Callable[..., Any], case: Case) -> Callable[[Any], Any]:
    _, window, strides, padding = case
    return functools.partial(function, window=window, strides=strides, padding=padding)


def plain_max(x: Any, *, window: Any, strides: Any, padding: Any) -> Any:
    strides = strides or window
    pairs = resolve_padding(padding, x.shape[1:-1], window, strides)
    lowest = np.array(-np.inf, x.dtype)
    return lax.reduce_window(x, lowest, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *pairs, (0, 0)))


def beneath(x: np.ndarray, case: Case, reduce: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Loop over the places of the window and reduce what lies inside x."""
    _, window, strides, padding = case
    sizes, strides = x.shape[1:-1], strides or window
    pairs = resolve_padding(padding, sizes, window, strides)
    starts = [range(-lo, n + hi - w + 1, s) for n, w, s, (lo, hi) in zip(sizes, window, strides, pairs)]
    y = np.zeros((x.shape[0], *map(len, starts), x.shape[-1]), x.dtype)
    for place in itertools.product(*(list(enumerate(places)) for places in starts)):
        at = tuple(index for index, _ in place)
        inside = tuple(slice(max(start, 0), start + extent) for (_, start), extent in zip(place, window))
        part = x[(slice(None), *inside)].reshape(x.shape[0], -1, x.shape[-1])
        y[(slice(None), *at)] = reduce(part)
    return y


def first_maximum(x: np.ndarray, case: Case) -> np.ndarray:
    """Find the flat index in x of the first maximum of each window, by loops."""
    index = np.broadcast_to(np.arange(x.size, dtype=np.float64).reshape(x.shape), x.shape)

    def first(part: np.ndarray) -> np.ndarray:
        values, indices = np.split(part, 2, axis=-1)
        at = values.argmax(axis=1)[:, None]
        return np.concatenate([values.max(axis=1), np.take_along_axis(indices, at, axis=1)[:, 0]], axis=-1)

    return np.split(beneath(np.concatenate([x, index], axis=-1), case, first), 2, axis=-1)[1].astype(int)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(function: Callable[[Any], Any], x: Any, weight: Any) -> Any:
    """Apply ``function``, and differentiate it: a custom rule may compute the value another way."""
    y, back = jax.vjp(function, x)
    return function(x), y, back(weight.astype(x.dtype))[0]


@in_every_case
def test_the_maximum_and_its_gradient_are_those_of_loops_and_of_plain_lax(case: Case) -> None:
    x = with_ties(*case[0])
    index = first_maximum(x, case)
    weight = normal(*index.shape, seed=1)
    wanted = np.zeros(x.size, np.float32)
    np.add.at(wanted, index.reshape(-1), weight.reshape(-1))

    applied, y, got = value_and_gradient(pool(pool_max, case), x, weight)
    np.testing.assert_array_equal(applied, x.reshape(-1)[index])
    np.testing.assert_array_equal(y, applied)
    np.testing.assert_allclose(got, wanted.reshape(x.shape), rtol=1e-5, atol=1e-6)

    _, plain_y, plain = value_and_gradient(pool(plain_max, case), x, weight)
    numbers = slice(-case[0][0])  # where all of a window is -inf, plain lax gives the gradient to the padding
    np.testing.assert_array_equal(y, plain_y)
    np.testing.assert_allclose(got[numbers], plain[numbers], rtol=1e-5, atol=1e-6)


def test_the_maximum_of_integers_is_an_integer() -> None:
    case = CASES["overlap"]
    x = np.random.default_rng(0).integers(-128, 127, case[0]).astype(np.int8)
    y = pool(pool_max, case)(x)
    assert y.dtype == jnp.int8
    np.testing.assert_array_equal(y, beneath(x, case, lambda part: part.max(axis=1)))


@pytest.mark.parametrize("padding", [0, 1])
def test_values_and_gradients_agree_with_pytorch(padding: int) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    x = with_ties(2, 7, 6, 3)[:-2]
    weight = normal(len(x), 3 + padding, 2 + padding, 3, seed=1)
    applied, y, grads = value_and_gradient(lambda x: pool_max(x, (3, 3), strides=2, padding=padding), x, weight)
    tensor = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    out = torch.nn.functional.max_pool2d(tensor, 3, 2, padding)
    (out * torch.from_numpy(weight.transpose(0, 3, 1, 2).copy())).sum().backward()
    np.testing.assert_array_equal(applied, y)
    np.testing.assert_array_equal(y, out.detach().numpy().transpose(0, 2, 3, 1))
    np.testing.assert_allclose(grads, tensor.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["odd size", "overlap", "large"])
def test_derivatives_of_both_modes_and_orders_follow_the_first_maximum(name: str) -> None:
    case = CASES[name]
    x = with_ties(*case[0])[: -case[0][0]]  # without -inf, whose square has no derivative
    v = normal(*x.shape, seed=2)
    scale = np.linspace(0.5, 2, len(x), dtype=np.float32).reshape(-1, *(1,) * (x.ndim - 1))
    index = first_maximum(scale * x, case)

    def loss(choose: Callable[[Any], Any], x: Any) -> Any:
        return jnp.sum(choose(scale * x) ** 3 + choose(scale * x) ** 2)

    def derivatives(choose: Callable[[Any], Any]) -> Any:
        f = functools.partial(loss, choose)
        return (
            jax.jvp(f, (x,), (v,))[1],
            jax.jvp(jax.grad(f), (x,), (v,))[1],
            jax.grad(lambda x: jnp.vdot(jax.grad(f)(x), v))(x),
            jax.grad(lambda x: jax.jvp(f, (x,), (v,))[1])(x),
            jax.jvp(lambda x: jax.jvp(jax.grad(f), (x,), (v,))[1], (x,), (v,))[1],
            jax.linearize(f, x)[1](v),
            jax.grad(jax.checkpoint(f))(x),
        )

    got = jax.jit(lambda: derivatives(pool(pool_max, case)))()
    wanted = jax.jit(lambda: derivatives(lambda x: x.reshape(-1)[index]))()
    for one, other in zip(got, wanted):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_forward_and_reverse_jacobians_are_equal() -> None:
    x = np.round(normal(1, 5, 4, 1))
    f = lambda x: pool_max(x, (3, 2), strides=2, padding="SAME")
    np.testing.assert_array_equal(jax.jit(jax.jacfwd(f))(x), jax.jit(jax.jacrev(f))(x))


@pytest.mark.parametrize("function", [pool_max, pool_mean])
@pytest.mark.parametrize("name", ["overlap", "large, padded"])
def test_vmap_and_scan_are_loops(name: str, function: Callable[..., Any]) -> None:
    case = CASES[name]
    xs = np.round(normal(3, *case[0]))
    f = pool(function, case)
    one = jax.jit(jax.grad(lambda x: jnp.sum(f(x) ** 2)))
    wanted = np.stack([one(x) for x in xs])
    np.testing.assert_allclose(jax.jit(jax.grad(lambda xs: jnp.sum(jax.vmap(f)(xs) ** 2)))(xs), wanted, rtol=1e-5)
    np.testing.assert_allclose(lax.scan(lambda carry, x: (carry, one(x)), 0, xs)[1], wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["overlap", "large"])
def test_bfloat16_stays_bfloat16(name: str) -> None:
    case = CASES[name]
    x = jnp.asarray(normal(*case[0]), jnp.bfloat16)
    weight = normal(*pool(pool_max, case)(x).shape, seed=1)
    _, y, got = value_and_gradient(pool(pool_max, case), x, weight)
    _, wanted_y, wanted = value_and_gradient(pool(plain_max, case), x, weight)
    for array in (y, got, *value_and_gradient(pool(pool_mean, case), x, weight)):
        assert array.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, wanted_y)
    np.testing.assert_allclose(got.astype(np.float32), wanted.astype(np.float32), rtol=0.03, atol=0.03)


@pytest.mark.parametrize("extent", [3, 9])
def test_a_window_with_a_nan_is_nan_and_its_gradient_goes_to_the_first(extent: int) -> None:
    x = jnp.arange(18.0).at[np.array([1, 2])].set(jnp.nan)[None, :, None]
    wanted = [np.nan, *np.arange(2 * extent - 1, 18, extent)]
    f = lambda x: pool_max(x, (extent,))
    applied, y, grads = value_and_gradient(f, x, np.ones((1, len(wanted), 1)))
    np.testing.assert_array_equal(applied[0, :, 0], wanted)
    np.testing.assert_array_equal(y[0, :, 0], wanted)
    np.testing.assert_array_equal(np.flatnonzero(grads), [1, *range(2 * extent - 1, 18, extent)])


@in_every_case
def test_the_mean_and_its_gradient_are_those_of_loops(case: Case) -> None:
    x = normal(*case[0])
    mean = lambda part: part.mean(axis=1)
    wanted = beneath(x, case, mean)
    weight = normal(*wanted.shape, seed=1)
    applied, y, grads = value_and_gradient(pool(pool_mean, case), x, weight)
    np.testing.assert_allclose(applied, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y, applied)
    basis = np.eye(math.prod(x.shape[1:]), dtype=np.float32)
    matrix = beneath(basis.reshape(-1, *x.shape[1:]), case, mean).reshape(len(basis), -1)
    np.testing.assert_allclose(grads, (weight.reshape(len(x), -1) @ matrix.T).reshape(x.shape), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [(2, 3), (5, 5)])
def test_the_mean_agrees_with_pytorch(window: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    x = normal(2, 7, 6, 3)
    y = pool_mean(jnp.asarray(x), window, strides=(2, 1), padding=1)
    tensor = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    out = torch.nn.functional.avg_pool2d(tensor, window, (2, 1), 1, count_include_pad=False)
    np.testing.assert_allclose(y, out.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [(4, 4), (40, 40)])
def test_the_mean_of_half_precision_is_summed_in_float32(window: tuple[int, int]) -> None:
    x = jnp.full((1, 40, 40, 1), 1.0078125, jnp.bfloat16)  # sums in bfloat16 stop growing at 256
    np.testing.assert_array_equal(pool_mean(x, window), np.asarray(1.0078125, jnp.bfloat16))


@pytest.mark.parametrize("function", [pool_max, pool_mean])
def test_no_examples_give_no_examples(function: Callable[..., Any]) -> None:
    f = lambda x: function(x, (2, 2))
    assert f(jnp.ones((0, 5, 4, 3))).shape == (0, 2, 2, 3)
    assert jax.grad(lambda x: f(x).sum())(jnp.ones((0, 5, 4, 3))).shape == (0, 5, 4, 3)


@pytest.mark.parametrize("function", [pool_max, pool_mean])
def test_padding_as_large_as_the_window_raises(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"padding of 2 leaves a window of 2 with nothing but padding.*pad less"):
        function(jnp.ones((1, 5, 1)), (2,), padding=((0, 2),))


def test_the_maximum_of_what_has_no_order_raises() -> None:
    with pytest.raises(TypeError, match="x is bool, wanted real numbers"):
        pool_max(jnp.ones((1, 4, 1), bool), (2,))


def test_the_mean_of_integers_raises() -> None:
    with pytest.raises(TypeError, match="x is int32, wanted a floating dtype"):
        pool_mean(jnp.ones((1, 4, 1), jnp.int32), (2,))
