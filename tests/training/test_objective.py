from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn

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
        return fnn.layer(init, lambda params, state, x: (x, {"auxiliary_loss": jnp.float32(0.25)}))

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
    with pytest.raises(ValueError, match=r"a batch (is \(x, target\)|that is a dict)"):
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
