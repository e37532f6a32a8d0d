import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fnn


@functools.partial(jax.jit, static_argnums=0)
def compiled(net: fnn.Layer, x: Any, key: Any) -> Any:
    return net.apply({}, {}, x, key=key, train=True)[0]


def train(net: fnn.Layer, x: Any, seed: int = 0) -> np.ndarray:
    return np.asarray(compiled(net, x, jax.random.key(seed)))


NOISY = [fnn.dropout(0.5), fnn.drop_path(0.5), fnn.gaussian_noise(1.0)]
every_noise = pytest.mark.parametrize("net", NOISY, ids=lambda net: net.name)


@every_noise
def test_inference_is_the_identity_and_needs_no_key(net: fnn.Layer) -> None:
    x = jnp.arange(12.0).reshape(3, 4)
    assert net.init(jax.random.key(0), x) == ({}, {})
    np.testing.assert_array_equal(net.apply({}, {}, x)[0], x)


@every_noise
def test_training_without_a_key_is_an_error(net: fnn.Layer) -> None:
    with pytest.raises(fnn.LayerError, match="needs random numbers: pass key="):
        net.apply({}, {}, jnp.ones((2, 3)), train=True)


@every_noise
def test_the_same_key_gives_the_same_numbers_and_another_key_others(net: fnn.Layer) -> None:
    x = jnp.ones((40, 3))
    np.testing.assert_array_equal(train(net, x), train(net, x))
    assert (train(net, x) != train(net, x, seed=1)).any()


@every_noise
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.complex64])
def test_the_result_has_the_dtype_of_the_input(net: fnn.Layer, dtype: Any) -> None:
    run = functools.partial(compiled, net)
    assert jax.eval_shape(run, jax.ShapeDtypeStruct((4, 3), dtype), jax.random.key(0)).dtype == dtype


@every_noise
def test_an_integer_input_is_an_error_at_init(net: fnn.Layer) -> None:
    with pytest.raises(fnn.LayerError, match="x is uint8, wanted a floating dtype"):
        net.init(jax.random.key(0), jnp.ones((2, 3), jnp.uint8))


@every_noise
def test_networks_under_vmap_over_keys_have_their_own_draws(net: fnn.Layer) -> None:
    x = jnp.ones((40, 3))
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    many = jax.jit(jax.vmap(lambda key: net.apply({}, {}, x, key=key, train=True)[0]))(keys)
    assert (many[0] != many[1]).any()
    for seed in range(2):
        np.testing.assert_allclose(many[seed], train(net, x, seed), rtol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.9])
def test_the_fraction_dropped_is_the_rate_and_the_others_are_scaled(rate: float) -> None:
    x = np.random.default_rng(0).normal(size=(100, 201)).astype(np.float32)
    y = train(fnn.dropout(rate), x)
    kept = y != 0
    np.testing.assert_allclose(y[kept], x[kept] / (1 - rate), rtol=1e-5)
    assert stats.binomtest(int((~kept).sum()), x.size, rate).pvalue > 1e-3
    halves = [(~half).mean() for half in np.array_split(kept, 2, axis=1)]  # each comes from half of every word
    np.testing.assert_allclose(halves, rate, atol=0.02)


def test_entries_drop_independently_of_each_other() -> None:
    kept = train(fnn.dropout(0.5), np.ones((4000, 6), np.float32)) != 0
    correlation = np.corrcoef(kept.T)
    np.testing.assert_allclose(correlation, np.eye(6), atol=0.07)
    # All 64 outcomes of six entries are equally likely.
    codes = kept @ (2 ** np.arange(6))
    assert stats.chisquare(np.bincount(codes, minlength=64)).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(), (5,), (3, 1), (0, 4), (4, 0), (2, 3, 7)])
