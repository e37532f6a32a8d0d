from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)).astype(np.float32), RNG.normal(size=(20, 1)).astype(np.float32)
NET, OPTIMIZER = fnn.serial(fnn.dense(4), fnn.dropout(0.2), fnn.dense(1)), optax.adam(1e-2)
STEP = fnn.train_step(fnn.supervised(NET, optax.losses.squared_error), OPTIMIZER)


def start() -> Any:
    return fnn.train_init(NET, OPTIMIZER, jax.random.key(0), X)


def batches(epochs: int = 3) -> Any:
    return fnn.batches((X, Y), 4, key=jax.random.key(1), epochs=epochs)


def last(reports: Any) -> Any:
    return list(reports)[-1].run


def test_steps_within_one_call_are_the_steps_of_a_plain_loop() -> None:
    run, compiled, losses = start(), jax.jit(STEP), []
    for batch in batches():
        run, metrics = compiled(run, batch)
        losses.append(float(metrics["loss"]))
    reports = list(fnn.training(STEP, start(), batches()))
    chex.assert_trees_all_close(reports[-1].run.params, run.params, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([report.metrics["loss"] for report in reports]), losses, rtol=1e-5)
    assert sum(report.steps for report in reports) == 15


@pytest.mark.parametrize("every", [1, 2, 5, 100])
def test_the_result_does_not_depend_on_how_often_the_loop_reports(every: int) -> None:
    run = last(fnn.training(STEP, start(), batches(), every=every))
    chex.assert_trees_all_equal(run.params, last(fnn.training(STEP, start(), batches(), every=3)).params)


def test_an_iterable_of_batches_gives_the_same_run() -> None:
    expected = last(fnn.training(STEP, start(), batches()))
    run = last(fnn.training(STEP, start(), list(batches()), every=4))
    chex.assert_trees_all_close(run.params, expected.params, atol=1e-6)


def test_a_report_never_spans_two_epochs_and_tells_its_steps() -> None:
    steps = [report.steps for report in fnn.training(STEP, start(), batches(), every=3)]
    assert steps == [3, 2, 3, 2, 3, 2]
    assert [len(r.metrics["loss"]) for r in fnn.training(STEP, start(), list(batches()), every=4)] == [4, 4, 4, 3]


def test_what_is_given_and_what_is_yielded_stays_valid() -> None:
    run = start()
    kept = [report.run for report in fnn.training(STEP, run, batches(), every=2)]
    assert int(run.step) == 0
    assert [int(one.step) for one in kept] == [2, 4, 5, 7, 9, 10, 12, 14, 15]
    assert all(np.isfinite(leaf).all() for one in kept for leaf in jax.tree.leaves(one.params))


def test_a_second_loop_traces_nothing_again() -> None:
    traces = []

    def step(run: Any, batch: Any) -> Any:
        traces.append(1)
        return STEP(run, batch)

    last(fnn.training(step, start(), batches(), every=2))
    first = len(traces)
    last(fnn.training(step, start(), batches(), every=4))
    assert len(traces) == first == 1


def test_the_loop_runs_any_pure_step_over_any_state() -> None:
    def step(total: Any, batch: Any) -> Any:
        return total + batch.sum(), {"seen": batch.sum()}

    assert float(last(fnn.training(step, jnp.zeros(()), fnn.batches(jnp.arange(6.0), 2)))) == 15


def test_convolutions_within_the_loop_are_those_of_single_steps() -> None:
    images = np.random.default_rng(0).normal(size=(8, 6, 5, 2)).astype(np.float32)
    net = fnn.serial(fnn.conv(3, (3, 3)), jax.nn.relu, fnn.max_pool((2, 2)), fnn.flatten())
    step = fnn.train_step(fnn.supervised(net, lambda y, _: (y**2).sum(axis=-1)), OPTIMIZER)
    run = fnn.train_init(net, OPTIMIZER, jax.random.key(0), images)
    looped = last(fnn.training(step, run, fnn.batches((images, np.ones(8)), 4, epochs=2)))
    for _ in range(2):
        for part in (images[:4], images[4:]):
            run, _ = jax.jit(step)(run, (part, np.ones(4)))
    chex.assert_trees_all_close(looped.params, run.params, rtol=1e-4, atol=1e-6)


def test_zero_steps_for_a_report_is_an_error() -> None:
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        next(fnn.training(STEP, start(), batches(), every=0))
