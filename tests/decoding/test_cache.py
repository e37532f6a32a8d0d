"""State with caches: which leaves are caches, and which are kept."""

import jax.numpy as jnp
import pytest

import fnn
from fnn.decoding.cache import fresh_state, map_cache


def test_only_arrays_of_caches_that_have_a_batch_are_changed() -> None:
    state = {"lstm": {"cache": {"h": jnp.ones((2, 3)), "position": jnp.ones(())}}, "norm": {"mean": jnp.ones(2)}}
    doubled = map_cache(lambda leaf: jnp.repeat(leaf, 2, 0), state)
    assert doubled["lstm"]["cache"]["h"].shape == (4, 3)
    assert doubled["lstm"]["cache"]["position"].shape == ()
    assert doubled["norm"]["mean"].shape == (2,)


def test_fresh_state_keeps_what_was_trained_and_empties_caches() -> None:
    net = fnn.serial(fnn.lstm(3, cache=True), fnn.batch_norm())
    x = jnp.ones((2, 1, 4))
    old = {
        "lstm_0": {"cache": {"0": jnp.ones((2, 3)), "1": jnp.ones((2, 3))}},
        "batch_norm_0": {"mean": jnp.ones(3), "var": jnp.ones(3)},
    }
    state = fresh_state(net, old, x)
    assert float(state["batch_norm_0"]["mean"][0]) == 1
    assert float(state["lstm_0"]["cache"]["0"].sum()) == 0
    with pytest.raises(fnn.LayerError, match="has no cache"):
        fresh_state(fnn.dense(3), {}, x)