def test_any_shape_can_be_dropped(shape: tuple[int, ...]) -> None:
    y = train(fnn.dropout(0.5), np.ones(shape, np.float32))
    assert y.shape == shape
    assert set(y.ravel().tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize("axes", [0, (1, 2), (-2, 1), (0, 1, 2, 3), (-1,)])
def test_one_draw_is_shared_along_the_axes(axes: Any) -> None:
    shape = (6, 3, 2, 5)
    y = train(fnn.dropout(0.5, axes=axes), np.ones(shape, np.float32))
    shared = tuple(sorted({axis % 4 for axis in np.atleast_1d(axes)}))
    np.testing.assert_array_equal(y, np.broadcast_to(y.max(shared, keepdims=True), shape))
    for axis in set(range(4)) - set(shared):
        assert (np.diff(y, axis=axis) != 0).any()


def test_spatial_dropout_drops_whole_channels_of_single_images() -> None:
    y = train(fnn.dropout(0.5, axes=(1, 2)), np.ones((50, 4, 4, 10), np.float32))
    by_channel = y.reshape(50, 16, 10)
    assert ((by_channel == 0).all(1) | (by_channel == 2).all(1)).all()
    assert stats.binomtest(int((by_channel[:, 0] == 0).sum()), 500, 0.5).pvalue > 1e-3


@pytest.mark.parametrize("axes", [2, (0, 2), (-3,)])
def test_an_axis_that_x_lacks_is_an_error_at_init(axes: Any) -> None:
    with pytest.raises(fnn.LayerError, match="x has 2 axes and so no axis"):
        fnn.dropout(0.5, axes=axes).init(jax.random.key(0), jnp.ones((2, 3)))


@pytest.mark.parametrize("make", [fnn.dropout, fnn.drop_path])
@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0, float("nan")])
def test_a_concrete_rate_outside_its_range_is_an_error(make: Any, rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate must lie in \[0\.0, 1\.0\)"):
        make(rate)


@pytest.mark.parametrize("make", [fnn.dropout, fnn.drop_path])
def test_the_rate_may_be_traced(make: Any) -> None:
    x = jnp.ones((40, 3))

    @jax.jit
    @jax.vmap
    def run(rate: Any) -> Any:
        make(rate).init(jax.random.key(0), x)
        return make(rate).apply({}, {}, x, key=jax.random.key(0), train=True)[0]

    rates = np.array([0.0, 0.3, 0.8], np.float32)
    for rate, y in zip(rates, run(rates)):
        np.testing.assert_allclose(y, train(make(float(rate)), x), rtol=1e-6)


def test_the_gradient_is_zero_where_dropped_and_scaled_where_kept() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32))
    f = lambda x: fnn.dropout(0.2).apply({}, {}, x, key=jax.random.key(0), train=True)[0]
    expected = np.where(train(fnn.dropout(0.2), x) == 0, 0, 1.25)
    reverse = jax.jit(jax.grad(lambda x: f(x).sum()))(x)
    forward = jax.jit(lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1])(x)
    np.testing.assert_allclose(reverse, expected, rtol=1e-6)
    np.testing.assert_allclose(forward, expected, rtol=1e-6)


def test_drop_path_drops_whole_examples() -> None:
    y = train(fnn.drop_path(0.25), np.ones((800, 2, 3), np.float32)).reshape(800, 6)
    dropped = (y == 0).all(1)
    np.testing.assert_allclose(y[~dropped], 4 / 3, rtol=1e-6)
    assert stats.binomtest(int(dropped.sum()), 800, 0.25).pvalue > 1e-3


def test_drop_path_wants_a_batch_axis() -> None:
    with pytest.raises(fnn.LayerError, match="x is a scalar"):
        fnn.drop_path(0.5).init(jax.random.key(0), 1.0)


def test_drop_path_by_depth_in_a_stack_drops_later_blocks_more() -> None:
    net = fnn.stack(lambda index: fnn.residual(fnn.serial(jnp.ones_like, fnn.drop_path(0.45 * index))), 3)
    x = jnp.zeros((600, 1))
    y, _ = net.apply({}, {}, x, key=jax.random.key(0), train=True)
    scales = [1.0, 1 / 0.55, 1 / 0.1]
    outcomes = {round(sum(s * b for s, b in zip(scales, bits)), 3) for bits in itertools.product([0, 1], repeat=3)}
    assert {round(float(value), 3) for value in np.unique(y)} <= {o for o in outcomes if o >= 1}
    assert stats.binomtest(int((np.asarray(y) < 9).sum()), 600, 0.9).pvalue > 1e-3


def test_the_noise_is_normal_with_the_standard_deviation_asked_for() -> None:
    noise = train(fnn.gaussian_noise(0.5), np.full((50, 40), 3.0, np.float32)) - 3.0
    assert stats.kstest(noise.ravel() / 0.5, "norm").pvalue > 1e-3


def test_the_standard_deviation_may_be_traced_and_differentiated() -> None:
    x = jnp.zeros(10)
    run = lambda stddev: fnn.gaussian_noise(stddev).apply({}, {}, x, key=jax.random.key(0), train=True)[0]
    y, tangent = jax.jit(lambda stddev: jax.jvp(run, (stddev,), (jnp.ones_like(stddev),)))(jnp.float32(0.5))
    np.testing.assert_allclose(y, 0.5 * tangent, rtol=1e-6)
    np.testing.assert_allclose(y, run(0.5), rtol=1e-6)


def test_noise_in_bfloat16_has_the_tails_of_a_normal() -> None:
    # Drawn in bfloat16 itself, 200000 numbers lie between -2.9 and 2.6.
    noise = train(fnn.gaussian_noise(1.0), jnp.zeros(20000, jnp.bfloat16)).astype(np.float32)
    assert noise.min() < -3
    assert noise.max() > 3


def test_a_negative_standard_deviation_is_an_error() -> None:
    with pytest.raises(ValueError, match="stddev must lie in"):
        fnn.gaussian_noise(-0.1)
