from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest

import fnn

X = jax.random.normal(jax.random.key(9), (3, 4))
BLOCK = fnn.serial(fnn.dense(4), fnn.batch_norm(), jnp.tanh, fnn.dropout(0.3))


@pytest.mark.parametrize("train", [False, True])
def test_scan_and_unrolling_are_the_same_network(key: jax.Array, train: bool) -> None:
    scanned, unrolled = fnn.stack(BLOCK, 3), fnn.stack(BLOCK, 3, unroll=True)
    params, state = scanned.init(key, X)
    chex.assert_trees_all_equal((params, state), unrolled.init(key, X))
    run = lambda net: net.apply(params, state, X, key=jax.random.key(2), train=train)
    chex.assert_trees_all_close(run(scanned), run(unrolled), atol=1e-6)


def test_a_stack_is_its_blocks_in_a_row(key: jax.Array) -> None:
    net = fnn.stack(BLOCK, 2)
    params, state = net.init(key, X)
    y = X
    for number in range(2):
        mine = jax.tree.map(lambda leaf, number=number: leaf[number], params)
        y, _ = BLOCK.apply(mine, state[str(number)], y)
    chex.assert_trees_all_close(net.apply(params, state, X)[0], y, atol=1e-6)


def test_a_deeper_stack_keeps_its_earlier_blocks(key: jax.Array) -> None:
    short, long = fnn.stack(BLOCK, 2).init(key, X)[0], fnn.stack(BLOCK, 5).init(key, X)[0]
    chex.assert_trees_all_equal(short, jax.tree.map(lambda leaf: leaf[:2], long))


def test_further_inputs_go_to_every_block(key: jax.Array) -> None:
    net = fnn.stack(fnn.layer(None, lambda x, step: x + step, name="shift"), 3)
    chex.assert_trees_all_close(net.apply({}, {}, X, 2.0)[0], X + 6)


def test_a_block_may_depend_on_its_traced_number() -> None:
    net = fnn.stack(lambda number: fnn.layer(None, lambda x: x + number, name="shift"), 4)
    chex.assert_trees_all_close(net.apply({}, {}, X)[0], X + 6)


def test_a_block_that_changes_the_shape_is_an_error(key: jax.Array) -> None:
    with pytest.raises(fnn.LayerError, match="keeps the shape of its input"):
        fnn.stack(fnn.dense(5), 2).init(key, X)


def test_parameters_of_another_depth_are_an_error(key: jax.Array) -> None:
    params, state = fnn.stack(fnn.dense(4), 2).init(key, X)
    with pytest.raises(fnn.LayerError, match="params hold 2 blocks, this stack has 3"):
        fnn.stack(fnn.dense(4), 3).apply(params, state, X)


@pytest.mark.parametrize("size", [0, -1, 2.0])
def test_a_size_that_is_no_positive_int_is_an_error(size: Any) -> None:
    for wrapper in (fnn.stack, fnn.ensemble):
        with pytest.raises(fnn.LayerError, match="positive int"):
            wrapper(fnn.dense(4), size)


def test_an_ensemble_is_its_members(key: jax.Array) -> None:
    net = fnn.ensemble(BLOCK, 3)
    params, state = net.init(key, X)
    y, _ = net.apply(params, state, X)
    for number in range(3):
        one = jax.tree.map(lambda leaf, number=number: leaf[number], (params, state))
        chex.assert_trees_all_close(y[number], BLOCK.apply(*one, X)[0], atol=1e-6)
    assert not jnp.array_equal(y[0], y[1])


def test_remat_changes_no_tree_no_value_and_no_gradient(key: jax.Array) -> None:
    plain, saved = fnn.serial(block=BLOCK), fnn.serial(block=fnn.remat(BLOCK))
    params, state = plain.init(key, X)
    chex.assert_trees_all_equal((params, state), saved.init(key, X))

    def loss(params: Any, net: fnn.Layer) -> Any:
        return net.apply(params, state, X, key=jax.random.key(2), train=True)[0].sum()

    chex.assert_trees_all_close(jax.grad(loss)(params, plain), jax.grad(loss)(params, saved), atol=1e-6)


def test_remat_recomputes_in_the_backward_pass(key: jax.Array) -> None:
    net = fnn.remat(fnn.serial(fnn.dense(4), jnp.tanh))
    params, state = net.init(key, X)
    gradient = str(jax.make_jaxpr(jax.grad(lambda params: net.apply(params, state, X)[0].sum()))(params))
    assert "remat" in gradient or "checkpoint" in gradient


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_outside(key: jax.Array) -> None:
    seen = []

    def spy(x: Any) -> Any:
        seen.append(x.dtype.name)
        return x

    net = fnn.mixed_precision(fnn.serial(fnn.dense(4), spy, fnn.batch_norm()))
    params, state = net.init(key, X)
    y, new = net.apply(params, state, X, train=True)
    assert set(seen) == {"bfloat16"}
    assert y.dtype == jnp.float32
    assert {leaf.dtype.name for leaf in jax.tree.leaves((params, state, new))} == {"float32"}


