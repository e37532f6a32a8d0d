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
NET = fnn.dense(2)
OBJECTIVE = fnn.supervised(NET, optax.losses.squared_error)
ADAM = optax.adam(0.1)


def trained(optimizer: Any, steps: int, **options: Any) -> list[fnn.TrainState]:
    run = fnn.train_init(NET, optimizer, jax.random.key(0), X)
    step, runs = jax.jit(fnn.train_step(OBJECTIVE, optimizer, **options)), []
    for number in range(steps):
        batch = (X, Y if number != 2 or not options else Y * np.float32("nan"))
        run, _ = step(run, batch)
        runs.append(run)
    return runs


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_average_is_the_corrected_sum_over_all_updates(decay: float) -> None:
    plain, averaged = trained(ADAM, 5), trained(fnn.ema(ADAM, decay), 5)
    chex.assert_trees_all_equal(plain[-1].params, averaged[-1].params)
    for count in range(1, 6):
        weights = (1 - decay) * decay ** np.arange(count - 1.0, -1, -1)
        kernels = np.stack([np.asarray(run.params["kernel"], np.float64) for run in plain[:count]])
        expected = np.tensordot(weights / weights.sum(), kernels, 1)
        np.testing.assert_allclose(fnn.ema_params(averaged[count - 1])["kernel"], expected, rtol=2e-6)


def test_a_decay_that_rounds_to_one_averages_all_updates_evenly() -> None:
    """The average was NaN: log(decay) is 0."""
    runs = trained(fnn.ema(ADAM, 0.99999999), 4)
    expected = np.mean([np.asarray(run.params["kernel"], np.float64) for run in runs], axis=0)
    np.testing.assert_allclose(fnn.ema_params(runs[-1])["kernel"], expected, rtol=2e-6)


def test_before_the_first_update_the_average_is_the_parameters() -> None:
    run = fnn.train_init(NET, fnn.ema(ADAM), jax.random.key(0), X)
    chex.assert_trees_all_equal(fnn.ema_params(run), run.params)


def test_a_step_that_is_skipped_is_not_averaged() -> None:
    runs = trained(fnn.ema(ADAM, 0.5), 3, skip_non_finite=True)
    chex.assert_trees_all_equal(fnn.ema_params(runs[2]), fnn.ema_params(runs[1]))


def test_bfloat16_parameters_are_averaged_in_float32() -> None:
    net = fnn.dense(2, dtype=jnp.bfloat16)
    run = fnn.train_init(net, fnn.ema(ADAM), jax.random.key(0), X)
    assert jax.tree.leaves(run.opt_state.average)[0].dtype == jnp.float32
    chex.assert_trees_all_equal(fnn.ema_params(run), run.params)


def test_runs_side_by_side_have_averages_of_their_own_and_decay_may_be_traced() -> None:
    def train(decay: Any) -> Any:
        optimizer = fnn.ema(ADAM, decay)
        run = fnn.train_init(NET, optimizer, jax.random.key(0), X)
        step = fnn.train_step(OBJECTIVE, optimizer)
        run, _ = jax.lax.scan(lambda run, _: step(run, (X, Y)), run, None, 4)
        return run

    many = jax.jit(jax.vmap(train))(jnp.array([0.5, 0.9]))
    alone = trained(fnn.ema(ADAM, 0.9), 4)[-1]
    found = jax.tree.map(lambda leaf: leaf[1], fnn.ema_params(many))
    chex.assert_trees_all_close(found, fnn.ema_params(alone), rtol=1e-5)


def test_fit_validates_with_the_average_and_returns_the_trained_run() -> None:
    optimizer = fnn.ema(optax.sgd(0.5), 0.9)
    run = fnn.train_init(NET, optimizer, jax.random.key(0), X)
    seen: list[float] = []

    def on_epoch(run: fnn.TrainState, row: Any) -> None:
        seen.append(fnn.evaluate(OBJECTIVE, fnn.ema_params(run), run.state, (X, Y))["loss"])

    stopping = fnn.early_stopping(1, minimize="validation/loss")
    options = {"validation": (X, Y), "early_stopping": stopping, "on_epoch": on_epoch, "progress": False}
    after, history = fnn.fit(
        OBJECTIVE, optimizer, run, (X, Y), batch_size=4, epochs=6, evaluate_with=fnn.ema_params, **options
    )
    assert history["validation/loss"].tolist() == pytest.approx(seen, rel=1e-6)
    own = fnn.evaluate(OBJECTIVE, after.params, after.state, (X, Y))["loss"]
    best = int(np.argmin(seen))
    assert int(after.step) == history["step"][best]
    averaged = fnn.evaluate(OBJECTIVE, fnn.ema_params(after), after.state, (X, Y))["loss"]
    assert averaged == pytest.approx(seen[best], rel=1e-6)
    assert own != pytest.approx(averaged, rel=1e-4)
