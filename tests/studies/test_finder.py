"""The learning-rate finder suggests a rate that trains, below the one where training diverges."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn

KEY = jax.random.key(0)
NET = fnn.dense(1)
X = (np.random.default_rng(0).normal(size=(64, 4)) * [1.0, 1.0, 0.7, 2.0]).astype(np.float32)
DATA = (X, X @ np.array([[1.0], [-2.0], [0.5], [1.0]], np.float32) + 1.0)


def linear(hp: dict[str, Any]) -> Any:
    return NET, fnn.supervised(NET, optax.losses.squared_error), optax.sgd(hp["learning_rate"])


def find(trial: Any = linear, **changes: Any) -> fnn.LearningRates:
    settings: dict[str, Any] = {"batch_size": 64, "steps": 40, "low": 1e-4, "high": 10.0, "rates": 24}
    return fnn.find_learning_rate(trial, data=DATA, key=KEY, progress=False, **(settings | changes))


@pytest.fixture(scope="module")
def found() -> fnn.LearningRates:
    return find()


def test_the_suggestion_is_below_the_largest_stable_rate_and_within_a_factor_of_ten(found: fnn.LearningRates) -> None:
    inputs = np.concatenate([X, np.ones((64, 1))], axis=1)  # the bias has an input of 1
    stable = 2 / np.linalg.eigvalsh(2 * inputs.T @ inputs / len(inputs)).max()
    assert stable / 10 < found.suggestion < stable
    step = found.rates[1] / found.rates[0]
    assert stable / step < found.limit < stable * step**2
    assert found.suggestion <= found.limit / 3


def test_what_is_found_is_said_for_every_rate(found: fnn.LearningRates) -> None:
    np.testing.assert_allclose(found.rates, np.geomspace(1e-4, 10.0, 24))
    np.testing.assert_array_equal(found.steps, np.arange(2, 41, 2))
    assert found.curves.shape == (24, 20)
    np.testing.assert_array_equal(np.isinf(found.losses), found.diverged)
    assert found.diverged[-1]
    assert not found.diverged[:12].any()
    np.testing.assert_allclose(found.losses[0], found.curves[0, -2:].mean())
    assert found.best in found.rates[~found.diverged]
    assert found.suggestion <= found.best < found.limit
    assert str(found).startswith(f"take {found.suggestion:.2g}: ")


def test_the_losses_are_those_of_training_alone(found: fnn.LearningRates) -> None:
    result = fnn.study(
        linear,
        [{"learning_rate": found.rates[8]}],
        data=DATA,
        key=KEY,
        batch_size=64,
        steps=40,
        evaluate_every=2,
        keep=0,
        progress=False,
    )
    np.testing.assert_allclose(found.curves[8], result.curves("loss")[0], rtol=1e-4)


def test_other_hyperparameters_stay_as_they_are_and_may_be_shapes() -> None:
    seen: list[Any] = []

    def trial(hp: dict[str, Any]) -> Any:
        seen.append(hp["width"])
        net = fnn.serial(fnn.dense(hp["width"]), hp["activation"], fnn.dense(1))
        return net, fnn.supervised(net, optax.losses.squared_error), optax.adam(hp["rate"])

    found = find(trial, name="rate", hp={"width": 3, "activation": jnp.tanh}, rates=4, steps=10)
    assert set(seen) == {3}
    assert np.isfinite(found.losses).all()


def test_the_smallest_of_equally_good_rates_is_suggested() -> None:
    """Labels that are noise on top of a constant: many rates reach the noise, and the largest is no better."""
    noise = np.random.default_rng(1).normal(size=(256, 1)).astype(np.float32)
    data = (np.ones((256, 1), np.float32), noise + 3)
    found = fnn.find_learning_rate(
        linear, data=data, key=KEY, low=1e-4, high=1.0, rates=24, steps=60, batch_size=16, progress=False
    )
    assert found.suggestion < found.best
    assert found.best < found.limit / 3
    (place,) = np.flatnonzero(np.isclose(found.rates, found.suggestion))
    assert found.losses[place] < 1.2 * found.losses.min() < found.losses[place - 1]


def test_a_minimum_at_an_end_of_the_range_is_said() -> None:
    with pytest.warns(UserWarning, match="smallest at the largest rate, 0.001; give a larger high"):
        found = find(high=1e-3, rates=4)
    assert np.isinf(found.limit)
    assert "none is too large" in str(found)
    with pytest.warns(UserWarning, match=r"smallest at the smallest rate, 0.3; give a smaller low"):
        find(low=0.3, high=0.36, rates=3, steps=10)


def test_a_rate_that_makes_no_difference_is_an_error() -> None:
    def trial(hp: dict[str, Any]) -> Any:
        return NET, fnn.supervised(NET, optax.losses.squared_error), optax.sgd(0.1)

    with pytest.raises(ValueError, match=r"same losses; does the optimizer of the trial use hp\['learning_rate'\]"):
        find(trial, rates=4, steps=10)


def test_divergence_at_every_rate_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"diverges at every rate from 1e\+03 to 1e\+04; give a smaller low"):
        find(low=1e3, high=1e4, rates=4)


def test_a_hyperparameter_that_is_not_given_is_named() -> None:
    def trial(hp: dict[str, Any]) -> Any:
        return NET, fnn.supervised(NET, optax.losses.squared_error), optax.sgd(hp["lr"])

    with pytest.raises(ValueError, match=r"reads hp\['lr'\], and there is 'learning_rate'; give hp=\{'lr': ...\}, or"):
        find(trial)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 1.0, "high": 0.1}, "the smaller first, got low=1.0, high=0.1"),
        ({"low": 1.0, "high": 1.0}, "the smaller first"),
        ({"low": 0.0}, "positive bounds"),
        ({"high": float("inf")}, "positive bounds"),
        ({"rates": 2}, "rates must be at least 3"),
        ({"steps": 9}, "steps must be at least 10"),
        ({"hp": {"learning_rate": 0.1}}, "'learning_rate', which is the rate to be found"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find(**changes)
