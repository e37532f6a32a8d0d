"""The feed-forward part is the formula of the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)


def test_it_goes_up_and_down(key: jax.Array) -> None:
    net = fnn.feed_forward(7, activation=jax.nn.relu, bias_init=jax.nn.initializers.normal(1.0))
    params, _ = net.init(key, x)
    wanted = np.maximum(x @ params["up_kernel"] + params["up_bias"], 0) @ params["down_kernel"] + params["down_bias"]
    np.testing.assert_allclose(net.apply(params, {}, x)[0], wanted, atol=1e-5)


def test_a_gate_multiplies(key: jax.Array) -> None:
    net = fnn.feed_forward(7, activation=jax.nn.silu, gated=True, bias=False)
    params, _ = net.init(key, x)
    wanted = (jax.nn.silu(x @ params["gate_kernel"]) * (x @ params["up_kernel"])) @ params["down_kernel"]
    np.testing.assert_allclose(net.apply(params, {}, x)[0], wanted, atol=1e-5)


def test_dropout_is_on_the_hidden_features_and_only_in_training(key: jax.Array) -> None:
    net = fnn.feed_forward(2000, rate=0.5, activation=jnp.ones_like)
    params, _ = net.init(key, x)
    params = jax.tree.map(jnp.ones_like, params)
    assert float(net.apply(params, {}, x)[0][0, 0, 0]) == 2001
    dropped, _ = net.apply(params, {}, x, key=key, train=True)
    assert 0 < abs(float(dropped[0, 0, 0]) - 2001) < 300
    with pytest.raises(fnn.LayerError, match="random numbers"):
        net.apply(params, {}, x, train=True)


def test_bad_input_is_told(key: jax.Array) -> None:
    with pytest.raises(fnn.LayerError, match="floating"):
        fnn.feed_forward(4).init(key, x.astype(int))
    with pytest.raises(ValueError, match="hidden"):
        fnn.feed_forward(0)
