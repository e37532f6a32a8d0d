from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest

import fnn

X = jnp.ones((3, 4))


def test_calling_a_child_twice_shares_its_weights(key: jax.Array) -> None:
    net = fnn.wire(lambda f, x: f.layer(f.layer(x)), layer=fnn.dense(4))
    params, state = net.init(key, X)
    once = lambda x: fnn.dense(4).apply(params["layer"], {}, x)[0]
    chex.assert_trees_all_close(net.apply(params, state, X)[0], once(once(X)))


def test_a_second_call_draws_other_random_numbers(key: jax.Array) -> None:
    net = fnn.wire(lambda f, x: (f.noise(x), f.noise(x)), noise=fnn.gaussian_noise(1.0))
    (first, second), _ = net.apply({}, {}, X, key=key, train=True)
    alone = fnn.gaussian_noise(1.0)
    chex.assert_trees_all_equal(first, alone.apply({}, {}, X, key=fnn.fold(key, "noise"), train=True)[0])
    again = fnn.fold(fnn.fold(key, "noise"), "call_1")
    chex.assert_trees_all_equal(second, alone.apply({}, {}, X, key=again, train=True)[0])


def test_a_stateful_child_that_is_called_twice_sees_its_new_state(key: jax.Array) -> None:
    net = fnn.wire(lambda f, x: f.norm(f.norm(x) + 1), norm=fnn.batch_norm(momentum=0.5))
    params, state = net.init(key, X)
    _, new = net.apply(params, state, X, train=True)
    # batch means 1 and then 1 again: 0 -> 0.5 -> 0.75
    chex.assert_trees_all_close(new["norm"]["mean"], jnp.full(4, 0.75))


def test_a_child_that_is_called_in_training_alone_is_made(key: jax.Array) -> None:
    def forward(f: Any, x: Any) -> Any:
        y = f.main(x)
        return (y, f.auxiliary(x)) if f.train else y

    net = fnn.wire(forward, main=fnn.dense(2), auxiliary=fnn.dense(1))
    params, state = net.init(key, X)
    assert set(params) == {"main", "auxiliary"}
    assert net.apply(params, state, X)[0].shape == (3, 2)
    assert net.apply(params, state, X, train=True)[0][1].shape == (3, 1)


def test_lists_and_dicts_of_children_are_reached_by_index_and_name(key: jax.Array) -> None:
    def forward(f: Any, x: Any) -> Any:
        for block in f.blocks:
            x = block(x)
        assert len(f.blocks) == 2
        return f.heads.left(x), f.heads["right"](f.blocks[-1](x))

    net = fnn.wire(
        forward,
        blocks=[fnn.dense(4), fnn.serial(fnn.dense(4), fnn.batch_norm())],
        heads={"left": fnn.dense(1), "right": fnn.dense(2)},
    )
    params, state = net.init(key, X)
    assert fnn.at(params, "blocks/0/kernel").shape == (4, 4)
    assert fnn.at(state, "blocks/1/batch_norm_0/mean").shape == (4,)
    (left, right), new = net.apply(params, state, X, train=True)
    assert (left.shape, right.shape) == ((3, 1), (3, 2))
    chex.assert_trees_all_equal_shapes(state, new)
    assert not jnp.array_equal(fnn.at(new, "blocks/1/batch_norm_0/mean"), fnn.at(state, "blocks/1/batch_norm_0/mean"))


def test_keys_of_grouped_children_go_by_path(key: jax.Array) -> None:
    net = fnn.wire(lambda f, x: f.blocks[1](f.blocks[0](x)), blocks=[fnn.dense(4), fnn.dense(4)])
    params, _ = net.init(key, X)
    alone, _ = fnn.dense(4).init(fnn.fold(fnn.fold(key, "blocks"), "1"), X)
    chex.assert_trees_all_equal(params["blocks"]["1"], alone)


def test_tied_weights_are_read_from_the_handle(key: jax.Array) -> None:
    net = fnn.wire(lambda f, x: f.encode(x) @ f.encode.params["kernel"].T, encode=fnn.dense(2, bias=False))
    params, state = net.init(key, X)
    kernel = params["encode"]["kernel"]
    chex.assert_trees_all_close(net.apply(params, state, X)[0], X @ kernel @ kernel.T, atol=1e-6)


def test_a_stateless_child_works_inside_a_transformation(key: jax.Array) -> None:
    net = fnn.wire(lambda f, xs: jax.vmap(f.layer)(xs), layer=fnn.dense(2))
    params, state = net.init(key, X)
    chex.assert_trees_all_close(net.apply(params, state, X)[0], fnn.dense(2).apply(params["layer"], {}, X)[0])
    energy = fnn.wire(lambda f, x: jax.grad(lambda x: f.layer(x).sum())(x), layer=fnn.serial(fnn.dense(3), jnp.tanh))
    params, state = energy.init(key, X)
    assert energy.apply(params, state, X)[0].shape == X.shape


@pytest.mark.parametrize("jit", [False, True])
def test_a_stateful_child_inside_a_transformation_is_an_error(key: jax.Array, jit: bool) -> None:
    net = fnn.wire(lambda f, x: jax.lax.scan(lambda c, x: (c, f.norm(x)), 0, x)[1], norm=fnn.batch_norm())
    with pytest.raises(fnn.LayerError, match=r"fnn\.stack") as caught:
        (jax.jit(net.init) if jit else net.init)(key, X[None])
    assert caught.value.path == ("norm",)


def test_a_random_child_inside_a_transformation_is_given_its_key(key: jax.Array) -> None:
    hidden = fnn.wire(lambda f, x: jax.vmap(f.noise)(x), noise=fnn.gaussian_noise(1.0))
    with pytest.raises(fnn.LayerError, match=r"f\.noise\(x, key=key\)"):
        hidden.apply({}, {}, X, key=key, train=True)

    def forward(f: Any, x: Any, keys: Any) -> Any:
        return jax.vmap(lambda x, key: f.noise(x, key=key))(x, keys)

    given = fnn.wire(forward, noise=fnn.gaussian_noise(1.0))
    y, _ = given.apply({}, {}, X, jax.random.split(jax.random.key(3), 3), key=jax.random.key(4), train=True)
    assert not jnp.array_equal(y[0], y[1])
