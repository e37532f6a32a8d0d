import chex
import jax
import jax.numpy as jnp
import pytest

import fnn

X = jax.random.normal(jax.random.key(9), (3, 4))
BLOCK = fnn.residual(fnn.serial(mixer=fnn.dense(4), norm=fnn.batch_norm()))
NET = fnn.serial(fnn.dense(4), fnn.stack(BLOCK, 2), fnn.remat(fnn.serial(fnn.dense(3), jnp.tanh)), head=fnn.dense(2))


def test_capturing_changes_neither_output_nor_state_nor_trees(key: jax.Array) -> None:
    net = fnn.capture(NET, "*mixer", "dense_0")
    params, state = NET.init(key, X)
    chex.assert_trees_all_equal((params, state), net.init(key, X))
    (y, _), new = net.apply(params, state, X, train=True)
    chex.assert_trees_all_close((y, new), NET.apply(params, state, X, train=True), atol=1e-6)


def test_outputs_come_by_path_and_by_block(key: jax.Array) -> None:
    params, state = NET.init(key, X)
    (_, outputs), _ = fnn.capture(NET, "*mixer", "dense_0", "*tanh_0").apply(params, state, X)
    assert set(outputs) == {"dense_0", "stack_0/0/body/mixer", "stack_0/1/body/mixer", "serial_0/tanh_0"}
    dense = fnn.dense(4).apply(params["dense_0"], {}, X)[0]
    chex.assert_trees_all_close(outputs["dense_0"], dense)


def test_capture_maps_over_parameters(key: jax.Array) -> None:
    many = jax.vmap(lambda key: NET.init(key, X))(jax.random.split(key, 3))
    run = lambda params, state: fnn.capture(NET, "head").apply(params, state, X)[0]
    y, outputs = jax.vmap(run)(*many)
    chex.assert_trees_all_equal(outputs["head"], y)


def test_a_layer_that_is_called_twice_gives_both_outputs(key: jax.Array) -> None:
    net = fnn.wire(lambda f, x: f.layer(f.layer(x)), layer=fnn.dense(4))
    params, state = net.init(key, X)
    (y, outputs), _ = fnn.capture(net, "layer").apply(params, state, X)
    first, second = outputs["layer"]
    chex.assert_trees_all_equal(second, y)
    assert not jnp.array_equal(first, second)


def test_a_pattern_that_matches_nothing_lists_the_paths() -> None:
    with pytest.raises(fnn.LayerError, match=r"'attention' matches no layer; the network has dense_0, stack_0"):
        fnn.capture(NET, "attention")


def test_the_derivative_by_a_captured_output_is_reached_by_surgery(key: jax.Array) -> None:
    shift = lambda layer: fnn.serial(layer, lambda x: 2 * x) if layer.name == "dense" else layer
    net = fnn.map_layers(shift, fnn.serial(a=fnn.dense(4), b=fnn.serial(fnn.dense(4))))
    params, _ = net.init(key, X)
    assert set(params["a"]) == {"dense_0"}
    assert set(params["b"]["dense_0"]) == {"dense_0"}


def test_surgery_reaches_through_every_combinator(key: jax.Array) -> None:
    seen = []
    net = fnn.serial(
        fnn.stack(fnn.residual(fnn.dense(4)), 2),
        fnn.remat(fnn.mixed_precision(fnn.ensemble(fnn.serial(fnn.dense(4)), 2))),
        wired=fnn.wire(lambda f, x: f.list[0](x), list=[fnn.dense(2)]),
    )
    same = fnn.map_layers(lambda layer: seen.append(layer.name) or layer, net)
    assert seen.count("dense") == 3
    chex.assert_trees_all_equal(net.init(key, X), same.init(key, X))


@pytest.mark.parametrize("unroll", [False, True])
def test_blocks_that_depend_on_their_number_stay_what_they_are(key: jax.Array, unroll: bool) -> None:
    # Rebuilt, every block was the first one: 1 * x in place of 6 * x.
    scaled = lambda number: fnn.serial(fnn.dense(4), lambda x: (number + 1) * x)
    net = fnn.serial(fnn.stack(scaled, 3, unroll=unroll))
    params, state = net.init(key, X)
    y, _ = net.apply(params, state, X)
    wanted = X
    for number in range(3):
        kernel, bias = (params["stack_0"]["dense_0"][name][number] for name in ("kernel", "bias"))
        wanted = (number + 1) * (wanted @ kernel + bias)
    chex.assert_trees_all_close(y, wanted, rtol=1e-5)
    mapped = fnn.map_layers(lambda layer: layer, net)
    chex.assert_trees_all_equal(mapped.init(key, X), (params, state))
    chex.assert_trees_all_equal(mapped.apply(params, state, X)[0], y)
    (captured, outputs), _ = fnn.capture(net, "*dense_0").apply(params, state, X)
    chex.assert_trees_all_close(captured, y, rtol=1e-6)
    assert set(outputs) == {f"stack_0/{number}/dense_0" for number in range(3)}
    chex.assert_trees_all_close(3 * outputs["stack_0/2/dense_0"], y, rtol=1e-6)
    wrapped = lambda layer: fnn.remat(layer) if layer.name == "dense" else layer
    chex.assert_trees_all_close(fnn.map_layers(wrapped, net).apply(params, state, X)[0], y, rtol=1e-6)
