import chex
import jax
import jax.numpy as jnp
import pytest

import fnn

X = jnp.ones((3, 4))


def test_serial_gives_all_inputs_to_the_first_layer_and_one_value_to_the_others() -> None:
    net = fnn.serial(lambda a, b: (a, b), lambda pair: pair[0] - pair[1])
    assert float(net.apply({}, {}, 5.0, 3.0)[0]) == 2


def test_an_empty_serial_is_the_identity(key: jax.Array) -> None:
    assert fnn.serial().init(key, X) == ({}, {})
    chex.assert_trees_all_equal(fnn.serial().apply({}, {}, X)[0], X)


def test_parallel_returns_a_tuple_or_joins_it(key: jax.Array) -> None:
    branches = (lambda x: x, lambda x: 2 * x)
    assert [float(y) for y in fnn.parallel(*branches).apply({}, {}, 1.0)[0]] == [1, 2]
    assert float(fnn.parallel(*branches, join=jnp.add).apply({}, {}, 1.0)[0]) == 3


def test_residual_adds_the_shortcut(key: jax.Array) -> None:
    net = fnn.residual(fnn.dense(5), fnn.dense(5, bias=False))
    params, state = net.init(key, X)
    expected = X @ params["body"]["kernel"] + params["body"]["bias"] + X @ params["shortcut"]["kernel"]
    chex.assert_trees_all_close(net.apply(params, state, X)[0], expected, atol=1e-6)


def test_a_residual_of_another_shape_is_an_error_that_names_the_shortcut(key: jax.Array) -> None:
    with pytest.raises(fnn.LayerError, match=r"shape \(3, 4\) and the body's output \(3, 5\); pass shortcut="):
        fnn.residual(fnn.dense(5)).init(key, X)


def test_a_parameter_is_drawn_by_its_initializer(key: jax.Array) -> None:
    net = fnn.serial(token=fnn.parameter((2, 3), jax.nn.initializers.normal(0.02)))
    params, state = net.init(key)
    draw = jax.nn.initializers.normal(0.02)(fnn.fold(fnn.fold(key, "token"), "value"), (2, 3))
    chex.assert_trees_all_equal(net.apply(params, state)[0], draw)
