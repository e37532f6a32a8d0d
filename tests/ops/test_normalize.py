from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.ops.normalize import affine, check_normalizable, standardize


def test_the_variance_is_right_where_the_mean_is_a_million_times_the_spread() -> None:
    x = np.random.default_rng(0).normal(1e4, 1e-2, (64, 3)).astype(np.float32)
    _, mean, var = standardize(jnp.asarray(x), (0,), 1e-5)
    np.testing.assert_allclose(mean[0], x.astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_allclose(var[0], x.astype(np.float64).var(0), rtol=0.02)


def test_standardized_numbers_have_mean_0_and_variance_1() -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, (2, 5, 4)).astype(np.float32)
    y = np.asarray(standardize(jnp.asarray(x), (0, 2), 0.0)[0])
    np.testing.assert_allclose(y.mean((0, 2)), np.zeros(5), atol=1e-6)
    np.testing.assert_allclose(y.var((0, 2)), np.ones(5), rtol=1e-5)


def textbook(x: jax.Array, epsilon: jax.Array, weight: jax.Array | None) -> tuple[jax.Array, ...]:
    weight = jnp.ones_like(x) if weight is None else jnp.broadcast_to(weight, x.shape)
    average = lambda values: jnp.sum(values * weight, (0, 1), keepdims=True) / jnp.sum(weight, (0, 1), keepdims=True)
    mean = average(x)
    var = average((x - mean) ** 2)
    return (x - mean) / jnp.sqrt(var + epsilon), mean, var


@pytest.mark.parametrize("weighted", [False, True], ids=["all", "weighted"])
def test_the_derivatives_written_by_hand_are_those_of_the_textbook(weighted: bool) -> None:
    x = jax.random.normal(jax.random.key(0), (4, 3, 2))
    x_dot = jax.random.normal(jax.random.key(1), x.shape)
    weight = jnp.array([1.0, 0.0, 2.0, 1.0]).reshape(4, 1, 1) if weighted else None

    def derivatives(normalize: Callable[..., Any]) -> Any:
        def loss(x: jax.Array, epsilon: jax.Array) -> jax.Array:
            y, mean, var = normalize(x, epsilon)
            return jnp.sum(jnp.sin(y) * jnp.arange(24.0).reshape(y.shape)) + jnp.sum(mean**3 + jnp.cos(var))

        grads = jax.grad(loss, (0, 1))
        hessian_vector = jax.jvp(lambda x, epsilon: grads(x, epsilon), (x, 0.1), (x_dot, 1.0))[1]
        return grads(x, 0.1), hessian_vector, jax.grad(lambda x: jnp.vdot(grads(x, 0.1)[0], x_dot))(x)

    by_hand = derivatives(lambda x, epsilon: standardize(x, (0, 1), epsilon, weight))
    chex.assert_trees_all_close(
        by_hand, derivatives(lambda x, epsilon: textbook(x, epsilon, weight)), rtol=2e-3, atol=2e-3
    )


def test_affine_applies_what_it_is_given_and_returns_the_wanted_dtype() -> None:
    y = jnp.array([1.0, 2.0])
    scale, bias = jnp.array([3.0, 4.0]), jnp.array([0.5, -0.5])
    assert affine(y, None, None, jnp.float32).tolist() == [1.0, 2.0]
    assert affine(y, scale, None, jnp.float32).tolist() == [3.0, 8.0]
    assert affine(y, None, bias, jnp.float32).tolist() == [1.5, 1.5]
    both = affine(y, scale, bias, jnp.bfloat16)
    assert both.tolist() == [3.5, 7.5]
    assert both.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        (jnp.ones((2, 3), jnp.int32), TypeError, r"x is int32, wanted a floating dtype"),
        (jnp.ones((2, 3), jnp.complex64), TypeError, r"x is complex64, wanted a real dtype"),
        (jnp.ones(3), ValueError, r"x has shape \(3,\), wanted \(batch, channels\)"),
    ],
)
def test_what_cannot_be_normalised_is_refused_with_the_fix(x: jnp.ndarray, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        check_normalizable(x, 2, "(batch, channels)")
