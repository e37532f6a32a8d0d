from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.training.objective import check_weight, wrong_labels

RNG = np.random.default_rng(0)
X, TARGET = RNG.normal(size=(6, 3)).astype(np.float32), RNG.integers(0, 4, 6)
NET = fnn.dense(4)
CROSS_ENTROPY = optax.losses.softmax_cross_entropy_with_integer_labels


def measure(objective: Any, batch: Any, *, train: bool = False) -> Any:
    params, state = NET.init(jax.random.key(0), X)
    loss, (_, metrics) = objective(params, state, batch, key=None, train=train)
    return loss, metrics, params


def by_hand(params: Any, weight: Any = None) -> float:
    logits = X @ np.asarray(params["kernel"]) + np.asarray(params["bias"])
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), TARGET]
    return float(np.average(losses, weights=weight))


def test_the_loss_is_the_mean_over_examples() -> None:
    loss, metrics, params = measure(fnn.supervised(NET, CROSS_ENTROPY), (X, TARGET))
    assert float(loss) == pytest.approx(by_hand(params), rel=1e-5)
    assert float(metrics["loss"]) == float(loss)


def test_weights_are_exact_and_rows_of_weight_zero_do_not_count() -> None:
    weight = np.array([0.5, 2.0, 0.0, 1.0, 0.0, 3.0], np.float32)
    spoiled = X.copy()
    spoiled[2] = np.nan
    objective = fnn.supervised(NET, CROSS_ENTROPY, metrics={"accuracy": fnn.accuracy})
    loss, _, params = measure(objective, (X, TARGET, weight))
    assert float(loss) == pytest.approx(by_hand(params, weight), rel=1e-5)
    again, metrics, _ = measure(objective, {"x": spoiled, "target": TARGET, "weight": weight})
    assert float(again) == pytest.approx(float(loss), rel=1e-6)
    assert np.isfinite(metrics["accuracy"])


def test_class_weights_are_example_weights() -> None:
    class_weight = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    loss, _, params = measure(fnn.supervised(NET, CROSS_ENTROPY), (X, TARGET, class_weight[TARGET]))
    assert float(loss) == pytest.approx(by_hand(params, class_weight[TARGET]), rel=1e-5)


def test_a_loss_for_each_token_is_averaged_over_real_tokens() -> None:
    tokens = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    target, weight = RNG.integers(0, 4, (2, 5)), np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], np.float32)
    params, state = NET.init(jax.random.key(0), tokens)
    loss, _ = fnn.supervised(NET, CROSS_ENTROPY)(params, state, (tokens, target, weight))
    losses = CROSS_ENTROPY(NET.apply(params, state, tokens)[0], target)
    assert float(loss) == pytest.approx(float(np.average(losses, weights=weight)), rel=1e-5)


