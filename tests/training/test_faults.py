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


def test_a_loss_that_is_finite_when_repeated_keeps_state_and_history() -> None:
    """It ended in a bare AssertionError: state and history were lost."""
    calls = []

    def spoil(y: Any) -> Any:
        """NaN in the second call of the second epoch, and never again."""
        calls.append(0)
        return np.full_like(y, np.nan if len(calls) == 4 else 0)

    def loss(y: Any, target: Any) -> Any:
        noise = jax.pure_callback(spoil, jax.ShapeDtypeStruct(target.shape, jnp.float32), target)
        return jnp.sum(y, axis=-1) + jax.lax.stop_gradient(noise)

    net = fnn.dense(2)
    run = fnn.train_init(net, OPTIMIZER, jax.random.key(0), X)
    batches = [(X, jnp.ones(4))] * 2
    with pytest.raises(fnn.NonFiniteError, match="repeated one by one: something is not deterministic") as caught:
        fnn.fit(fnn.supervised(net, loss), OPTIMIZER, run, batches, epochs=3, progress=False)
    error = caught.value
    assert (error.leaf, error.rows) == (None, None)
    assert 2 <= error.step <= 3
    assert int(error.run.step) == error.step
    assert error.history["step"].tolist() == [2]


def test_gradients_are_told_from_the_loss() -> None:
    """The derivative of a square root at 0 is infinite; the loss is 0."""
    net = fnn.serial(fnn.dense(2), lambda x: jnp.sqrt(jnp.abs(x) * 0))
    error = fault(net)
    assert error.leaf == "gradient of dense_0/bias"
    assert str(error).startswith("the gradients of step 0 are not finite")


CROSS_ENTROPY = optax.losses.softmax_cross_entropy_with_integer_labels


def stopped(net: fnn.Layer, x: Any, target: Any, loss: Any = CROSS_ENTROPY) -> fnn.NonFiniteError:
    run = fnn.train_init(net, OPTIMIZER, jax.random.key(0), x)
    batches = [(x[:4], target[:4]), (x[4:], target[4:])]
    with pytest.raises(fnn.NonFiniteError) as caught:
        fnn.fit(fnn.supervised(net, loss), OPTIMIZER, run, batches, progress=False)
    return caught.value


@pytest.mark.parametrize("loss", [CROSS_ENTROPY, lambda y, target: CROSS_ENTROPY(y, target)], ids=["optax", "custom"])
def test_labels_that_are_no_class_are_named_before_the_learning_rate(loss: Any) -> None:
    """-100 ended in NaN with the advice to lower the learning rate."""
    error = stopped(fnn.dense(3), np.ones((8, 2), np.float32), np.array([0, 1, 2, 0, 1, -100, 0, 7]), loss)
    assert str(error).startswith(
        "the loss of step 1 is nan: target holds -100 (row 1 of the batch, and 1 more), the output has 3 classes, "
        "0 to 2; give such rows weight 0."
    )
    assert "learning rate" not in str(error)


def test_ids_beyond_an_embedding_are_named_before_the_learning_rate() -> None:
    net = fnn.serial(fnn.embedding(5, 4), lambda x: x.mean(axis=1), fnn.dense(3))
    ids = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [1, 1], [2, 5], [0, 0], [1, 0]])
    error = stopped(net, ids, np.zeros(8, int))
    assert str(error).startswith(
        "the loss of step 1 is nan: x holds the id 5 (row 1 of the batch), embedding_0/embedding has the ids 0 to 4; "
        "make the vocabulary larger, or replace such ids."
    )


def test_integers_that_the_loss_can_handle_are_not_blamed() -> None:
    """Quantiles of a count: the target is no class, and the loss diverges for another reason."""
    loss = lambda y, target: jnp.where(y[:, 0] > -9, jnp.log(-1.0 - y[:, 0] ** 2), 0) + target
    error = stopped(fnn.dense(3), np.ones((8, 2), np.float32), np.array([0, 1, 2, 0, 1, 50, 0, 7]), loss)
    assert "classes" not in str(error)
    assert "Lower the learning rate" in str(error)
