from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import fnn

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 3)).astype(np.float32), RNG.normal(size=(8, 2)).astype(np.float32)
NET = fnn.serial(fnn.dense(4), jnp.tanh, fnn.dense(2))
OBJECTIVE = fnn.supervised(NET, optax.losses.squared_error)


def test_one_step_of_gradient_descent_is_the_rule_written_by_hand(key: jax.Array) -> None:
    optimizer = optax.sgd(0.1)
    run = fnn.train_init(NET, optimizer, key, X)
    new, metrics = fnn.train_step(OBJECTIVE, optimizer)(run, (X, Y))
    w0, b0 = (np.asarray(run.params["dense_0"][name], np.float64) for name in ("kernel", "bias"))
    w1, b1 = (np.asarray(run.params["dense_1"][name], np.float64) for name in ("kernel", "bias"))
    hidden = np.tanh(X @ w0 + b0)
    error = hidden @ w1 + b1 - Y
    assert float(metrics["loss"]) == pytest.approx(np.mean(error**2), rel=1e-5)
    delta = 2 * error / error.size
    back = (delta @ w1.T) * (1 - hidden**2)
    expected = {
        "dense_0": {"kernel": w0 - 0.1 * X.T @ back, "bias": b0 - 0.1 * back.sum(axis=0)},
        "dense_1": {"kernel": w1 - 0.1 * hidden.T @ delta, "bias": b1 - 0.1 * delta.sum(axis=0)},
    }
    chex.assert_trees_all_close(new.params, expected, atol=1e-6)
    assert int(new.step) == 1


def test_a_train_state_is_arrays_only_and_keeps_its_shapes(key: jax.Array) -> None:
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    run = fnn.train_init(NET, optimizer, key, X)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(run))
    new, _ = jax.jit(fnn.train_step(OBJECTIVE, optimizer))(run, (X, Y))
    chex.assert_trees_all_equal_shapes_and_dtypes(run, new)


def test_every_step_and_every_run_draws_its_own_numbers() -> None:
    net = fnn.serial(fnn.dense(4), fnn.dropout(0.5), fnn.dense(2))
    step = fnn.train_step(fnn.supervised(net, optax.losses.squared_error), optax.sgd(0.0))
    losses = []
    for seed in (0, 1):
        run = fnn.train_init(net, optax.sgd(0.0), jax.random.key(seed), X)._replace(
            params=net.init(jax.random.key(5), X)[0]
        )
        for _ in range(2):
            run, metrics = step(run, (X, Y))
            losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 4


def test_augmentation_happens_within_the_step_with_a_key_of_its_own(key: jax.Array) -> None:
    def augment(key: jax.Array, batch: Any) -> Any:
        x, y = batch
        return x * 0, y + jax.random.normal(key, ())

    optimizer = optax.sgd(0.0)
    run = fnn.train_init(NET, optimizer, key, X)
    step = jax.jit(fnn.train_step(OBJECTIVE, optimizer, augment=augment))
    run, first = step(run, (X, Y))
    run, second = step(run, (X, Y))
    assert float(first["loss"]) != float(second["loss"])


def test_many_runs_train_side_by_side_as_they_would_alone() -> None:
    optimizer = optax.sgd(0.1)
    step = fnn.train_step(OBJECTIVE, optimizer)
    keys = jax.random.split(jax.random.key(3), 3)
    runs = jax.vmap(lambda key: fnn.train_init(NET, optimizer, key, X))(keys)
    many, _ = jax.jit(jax.vmap(step, in_axes=(0, None)))(runs, (X, Y))
    for number in range(3):
        at = lambda tree, number=number: jax.tree.map(lambda leaf: leaf[number], tree)
        alone, _ = step(at(runs), (X, Y))
        chex.assert_trees_all_close(alone.params, at(many.params), atol=1e-6)


def test_a_hyperparameter_may_be_traced(key: jax.Array) -> None:
    def train(rate: Any) -> Any:
        optimizer = optax.sgd(rate)
        run = fnn.train_init(NET, optimizer, key, X)
        return fnn.train_step(OBJECTIVE, optimizer)(run, (X, Y))[0].params["dense_1"]["bias"]

    rates = jnp.array([0.0, 0.1, 0.2])
    moved = jax.jit(jax.vmap(train))(rates)
    chex.assert_trees_all_close(moved[2], 2 * moved[1], atol=1e-6)


def test_a_batch_that_is_spread_over_a_mapped_axis_gives_the_step_of_the_whole_batch(key: jax.Array) -> None:
    optimizer = optax.sgd(0.1)
    run = fnn.train_init(NET, optimizer, key, X)
    whole, metrics = fnn.train_step(OBJECTIVE, optimizer)(run, (X, Y))
    step = fnn.train_step(OBJECTIVE, optimizer, axis_name="shard")
    parts = (X.reshape(4, 2, 3), Y.reshape(4, 2, 2))
    spread, their_metrics = jax.vmap(step, in_axes=(None, 0), axis_name="shard")(run, parts)
    chex.assert_trees_all_close(whole.params, jax.tree.map(lambda leaf: leaf[1], spread.params), atol=1e-6)
    assert float(metrics["loss"]) == pytest.approx(float(their_metrics["loss"][2]), rel=1e-5)


