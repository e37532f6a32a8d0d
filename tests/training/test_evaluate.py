from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from tests.compilations import compilations

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(23, 3)).astype(np.float32), RNG.integers(0, 4, 23)
NET = fnn.serial(fnn.dense(4), fnn.batch_norm())
CROSS_ENTROPY = optax.losses.softmax_cross_entropy_with_integer_labels
OBJECTIVE = fnn.supervised(NET, CROSS_ENTROPY, metrics={"accuracy": fnn.accuracy, "confusion": fnn.confusion_matrix(4)})
PARAMS, STATE = NET.init(jax.random.key(0), X)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 23, 100])
def test_evaluation_is_exact_whatever_the_batch_size(batch_size: int) -> None:
    found = fnn.evaluate(OBJECTIVE, PARAMS, STATE, (X, Y), batch_size=batch_size)
    logits = NET.apply(PARAMS, STATE, X)[0]
    assert found["loss"] == pytest.approx(float(CROSS_ENTROPY(logits, Y).mean()), rel=1e-6)
    assert found["accuracy"] == pytest.approx(float((logits.argmax(axis=-1) == Y).mean()))
    assert found["confusion"].sum() == 23


def test_weights_count_and_padding_does_not() -> None:
    weight = RNG.uniform(size=23).astype(np.float32)
    found = fnn.evaluate(OBJECTIVE, PARAMS, STATE, (X, Y, weight), batch_size=5)
    losses = CROSS_ENTROPY(NET.apply(PARAMS, STATE, X)[0], Y)
    assert found["loss"] == pytest.approx(float(np.average(losses, weights=weight)), rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_every_real_token_of_the_data_set_counts_alike(batch_size: int) -> None:
    tokens, target = RNG.normal(size=(7, 5, 3)).astype(np.float32), RNG.integers(0, 4, (7, 5))
    real = np.arange(5) < np.array([[5], [1], [2], [0], [4], [1], [3]])
    tokens[~real] = 1e3
    net = fnn.dense(4)
    params, state = net.init(jax.random.key(0), tokens)
    objective = fnn.supervised(net, CROSS_ENTROPY, metrics={"accuracy": fnn.accuracy})
    found = fnn.evaluate(objective, params, state, (tokens, target, real.astype(np.float32)), batch_size=batch_size)
    logits = net.apply(params, state, tokens[real])[0]
    assert found["loss"] == pytest.approx(float(CROSS_ENTROPY(logits, target[real]).mean()), rel=1e-6)
    assert found["accuracy"] == pytest.approx(float((logits.argmax(axis=-1) == target[real]).mean()))


def test_an_iterable_of_batches_of_any_size_is_exact_too() -> None:
    whole = fnn.evaluate(OBJECTIVE, PARAMS, STATE, (X, Y))
    parts = fnn.evaluate(OBJECTIVE, PARAMS, STATE, [(X[:10], Y[:10]), (X[10:], Y[10:])])
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-6)


def test_one_executable_serves_all_batches_and_a_second_evaluation() -> None:
    traces = []

    def counted(x: Any) -> Any:
        traces.append(1)
        return x

    net = fnn.serial(fnn.dense(4), counted)
    params, state = net.init(jax.random.key(0), X)
    traces.clear()
    objective = fnn.supervised(net, CROSS_ENTROPY)
    for _ in range(2):
        fnn.evaluate(objective, params, state, (X, Y), batch_size=4)
        fnn.predict(net, params, state, X, batch_size=4)
    assert len(traces) == 2


def test_an_objective_of_ones_own_is_weighted_by_rows() -> None:
    def objective(params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> Any:
        assert key is not None
        return batch[0].sum(axis=-1).mean(), (state, {"first": batch[0][:, 0].mean()})

    found = fnn.evaluate(objective, {}, {}, (X, Y), batch_size=10, key=jax.random.key(0))
    assert found["loss"] == pytest.approx(float(X.sum(axis=-1).mean()), rel=1e-5)
    assert found["first"] == pytest.approx(float(X[:, 0].mean()), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_prediction_is_apply_in_pieces(batch_size: int) -> None:
    expected = NET.apply(PARAMS, STATE, X)[0]
    np.testing.assert_allclose(fnn.predict(NET, PARAMS, STATE, X, batch_size=batch_size), expected, atol=1e-6)


def test_a_network_may_take_and_give_trees() -> None:
    net = fnn.wire(lambda f, a, b: {"sum": f.a(a) + b, "pair": (a, b)}, a=fnn.dense(3))
    params, state = net.init(jax.random.key(0), X, X)
    y = fnn.predict(net, params, state, X, X, batch_size=10)
    assert jax.tree.map(jnp.shape, y) == {"sum": (23, 3), "pair": ((23, 3), (23, 3))}


def test_nothing_to_evaluate_is_an_error() -> None:
    for data in ((X[:0], Y[:0]), []):
        with pytest.raises(ValueError, match="data is empty"):
            fnn.evaluate(OBJECTIVE, PARAMS, STATE, data)
    with pytest.raises(ValueError, match="xs is empty: it has no rows"):
        fnn.predict(NET, PARAMS, STATE, X[:0])


def test_one_compilation_serves_every_number_of_rows_up_to_the_batch_size() -> None:
    """Each number of rows below the batch size was compiled by itself, twice."""
    net = fnn.serial(fnn.dense(4), fnn.batch_norm())
    sizes = [X[:5], X[:1], jnp.asarray(X[:3]), X[:2].copy(), X[:8], jnp.asarray(X[:8])]
    with compilations() as found:
        for xs in sizes:
            fnn.predict(net, PARAMS, STATE, xs, batch_size=8)
    assert len(found) == 1
    for rows in (1, 3, 8):
        expected = NET.apply(PARAMS, STATE, X[:rows])[0]
        np.testing.assert_allclose(fnn.predict(net, PARAMS, STATE, X[:rows], batch_size=8), expected, atol=1e-6)


def test_prediction_is_differentiable_and_mapped() -> None:
    """Padding on the host must leave traced inputs and parameters alone."""
    loss = lambda params, x: (fnn.predict(NET, params, STATE, x, batch_size=8) ** 2).sum()
    direct = lambda params, x: (NET.apply(params, STATE, x)[0] ** 2).sum()
    grads = [jax.grad(function)(PARAMS, X[:3]) for function in (loss, direct)]
    for mine, wanted in zip(*map(jax.tree.leaves, grads)):
        np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(loss)(PARAMS, X[:3]), direct(PARAMS, X[:3]), rtol=1e-5)
    pairs = jax.vmap(lambda x: fnn.predict(NET, PARAMS, STATE, x, batch_size=8))(X[:6].reshape(2, 3, 3))
    np.testing.assert_allclose(pairs.reshape(6, 4), NET.apply(PARAMS, STATE, X[:6])[0], atol=1e-6)
