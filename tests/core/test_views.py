import chex
import jax
import jax.numpy as jnp
import pytest

import fnn

X = jnp.ones((4, 3))
WITH_STATE = fnn.serial(fnn.dense(2), fnn.batch_norm())


def test_stateless_names_the_state_that_it_refuses(key: jax.Array) -> None:
    init, _ = fnn.stateless(WITH_STATE)
    with pytest.raises(fnn.LayerError, match=r"batch_norm_0/mean, batch_norm_0/var.*fnn\.bind"):
        init(key, X)


def test_bind_freezes_the_state(key: jax.Array) -> None:
    params, state = WITH_STATE.init(key, X)
    f = fnn.bind(WITH_STATE, state)
    chex.assert_trees_all_equal(f(params, X), WITH_STATE.apply(params, state, X)[0])
    assert jax.jacfwd(f)(params, X)["dense_0"]["kernel"].shape == (4, 2, 3, 2)


def test_init_state_is_the_state_of_init(key: jax.Array) -> None:
    chex.assert_trees_all_equal(fnn.init_state(WITH_STATE, X), WITH_STATE.init(key, X)[1])
