from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


PARAMS = {"kernel": normal(5, 4, seed=1), "bias": normal(4, seed=2)}


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 1, 3), (0,), (0, 3)])
def test_the_last_axis_is_multiplied_by_the_kernel(leading: tuple[int, ...]) -> None:
    x = normal(*leading, 5)
    y, state = fnn.dense(4).apply(PARAMS, {}, x)
    assert y.shape == (*leading, 4)
    np.testing.assert_allclose(y, x @ PARAMS["kernel"] + PARAMS["bias"], rtol=1e-5, atol=1e-5)
    assert state == {}


@pytest.mark.parametrize("leading", [(3,), (2, 3)])
def test_values_and_gradients_agree_with_pytorch(leading: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    x, weight = normal(*leading, 5), normal(*leading, 4, seed=3)
    grads, x_grad = jax.grad(lambda p, x: jnp.vdot(fnn.dense(4).apply(p, {}, x)[0], weight), (0, 1))(PARAMS, x)
    kernel, bias, tensor = (torch.from_numpy(a.copy()).requires_grad_() for a in (*PARAMS.values(), x))
    (torch.nn.functional.linear(tensor, kernel.T, bias) * torch.from_numpy(weight)).sum().backward()
    np.testing.assert_allclose(x_grad, tensor.grad.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grads["kernel"], kernel.grad.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grads["bias"], bias.grad.numpy(), rtol=1e-5, atol=1e-5)


def test_without_bias_there_is_only_a_kernel() -> None:
    x = normal(3, 5)
    net = fnn.dense(4, bias=False)
    params, _ = net.init(jax.random.key(0), x)
    assert set(params) == {"kernel"}
    np.testing.assert_allclose(net.apply(params, {}, x)[0], x @ params["kernel"], rtol=1e-5, atol=1e-6)


def test_the_kernel_is_the_same_with_and_without_a_bias() -> None:
    x = normal(3, 5)
    with_bias, without = (fnn.dense(4, bias=bias).init(jax.random.key(0), x)[0] for bias in (True, False))
    np.testing.assert_array_equal(with_bias["kernel"], without["kernel"])


def test_outputs_begin_with_the_variance_of_the_inputs() -> None:
    x = normal(200, 400)
    net = fnn.dense(100)
    params, state = net.init(jax.random.key(0), x)
    np.testing.assert_array_equal(params["bias"], np.zeros(100))
    np.testing.assert_allclose(np.var(net.apply(params, state, x)[0]), 1, rtol=0.05)


def test_initializers_and_dtype_are_those_given() -> None:
    constant = jax.nn.initializers.constant
    net = fnn.dense(4, kernel_init=constant(2.0), bias_init=constant(3.0), dtype=jnp.bfloat16)
    params, _ = net.init(jax.random.key(0), normal(3, 5))
    np.testing.assert_array_equal(params["kernel"], np.full((5, 4), 2.0))
    np.testing.assert_array_equal(params["bias"], np.full(4, 3.0))
    assert {leaf.dtype.name for leaf in params.values()} == {"bfloat16"}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.complex64])
def test_the_result_has_the_dtype_of_the_input(dtype: Any) -> None:
    params, _ = fnn.dense(4).init(jax.random.key(0), jnp.ones((3, 5), dtype))
    assert {leaf.dtype.name for leaf in params.values()} == {"float32"}
    assert fnn.dense(4).apply(params, {}, jnp.ones((3, 5), dtype))[0].dtype == dtype


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (jnp.ones(()), r"x is a scalar, wanted \(\*leading, features\); add an axis: x\[None\]"),
        (jnp.ones((2, 3), jnp.int32), r"x is int32, wanted a floating dtype; convert it first: x\.astype"),
        (jnp.ones((2, 3), jnp.uint8), r"x is uint8, .* / 255 for pixels"),
    ],
)
def test_a_wrong_input_is_an_error_at_init(x: Any, text: str) -> None:
    with pytest.raises(fnn.LayerError, match=text):
        fnn.dense(4).init(jax.random.key(0), x)


@pytest.mark.parametrize("features", [0, -1, 2.0, True, "4", None])
def test_features_must_be_a_positive_int(features: Any) -> None:
    with pytest.raises(ValueError, match="features must be a positive int"):
        fnn.dense(features)


def test_features_may_be_an_int_of_numpy() -> None:
    features: Any = np.int64(4)
    assert fnn.dense(features).init(jax.random.key(0), normal(3, 5))[0]["kernel"].shape == (5, 4)


def test_params_without_the_kernel_are_an_error_that_names_it() -> None:
    with pytest.raises(fnn.LayerError, match="params lacks 'bias', 'kernel'"):
        fnn.dense(4).apply({}, {}, normal(3, 5))


def test_an_input_of_other_width_is_an_error_that_shows_it() -> None:
    with pytest.raises(fnn.LayerError, match=r"got:   float32\[3,6\]"):
        fnn.dense(4).apply(PARAMS, {}, normal(3, 6))


def test_integers_are_refused_in_apply_too(key: jax.Array) -> None:
    params, state = fnn.dense(3).init(key, jnp.ones((2, 4)))
    with pytest.raises(fnn.LayerError, match="x is uint8"):
        fnn.dense(3).apply(params, state, jnp.ones((2, 4), jnp.uint8))
