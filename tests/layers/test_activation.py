from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

X = np.array([[-2.0, -0.5, 0.0, 3.0], [1.0, 0.25, -1.0, -4.0]], np.float32)
SLOPES = np.array([0.1, 0.2, 0.3, -0.4], np.float32)


def prelu(slopes: Any, x: Any) -> Any:
    return fnn.prelu().apply({"negative_slope": slopes}, {}, x)[0]


def step(x: Any, **options: Any) -> Any:
    return fnn.step(**options).apply({}, {}, x)[0]


def test_prelu_has_one_slope_for_each_channel() -> None:
    expected = [[-0.2, -0.1, 0.0, 3.0], [1.0, 0.25, -0.3, 1.6]]
    np.testing.assert_allclose(prelu(SLOPES, X), expected, rtol=1e-6)


def test_prelu_agrees_with_pytorch_in_values_and_gradients() -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    weight = np.random.default_rng(0).normal(size=X.shape).astype(np.float32)
    grads = jax.grad(lambda slopes, x: jnp.vdot(prelu(slopes, x), weight), (0, 1))(SLOPES, X)
    slopes, x = torch.from_numpy(SLOPES).requires_grad_(), torch.from_numpy(X).requires_grad_()
    y = torch.nn.functional.prelu(x, slopes)
    (y * torch.from_numpy(weight)).sum().backward()
    np.testing.assert_allclose(prelu(SLOPES, X), y.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(grads[0], slopes.grad.numpy(), rtol=1e-5)
    np.testing.assert_allclose(grads[1], x.grad.numpy(), rtol=1e-6)


def test_prelu_starts_with_the_slope_of_its_initializer() -> None:
    params, state = fnn.prelu().init(jax.random.key(0), X)
    assert params["negative_slope"].tolist() == [0.25] * 4
    assert state == {}
    other, _ = fnn.prelu(init=jax.nn.initializers.ones, dtype=jnp.bfloat16).init(jax.random.key(0), X)
    assert other["negative_slope"].tolist() == [1.0] * 4
    assert other["negative_slope"].dtype == jnp.bfloat16


def test_prelu_keeps_bfloat16() -> None:
    assert prelu(SLOPES, jnp.asarray(X, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("x", "text"),
    [(jnp.ones(()), "x is a scalar"), (jnp.ones((2, 3), jnp.int32), "x is int32, wanted a floating dtype")],
)
def test_prelu_of_a_wrong_input_is_an_error_at_init(x: Any, text: str) -> None:
    with pytest.raises(fnn.LayerError, match=text):
        fnn.prelu().init(jax.random.key(0), x)


@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_step_is_exactly_one_above_the_threshold_and_zero_at_and_below_it(straight_through: bool, dtype: Any) -> None:
    x = jnp.array([-jnp.inf, -3e4, 0.3, 0.5, 0.51, 0.7, 3e4, jnp.inf, jnp.nan], dtype)
    y = step(x, threshold=0.5, straight_through=straight_through)
    assert y.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0]
    assert y.dtype == dtype
    assert step(X, straight_through=straight_through).tolist() == [[0, 0, 0, 1], [1, 1, 0, 0]]


def test_the_gradient_of_step_is_zero() -> None:
    np.testing.assert_array_equal(jax.grad(lambda x: step(x).sum())(X), np.zeros_like(X))
    np.testing.assert_array_equal(jax.jvp(step, (X,), (np.ones_like(X),))[1], np.zeros_like(X))


def test_straight_through_has_the_gradient_of_the_identity_in_both_modes() -> None:
    f = lambda x: step(x, straight_through=True)
    v = np.random.default_rng(0).normal(size=X.shape).astype(np.float32)
    y, tangent = jax.jit(lambda x: jax.jvp(f, (x,), (v,)))(X)
    np.testing.assert_array_equal(y, X > 0)
    np.testing.assert_array_equal(tangent, v)
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda x: jnp.vdot(f(x), v)))(X), v)
    np.testing.assert_array_equal(jax.vmap(jax.grad(lambda x, v: jnp.vdot(f(x), v)))(X, v), v)


def test_straight_through_has_the_second_derivatives_of_the_identity() -> None:
    score = lambda x: jnp.sum(x**2 * step(x, straight_through=True))  # gradient x**2 + 2 x step(x)
    v = np.random.default_rng(0).normal(size=X.shape).astype(np.float32)
    expected = (2 * X + 2 * (X > 0) + 2 * X) * v
    np.testing.assert_allclose(jax.jvp(jax.grad(score), (X,), (v,))[1], expected, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda x: jax.jvp(score, (x,), (v,))[1])(X), expected, rtol=1e-5)


def test_the_threshold_may_be_traced_and_differentiated() -> None:
    thresholds = np.array([-1.0, 0.5], np.float32)

    @jax.jit
    @jax.vmap
    def run(threshold: Any) -> Any:
        fnn.step(threshold=threshold).init(jax.random.key(0), X)
        f = lambda threshold: step(X, threshold=threshold, straight_through=True).sum()
        return step(X, threshold=threshold), jax.grad(f)(threshold)

    for threshold, y, grad in zip(thresholds, *run(thresholds)):
        np.testing.assert_array_equal(y, threshold < X)
        assert grad == -X.size


def test_three_threshold_units_compute_exclusive_or() -> None:
    net = fnn.serial(fnn.dense(2), fnn.step(), fnn.dense(1), fnn.step())
    params = {
        "dense_0": {"kernel": jnp.array([[1.0, 1.0], [1.0, 1.0]]), "bias": jnp.array([-0.5, -1.5])},
        "dense_1": {"kernel": jnp.array([[1.0], [-1.0]]), "bias": jnp.array([-0.5])},
    }
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    assert net.apply(params, {}, x)[0].tolist() == [[0], [1], [1], [0]]


def test_step_of_integers_is_an_error_at_init() -> None:
    with pytest.raises(fnn.LayerError, match="x is int32, wanted a floating dtype"):
        fnn.step().init(jax.random.key(0), jnp.ones(3, jnp.int32))