def test_the_step_runs_under_shard_map(key: jax.Array) -> None:
    optimizer = optax.sgd(0.1)
    run = fnn.train_init(NET, optimizer, key, X)
    step = fnn.train_step(OBJECTIVE, optimizer, axis_name="data")
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.shard_map(
        step, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec("data")), out_specs=PartitionSpec(), check_vma=False
    )
    chex.assert_trees_all_close(jax.jit(sharded)(run, (X, Y))[0].params, step_alone(run, optimizer), atol=1e-6)


def step_alone(run: Any, optimizer: Any) -> Any:
    return fnn.train_step(OBJECTIVE, optimizer)(run, (X, Y))[0].params


def test_optimizers_that_ask_for_the_loss_function_get_it(key: jax.Array) -> None:
    optimizer = optax.lbfgs()
    run = fnn.train_init(NET, optimizer, key, X)
    step = jax.jit(fnn.train_step(OBJECTIVE, optimizer))
    losses = []
    for _ in range(6):
        run, metrics = step(run, (X, Y))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0]


def test_gradients_accumulate_with_optax(key: jax.Array) -> None:
    optimizer = optax.MultiSteps(optax.sgd(0.1), every_k_schedule=2)
    transformation = optimizer.gradient_transformation()
    run = fnn.train_init(NET, transformation, key, X)
    step = fnn.train_step(OBJECTIVE, transformation)
    half, _ = step(run, (X[:4], Y[:4]))
    chex.assert_trees_all_equal(half.params, run.params)
    both, _ = step(half, (X[4:], Y[4:]))
    plain = optax.sgd(0.1)
    expected = step_alone(run._replace(opt_state=plain.init(run.params)), plain)
    chex.assert_trees_all_close(both.params, expected, atol=1e-6)


def test_a_legacy_key_is_an_error() -> None:
    legacy: Any = np.zeros(2, np.uint32)
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        fnn.train_init(NET, optax.sgd(0.1), legacy, X)


NORMED = fnn.serial(fnn.dense(4), fnn.batch_norm(), fnn.dense(2))


def test_a_run_starts_from_given_weights(key: jax.Array) -> None:
    given = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) + 1, NORMED.init(jax.random.key(7), X)[0])
    run = fnn.train_init(NORMED, optax.adam(1e-3), key, X, params=given)
    fresh = fnn.train_init(NORMED, optax.adam(1e-3), key, X)
    chex.assert_trees_all_equal_shapes_and_dtypes(run, fresh)
    chex.assert_trees_all_close(run.params, given, atol=1e-6)
    chex.assert_trees_all_equal(run.state, fresh.state)
    given["dense_0"]["kernel"][:] = 0
    assert np.all(np.asarray(run.params["dense_0"]["kernel"]) != 0)
    state = jax.tree.map(lambda leaf: leaf + 3, fresh.state)
    both = fnn.train_init(NORMED, optax.adam(1e-3), key, X, params=run.params, state=state)
    chex.assert_trees_all_equal((both.params, both.state), (run.params, state))
    of_state = fnn.train_init(NORMED, optax.adam(1e-3), key, X, state=state)
    chex.assert_trees_all_equal((of_state.params, of_state.state), (fresh.params, state))


def test_given_weights_that_do_not_fit_are_listed(key: jax.Array) -> None:
    params, state = NORMED.init(key, X)
    given = {
        "dense_0": {"kernel": np.ones((3, 5)), "bias": params["dense_0"]["bias"].astype(int)},
        "dense_1": params["dense_1"],
        "head": {"bias": np.ones(2)},
    }
    with pytest.raises(ValueError, match="params do not fit the network: 5 arrays differ") as caught:
        fnn.train_init(NORMED, optax.sgd(0.1), key, X, params=given, state=state)
    assert [line.split() for line in str(caught.value).split("\n")[1:]] == [
        ["array", "the", "network", "given"],
        ["batch_norm_0/bias", "float32[4]", "nothing"],
        ["batch_norm_0/scale", "float32[4]", "nothing"],
        ["dense_0/bias", "float32[4]", "int32[4]"],
        ["dense_0/kernel", "float32[3,4]", "float64[3,5]"],
        ["head/bias", "nothing", "float64[2]"],
    ]
    with pytest.raises(ValueError, match="state does not fit the network: 2 arrays differ"):
        fnn.train_init(NORMED, optax.sgd(0.1), key, X, params=params, state={})
