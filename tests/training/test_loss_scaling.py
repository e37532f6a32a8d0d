from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 3)).astype(np.float32), RNG.normal(size=(8, 2)).astype(np.float32)
FLOAT32 = fnn.serial(fnn.dense(4), jnp.tanh, fnn.dense(2))
FLOAT16 = fnn.mixed_precision(FLOAT32, compute=jnp.float16)
SMALL = 1e-8  # gradients of the output are below the smallest float16, 6e-8


def objective(net: fnn.Layer, factor: float = 1.0) -> Any:
    return fnn.supervised(net, lambda y, target: factor * optax.losses.squared_error(y.astype(jnp.float32), target))


def train(net: fnn.Layer, optimizer: Any, *, factor: float = 1.0, steps: int = 5, y: Any = Y, **options: Any) -> Any:
    run = fnn.train_init(net, optimizer, jax.random.key(0), X)
    step, measured = jax.jit(fnn.train_step(objective(net, factor), optimizer, **options)), []
    for _ in range(steps):
        run, metrics = step(run, (X, y))
        measured.append(metrics)
    return run, measured


def test_gradients_that_underflow_in_float16_train_as_in_float32() -> None:
    clipped = optax.chain(optax.clip_by_global_norm(0.5 * SMALL), optax.sgd(0.5 / SMALL))
    start = fnn.train_init(FLOAT32, clipped, jax.random.key(0), X)
    without, _ = train(FLOAT16, clipped, factor=SMALL)
    chex.assert_trees_all_equal(without.params, start.params)
    expected, losses = train(FLOAT32, clipped, factor=SMALL)
    found, measured = train(FLOAT16, fnn.loss_scaling(clipped), factor=SMALL)
    chex.assert_trees_all_close(found.params, expected.params, atol=5e-3)
    assert measured[-1]["loss"] < 0.8 * measured[0]["loss"]
    assert [float(row["loss"]) for row in measured] == pytest.approx([float(row["loss"]) for row in losses], rel=1e-2)


def test_an_overflow_changes_nothing_but_the_scale_and_the_step() -> None:
    optimizer = fnn.loss_scaling(optax.adam(0.1), initial_scale=2.0**24)
    start = fnn.train_init(FLOAT16, optimizer, jax.random.key(0), X)
    run, (metrics,) = train(FLOAT16, optimizer, steps=1, y=1e3 * Y)
    chex.assert_trees_all_equal((run.params, run.opt_state.inner), (start.params, start.opt_state.inner))
    assert (int(run.step), float(run.opt_state.scale), int(run.opt_state.good_steps)) == (1, 2.0**23, 0)
    assert float(metrics["loss_scale"]) == 2.0**24
    assert float(metrics["loss"]) == pytest.approx(1e6 * np.mean(Y**2), rel=1e-2)


@pytest.mark.parametrize("non_finite", ["stop", "skip"])
def test_overflows_are_no_failure_of_training(non_finite: Any) -> None:
    """More of them in a row than the steps that fit skips before it stops."""
    optimizer = fnn.loss_scaling(optax.adam(0.1), initial_scale=2.0**24)
    run = fnn.train_init(FLOAT16, optimizer, jax.random.key(0), X)
    options = {"batch_size": 4, "progress": False, "non_finite": non_finite}
    after, history = fnn.fit(objective(FLOAT16), optimizer, run, (X, 1e3 * Y), epochs=12, **options)
    overflows = int(np.log2(2.0**24 / float(after.opt_state.scale)))
    assert 10 < overflows < 20
    assert int(after.opt_state.inner[0].count) == 24 - overflows  # updates of Adam
    assert history.get("skipped", np.zeros(1)).tolist() == [0] * len(history.get("skipped", [0]))
    assert not np.array_equal(after.params["dense_0"]["kernel"], run.params["dense_0"]["kernel"])


def test_the_scale_doubles_after_steps_without_overflow() -> None:
    optimizer = fnn.loss_scaling(optax.sgd(0.0), initial_scale=2.0**22, growth_interval=3)
    _, measured = train(FLOAT32, optimizer, steps=12)
    exponents = [int(np.log2(float(row["loss_scale"]))) for row in measured]
    assert exponents == [22, 22, 22, 23, 23, 23, 24, 24, 24, 24, 24, 24]


@pytest.mark.parametrize("cause", ["loss", "gradient"])
def test_what_no_scale_can_help_is_reported(cause: str) -> None:
    spoil = {"loss": lambda y: y * jnp.inf, "gradient": lambda y: jnp.sqrt(jnp.abs(y) * 0)}[cause]
    net = fnn.serial(fnn.dense(2), spoil)
    optimizer = fnn.loss_scaling(optax.sgd(0.1), initial_scale=4.0)
    run = fnn.train_init(net, optimizer, jax.random.key(0), X)
    with pytest.raises(fnn.NonFiniteError) as caught:
        fnn.fit(objective(net), optimizer, run, (X, Y), batch_size=4, epochs=4, progress=False)
    assert caught.value.step == {"loss": 0, "gradient": 2}[cause]


def test_runs_side_by_side_have_scales_of_their_own_and_batches_may_be_spread() -> None:
    def one(scale: Any) -> Any:
        return train(FLOAT16, fnn.loss_scaling(optax.sgd(0.1), initial_scale=scale), steps=2)

    many, _ = jax.vmap(one)(jnp.array([2.0**24, 2.0**10]))
    assert many.opt_state.scale[0] < 2.0**24
    assert many.opt_state.scale[1] == 2.0**10
    alone, _ = one(2.0**10)
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[1], many.params), alone.params, atol=1e-3)
    optimizer = fnn.loss_scaling(optax.sgd(0.1), initial_scale=2.0**10)
    step = fnn.train_step(objective(FLOAT16), optimizer, axis_name="part")
    run = fnn.train_init(FLOAT16, optimizer, jax.random.key(0), X)
    parts = (X.reshape(2, 4, 3), Y.reshape(2, 4, 2))
    for _ in range(2):
        spread, _ = jax.vmap(step, in_axes=(None, 0), axis_name="part")(run, parts)
        run = jax.tree.map(lambda leaf: leaf[0], spread)
    chex.assert_trees_all_close(run.params, alone.params, atol=1e-3)
