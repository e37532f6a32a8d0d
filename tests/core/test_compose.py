from typing import Any

import jax
import jax.numpy as jnp
import pytest

import fnn
from fnn.core.compose import name_children

X = jnp.ones((2, 4))


def names(*layers: Any, **named: Any) -> list[str]:
    return [name for name, _ in name_children(layers, named)]


def test_positional_children_are_counted_per_kind() -> None:
    net = (fnn.conv(8, (3, 3)), jax.nn.relu, fnn.dropout(0.1), fnn.conv(8, (3, 3)))
    assert names(*net) == ["conv_0", "relu_0", "dropout_0", "conv_1"]


def test_a_function_named_like_a_layer_moves_no_parameters(key: jax.Array) -> None:
    def dense(x: Any) -> Any:
        return x

    with_function = fnn.serial(dense, fnn.dense(3))
    assert [name for name, _ in with_function.children] == ["dense_1", "dense_0"]
    assert set(with_function.init(key, X)[0]) == {"dense_0"}


@pytest.mark.parametrize("extra", [jnp.tanh, fnn.dropout(0.2), fnn.gaussian_noise(0.1), fnn.reshape(4)])
def test_inserting_what_owns_nothing_changes_no_path_and_no_value(key: jax.Array, extra: Any) -> None:
    plain = fnn.serial(fnn.dense(4), fnn.dense(4)).init(key, X)
    longer = fnn.serial(extra, fnn.dense(4), extra, fnn.dense(4), extra).init(key, X)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), plain, longer))
    assert jax.tree.structure(plain) == jax.tree.structure(longer)


@pytest.mark.parametrize("name", ["", "a/b", "a*", "train", "call_1"])
def test_names_that_would_break_paths_or_keys_are_errors(name: str) -> None:
    with pytest.raises(fnn.LayerError, match="cannot name a layer"):
        fnn.serial(**{name: fnn.dense(2)})


def test_the_same_layer_twice_is_two_sets_of_weights(key: jax.Array) -> None:
    layer = fnn.dense(4)
    params, _ = fnn.serial(layer, layer).init(key, X)
    assert not jnp.array_equal(params["dense_0"]["kernel"], params["dense_1"]["kernel"])


def test_errors_name_the_path_through_every_kind_of_parent(key: jax.Array) -> None:
    bad = fnn.serial(fnn.dense(4), fnn.conv(4, (3,)))
    net = fnn.serial(encoder=fnn.remat(fnn.residual(fnn.mixed_precision(bad))))
    with pytest.raises(fnn.LayerError) as caught:
        net.init(key, X)
    assert caught.value.path == ("encoder", "body", "conv_0")


def test_a_network_with_traced_hyperparameters_leaves_no_tracer_behind(key: jax.Array) -> None:
    def train(rate: Any) -> Any:
        net = fnn.serial(fnn.dense(4), fnn.dropout(rate), fnn.dense(1))
        params, state = net.init(key, X)
        return net.apply(params, state, X, key=key, train=True)[0]

    with jax.checking_leaks():
        assert jax.vmap(train)(jnp.array([0.1, 0.5])).shape == (2, 2, 1)