def test_the_penalty_is_added_and_reported_by_itself() -> None:
    objective = fnn.supervised(NET, CROSS_ENTROPY, penalty=lambda params: 0.5 * fnn.l2(params, "kernel"))
    loss, metrics, params = measure(objective, (X, TARGET))
    penalty = 0.5 * float(np.sum(np.square(params["kernel"])))
    assert float(metrics["penalty"]) == pytest.approx(penalty, rel=1e-5)
    assert float(loss) == pytest.approx(by_hand(params) + penalty, rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(by_hand(params), rel=1e-5)


def test_auxiliary_losses_in_state_are_added() -> None:
    def balanced() -> fnn.Layer:
        init = lambda key, x: ({}, {"auxiliary_loss": jnp.zeros(())})
        apply = lambda params, state, x: (x, {"auxiliary_loss": jnp.float32(0.25)})
        return fnn.layer(init, apply, stateful=True)

    net = fnn.serial(fnn.dense(4), balanced())
    params, state = net.init(jax.random.key(0), X)
    loss, (_, metrics) = fnn.supervised(net, CROSS_ENTROPY)(params, state, (X, TARGET))
    assert float(loss) == pytest.approx(float(metrics["loss"]) + 0.25, rel=1e-6)


def test_several_inputs_are_picked() -> None:
    net = fnn.wire(lambda f, a, b: f.a(a) + f.b(b), a=fnn.dense(4), b=fnn.dense(4))
    data = {"image": X, "text": X[:, :2]}
    inputs = lambda x: (x["image"], x["text"])
    params, state = net.init(jax.random.key(0), *inputs(data))
    loss, _ = fnn.supervised(net, CROSS_ENTROPY, inputs=inputs)(params, state, (data, TARGET))
    assert np.isfinite(loss)


def test_a_target_that_would_broadcast_is_an_error() -> None:
    net = fnn.dense(1)
    params, state = net.init(jax.random.key(0), X)
    batch = (X, np.ones(6, np.float32))
    with pytest.raises(fnn.LayerError) as caught:
        fnn.supervised(net, lambda y, target: (y - target) ** 2)(params, state, batch)
    assert str(caught.value) == (
        "loss: gave float32[6,6], wanted one value per example; output and target are float32[6,1] and float32[6]; "
        "give the target the output's shape"
    )
    with pytest.raises(fnn.LayerError, match=r"loss: .*output and target are float32\[6,1\] and float32\[6\]"):
        fnn.supervised(net, optax.losses.squared_error)(params, state, batch)


def test_a_loss_that_is_averaged_already_is_an_error() -> None:
    with pytest.raises(fnn.LayerError, match=r"gave a scalar, wanted one value per example.*leave out the mean"):
        measure(fnn.supervised(NET, lambda y, target: CROSS_ENTROPY(y, target).mean()), (X, TARGET))


def test_one_hot_targets_for_integer_losses_are_an_error_that_shows_the_shapes() -> None:
    with pytest.raises(fnn.LayerError, match=r"float32\[6,4\] and float32\[6,4\]"):
        measure(fnn.supervised(NET, CROSS_ENTROPY), (X, np.eye(4, dtype=np.float32)[TARGET]))


@pytest.mark.parametrize("batch", [(X,), (X, TARGET, TARGET, TARGET), X, {"x": X, "y": TARGET}])
def test_a_batch_of_another_form_is_an_error(batch: Any) -> None:
    with pytest.raises(ValueError, match=r"batch is .* \(x, target\) or \(x, target, weight\)"):
        measure(fnn.supervised(NET, CROSS_ENTROPY), batch)


def test_weights_of_another_shape_are_an_error() -> None:
    with pytest.raises(fnn.LayerError, match=r"weight has shape \(5,\)"):
        measure(fnn.supervised(NET, CROSS_ENTROPY), (X, TARGET, np.ones(5, np.float32)))


@pytest.mark.parametrize("name", ["loss", "penalty"])
def test_names_that_are_reported_already_are_errors(name: str) -> None:
    with pytest.raises(ValueError, match="reported already"):
        fnn.supervised(NET, CROSS_ENTROPY, metrics={name: fnn.accuracy})


def test_streaming_metrics_are_left_to_evaluation() -> None:
    objective = fnn.supervised(NET, CROSS_ENTROPY, metrics={"f1": fnn.f1(4), "accuracy": fnn.accuracy})
    _, metrics, params = measure(objective, (X, TARGET))
    assert set(metrics) == {"loss", "accuracy"}
    chex.assert_tree_all_finite(fnn.evaluate(objective, params, {}, (X, TARGET)))


@pytest.mark.parametrize("label", [-1, -100, 4])
def test_a_label_that_is_no_class_has_no_loss_unless_its_weight_is_0(label: int) -> None:
    """-1 was trained on as the last class: optax indexes from the end."""
    target = np.where(np.arange(6) == 2, label, TARGET)
    objective = fnn.supervised(NET, CROSS_ENTROPY)
    assert np.isnan(measure(objective, (X, target))[0])
    weight = (np.arange(6) != 2).astype(np.float32)
    loss, _, params = measure(objective, (X, target, weight))
    kept = np.arange(6) != 2
    logits = X[kept] @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), TARGET[kept]]
    assert float(loss) == pytest.approx(losses.mean(), rel=1e-5)
    grads = jax.grad(lambda params: objective(params, {}, (X, target, weight))[0])(params)
    expected = jax.grad(lambda params: objective(params, {}, (X[kept], TARGET[kept]))[0])(params)
    chex.assert_trees_all_close(grads, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_labels_of_a_small_dtype_are_classes_of_a_larger_vocabulary(dtype: Any) -> None:
    """256 is 0 in uint8: every byte was called no class of a network with 256 classes, and its loss was NaN."""
    net, optimizer = fnn.dense(256), optax.sgd(0.1)
    target = np.array([0, 1, 5, 100, 126, 127], dtype)
    objective = fnn.supervised(net, CROSS_ENTROPY, metrics={"f1": fnn.f1(256)})
    run = fnn.train_init(net, optimizer, jax.random.key(0), X)
    settings: dict[str, Any] = {"batch_size": 6, "progress": False}
    _, history = fnn.fit(objective, optimizer, run, (X, target), validation=(X, target), **settings)
    wide = target.astype(np.int32)
    _, expected = fnn.fit(objective, optimizer, run, (X, wide), validation=(X, wide), **settings)
    assert np.isfinite(expected["loss"]).all()
    chex.assert_trees_all_equal(history, expected)


def test_the_look_at_labels_and_weights_compiles_nothing() -> None:
    """A dozen small programs were compiled before the first step."""
    data = jax.device_put((X, TARGET, np.ones(6, np.float32)))
    with jax.no_tracing():
        check_weight(data)
        assert wrong_labels(data[1], data[2], 4) is None
        assert wrong_labels(data[1], None, int(TARGET.max())) is not None


@pytest.mark.parametrize(
    ("net", "loss", "target"),
    [
        (fnn.serial(fnn.dense(1), lambda y: y[:, 0]), optax.losses.squared_error, np.array([-3, 7, 100, 0, 1, 2])),
        (fnn.dense(3), lambda y, target: jnp.abs(y - target[:, None]).sum(axis=1), np.array([-3, 7, 100, 0, 1, 2])),
        (fnn.dense(3), optax.losses.sigmoid_binary_cross_entropy, np.eye(6, 3, dtype=int)),
        (NET, lambda y, target: jnp.where(target < 0, 0, CROSS_ENTROPY(y, jnp.maximum(target, 0))), TARGET - 1),
    ],
    ids=["regression", "quantiles", "labels", "ignored by the loss"],
)
def test_integers_of_other_losses_may_be_any(net: fnn.Layer, loss: Any, target: Any) -> None:
    optimizer = optax.sgd(1e-4)
    run = fnn.train_init(net, optimizer, jax.random.key(0), X)
    objective = fnn.supervised(net, loss, metrics={"accuracy": fnn.accuracy} if net is NET else {})
    _, history = fnn.fit(objective, optimizer, run, (X, target), batch_size=6, progress=False)
    assert np.isfinite(history["loss"]).all()


def test_a_network_that_draws_in_evaluation_too_is_trained_on_classes() -> None:
    """The check of labels before training must run the network as training does: with a key."""
    noise = fnn.layer(None, lambda x, *, key: x + 0.1 * jax.random.normal(key, x.shape))
    net, optimizer = fnn.serial(noise, fnn.dense(4)), optax.sgd(0.1)
    run = fnn.train_init(net, optimizer, jax.random.key(0), X)
    data = fnn.batches({"x": X, "target": TARGET}, 3, key=jax.random.key(1))
    _, history = fnn.fit(fnn.supervised(net, CROSS_ENTROPY), optimizer, run, data, progress=False)
    assert np.isfinite(history["loss"]).all()
    data = fnn.batches({"x": X, "target": TARGET - 1}, 3, key=jax.random.key(1))
    with pytest.raises(ValueError, match="target holds -1"):
        fnn.fit(fnn.supervised(net, CROSS_ENTROPY), optimizer, run, data, progress=False)


def ctc(logits: Any, target: Any) -> jax.Array:
    """Id 0 is the blank and pads the labels."""
    beyond = jnp.arange(logits.shape[1]) >= target["lengths"][:, None]
    return optax.losses.ctc_loss(logits, beyond * 1.0, target["labels"], (target["labels"] == 0) * 1.0)


SPELLER = fnn.serial(fnn.bidirectional(fnn.rnn_cell(12)), fnn.dense(4))
OPTIMIZER = optax.adam(0.02)
SPELLING = fnn.supervised(SPELLER, ctc, inputs=lambda x: (x["frames"], x["lengths"]))


def spoken(count: int, seed: int, padding: float = 0.0, room: int = 0) -> tuple[Any, Any]:
    """One to three labels of three, each heard for one or two noisy frames and then silence; all padded alike."""
    rng = np.random.default_rng(seed)
    labels, frames = np.zeros((count, 3 + room), int), np.full((count, 9 + room, 4), padding, np.float32)
    lengths = np.zeros(count, int)
    for row in range(count):
        ids = rng.integers(1, 4, rng.integers(1, 4))
        heard = np.concatenate([[label] * rng.integers(1, 3) + [0] for label in ids]).astype(int)
        labels[row, : len(ids)], lengths[row] = ids, len(heard)
        frames[row, : len(heard)] = np.eye(4)[heard] + 0.1 * rng.normal(size=(len(heard), 4))
    return {"frames": frames, "lengths": lengths}, {"labels": labels, "lengths": lengths}


def spell(params: Any, x: Any) -> list[list[int]]:
    """Greedy decoding: repeats are merged, then blanks dropped."""
    best = np.asarray(fnn.predict(SPELLER, params, {}, x["frames"], x["lengths"])).argmax(axis=-1)
    rows = [row[:length] for row, length in zip(best, x["lengths"])]
    return [ids[(ids > 0) & (np.diff(ids, prepend=0) != 0)].tolist() for ids in rows]


def test_ctc_teaches_a_recurrent_network_to_spell_and_padding_changes_no_bit() -> None:
    def trained(padding: float) -> Any:
        x, target = spoken(32, seed=1, padding=padding)
        run = fnn.train_init(SPELLER, OPTIMIZER, jax.random.key(0), x["frames"], x["lengths"])
        return fnn.fit(SPELLING, OPTIMIZER, run, (x, target), batch_size=16, epochs=40, progress=False)

    (run, history), (again, _) = trained(0.0), trained(1e3)
    assert history["loss"][-1] < 0.05 < 2 < history["loss"][0]
    chex.assert_trees_all_equal(run.params, again.params)
    x, target = spoken(20, seed=2)
    assert spell(run.params, x) == [[label for label in row if label] for row in target["labels"].tolist()]
    batches = [spoken(20, seed=2, padding=1e3, room=room) for room in (0, 4)]
    losses = [fnn.evaluate(SPELLING, run.params, {}, batch)["loss"] for batch in batches]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


RANKER = fnn.serial(fnn.dense(16), jax.nn.relu, fnn.dense(1), lambda scores: scores[..., 0])


def listwise(scores: Any, target: Any) -> jax.Array:
    return optax.losses.ranking_softmax_loss(scores, target["gain"], where=target["real"], reduce_fn=None)


def lists(count: int, seed: int, padding: float = 0.0) -> tuple[Any, Any]:
    """Lists of two to six entries, padded to six; the gain grows with the first feature and falls with the second."""
    rng = np.random.default_rng(seed)
    real = np.arange(6) < rng.integers(2, 7, (count, 1))
    x = rng.normal(size=(count, 6, 2)).astype(np.float32)
    gain = jax.nn.softmax(x[..., 0] - 2 * x[..., 1], where=real)
    return np.where(real[..., None], x, np.float32(padding)), {"gain": np.where(real, gain, padding), "real": real}


def ordered(scores: Any, target: Any) -> jax.Array:
    """The share of pairs of real entries of a list that are in the right order."""
    above = lambda values: values[:, :, None] > values[:, None, :]
    pairs = target["real"][:, :, None] & target["real"][:, None, :] & above(target["gain"])
    return jnp.mean(above(scores), axis=(1, 2), where=pairs)


def test_a_ranking_loss_teaches_the_order_of_lists_of_any_length_and_padding_changes_no_bit() -> None:
    objective = fnn.supervised(RANKER, listwise, metrics={"ordered": ordered})

    def trained(padding: float) -> Any:
        x, target = lists(128, seed=1, padding=padding)
        run = fnn.train_init(RANKER, OPTIMIZER, jax.random.key(0), x)
        return fnn.fit(objective, OPTIMIZER, run, (x, target), epochs=60, progress=False)

    (run, history), (again, _) = trained(0.0), trained(1e3)
    chex.assert_trees_all_equal(run.params, again.params)
    assert history["ordered"][0] < 0.9
    held_out = [fnn.evaluate(objective, run.params, {}, lists(50, seed=2), batch_size=size) for size in (50, 16)]
    assert held_out[0]["ordered"] > 0.97
    assert held_out[0] == pytest.approx(held_out[1], rel=1e-5)


def test_a_list_without_entries_has_weight_0_and_leaves_the_gradient_finite() -> None:
    x, target = lists(4, seed=3)
    target = target | {"real": target["real"] & np.array([[True], [True], [False], [True]])}
    params, _ = RANKER.init(jax.random.key(0), x)
    objective = fnn.supervised(RANKER, listwise)
    of = jax.jit(jax.value_and_grad(lambda params, batch: objective(params, {}, batch)[0]))
    found = of(params, (x, target, np.array([1.0, 1.0, 0.0, 1.0])))
    others = jax.tree.map(lambda leaf: leaf[np.array([0, 1, 3])], (x, target))
    chex.assert_tree_all_finite(found)
    chex.assert_trees_all_close(found, of(params, others), rtol=1e-5, atol=1e-6)