def test_mixed_precision_casts_raw_parameters_too(key: jax.Array) -> None:
    net = fnn.mixed_precision(fnn.embedding(5, 4))
    params, state = net.init(key, jnp.arange(3))
    y, _ = net.apply(params, state, jnp.arange(3))
    assert y.dtype == jnp.float32
    chex.assert_trees_all_equal(y, params["embedding"][:3].astype(jnp.bfloat16).astype(jnp.float32))


def test_mixed_precision_plans_networks_of_integers_as_it_runs_them(key: jax.Array) -> None:
    # They were planned in float32: caches had another dtype than what is written to them.
    planned: list[str] = []

    def spy(x: Any) -> Any:
        planned.append(x.dtype.name)
        return x

    ids = jnp.arange(6).reshape(2, 3)
    tied = lambda f, ids: f.body(f.embedding(ids)) @ f.embedding.params["embedding"].T
    body = fnn.serial(fnn.attention(2, causal=True, cache=4), spy)
    net = fnn.mixed_precision(fnn.serial(fnn.wire(tied, embedding=fnn.embedding(5, 4), body=body), spy))
    params, state = net.init(key, ids)
    assert set(planned) == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"bfloat16", "int32"}
    y, new = net.apply(params, state, ids)
    assert y.dtype == jnp.float32
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    assert net._plan(ids).output.dtype == jnp.float32

    bare = fnn.language_model(5, 8, fnn.encoder(2, 2, 8, causal=True, cache=4, positions=fnn.Rotary()))
    model = fnn.mixed_precision(bare)
    params, state = model.init(key, ids)
    y, new = model.apply(params, state, ids)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    chex.assert_trees_all_equal(params, bare.init(key, ids)[0])
    assert y.dtype == jnp.float32


def test_wrappers_keep_name_and_children() -> None:
    net = fnn.serial(fnn.dense(4), jnp.tanh)
    for wrapped in (fnn.remat(net), fnn.ensemble(net, 2), fnn.mixed_precision(net)):
        assert wrapped.name == "serial"
        assert wrapped.children == net.children


def test_a_frozen_part_stays_what_it_is_while_the_rest_is_trained(key: jax.Array) -> None:
    # Parameters whose updates are zeroed left batch statistics moving and dropout on.
    free = fnn.serial(trunk=BLOCK, head=fnn.dense(2))
    net = fnn.serial(trunk=fnn.frozen(BLOCK), head=fnn.dense(2))
    params, state = net.init(key, X)
    chex.assert_trees_all_equal((params, state), free.init(key, X))

    def loss(params: Any, x: Any, net: fnn.Layer, train: bool) -> Any:
        y, new = net.apply(params, state, x, train=train)
        return jnp.sum(y**2), (y, new)

    (grads, x_grad), (y, new) = jax.grad(loss, (0, 1), has_aux=True)(params, X, net, True)
    chex.assert_trees_all_equal(new, state)
    chex.assert_trees_all_equal(y, free.apply(params, state, X)[0])
    wanted, wanted_x = jax.grad(loss, (0, 1), has_aux=True)(params, X, free, False)[0]
    chex.assert_trees_all_equal(grads["trunk"], jax.tree.map(jnp.zeros_like, params["trunk"]))
    chex.assert_trees_all_close((grads["head"], x_grad), (wanted["head"], wanted_x), rtol=1e-6)


def test_a_frozen_network_is_captured_and_mapped_like_any_other(key: jax.Array) -> None:
    net = fnn.frozen(fnn.serial(trunk=BLOCK, blocks=fnn.stack(fnn.dense(4), 2)))
    assert [name for name, _ in net.children] == ["trunk", "blocks"]
    params, state = net.init(key, X)
    y, _ = net.apply(params, state, X)
    (captured, outputs), _ = fnn.capture(net, "trunk", "blocks").apply(params, state, X, train=True)
    chex.assert_trees_all_equal(captured, y)
    chex.assert_trees_all_equal(outputs["blocks"], y)
    doubled = lambda layer: fnn.serial(layer, lambda x: 2 * x) if layer.name == "tanh" else layer
    mapped = fnn.map_layers(doubled, net)
    grads = jax.grad(lambda params: mapped.apply(params, state, X, train=True)[0].sum())(params)
    chex.assert_trees_all_equal(grads, jax.tree.map(jnp.zeros_like, params))
    assert not jnp.array_equal(mapped.apply(params, state, X)[0], y)
