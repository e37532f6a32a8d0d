from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.training.faults import find_non_finite

X = jnp.ones((4, 3))
OPTIMIZER = optax.sgd(0.1)


def fault(net: fnn.Layer, change: Any = lambda run: run, x: Any = X) -> fnn.NonFiniteError:
    objective = fnn.supervised(net, lambda y, target: jnp.sum(y, axis=-1))
    run = change(fnn.train_init(net, OPTIMIZER, jax.random.key(0), X))
    step = fnn.train_step(objective, OPTIMIZER)
    return find_non_finite(objective, step, run, [((x, jnp.ones(4)), np.arange(4))])


def test_the_batch_is_looked_at_first() -> None:
    error = fault(fnn.dense(2), x=X.at[1, 1].set(jnp.inf))
    assert (error.leaf, error.step) == ("batch[0]", 0)
    assert error.rows is not None
    assert error.rows.tolist() == [0, 1, 2, 3]
    assert "Its batch are the rows 0, 1, 2, 3 of the data." in str(error)


def test_then_parameters_and_state_by_path() -> None:
    net = fnn.serial(fnn.dense(2), fnn.batch_norm())
    spoil = lambda run: run._replace(
        params={**run.params, "batch_norm_0": {"scale": jnp.full(2, jnp.nan), "bias": X[0, :2]}}
    )
    assert fault(net, spoil).leaf == "params batch_norm_0/scale"


def test_then_gradients() -> None:
    net = fnn.serial(fnn.dense(2), lambda x: jnp.log(jnp.abs(x) * 0))
    assert fault(net).leaf == "gradient of dense_0/bias"


def test_a_loss_that_is_bad_by_itself_is_named_last() -> None:
    net = fnn.serial(fnn.dense(2), lambda x: jax.lax.stop_gradient(x) * jnp.inf)
    assert fault(net).leaf == "loss"


def test_steps_that_are_finite_when_repeated_are_said_so() -> None:
    with pytest.raises(AssertionError, match="were finite when they were repeated"):
        fault(fnn.dense(2))


def test_gradients_are_told_from_the_loss() -> None:
    """The derivative of a square root at 0 is infinite; the loss is 0."""
    net = fnn.serial(fnn.dense(2), lambda x: jnp.sqrt(jnp.abs(x) * 0))
    error = fault(net)
    assert error.leaf == "gradient of dense_0/bias"
    assert str(error).startswith("the gradients of step 0 are not finite")
