from typing import Any

import jax
import jax.numpy as jnp
import pytest

import fnn

X = jnp.ones((2, 3))
NET = fnn.serial(fnn.dense(4), jax.nn.relu, fnn.dense(2))


def test_a_legacy_key_is_an_error_at_init_and_apply(key: jax.Array) -> None:
    legacy: Any = jnp.zeros(2, jnp.uint32)
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        NET.init(legacy, X)
    params, state = NET.init(key, X)
    with pytest.raises(fnn.LayerError, match=r"jax\.random\.key"):
        NET.apply(params, state, X, key=legacy)


def test_init_maps_over_keys_and_compiles(key: jax.Array) -> None:
    params, _ = jax.jit(NET.init)(key, X)
    many, _ = jax.vmap(lambda key: NET.init(key, X))(jax.random.split(jax.random.clone(key), 3))
    assert params["dense_0"]["kernel"].shape == (3, 4)
    assert many["dense_0"]["kernel"].shape == (3, 3, 4)


def test_inputs_may_be_any_pytree(key: jax.Array) -> None:
    net = fnn.serial(lambda batch: jnp.concatenate([batch["a"], batch["b"]], axis=-1), fnn.dense(2))
    xs = {"a": X, "b": X}
    params, state = net.init(key, xs)
    assert params["dense_0"]["kernel"].shape == (6, 2)
    assert net.apply(params, state, xs)[0].shape == (2, 2)


def test_second_derivatives_compile(key: jax.Array) -> None:
    params, state = NET.init(key, X)
    f = lambda params: jnp.sum(jnp.tanh(NET.apply(params, state, X)[0]))
    hessian = jax.jit(jax.hessian(f))(params)
    assert hessian["dense_1"]["bias"]["dense_1"]["bias"].shape == (2, 2)
