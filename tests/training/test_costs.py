"""A metric that takes most of a step is told of, once."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.training import costs

X, Y = np.ones((8, 3), np.float32), np.ones((8, 1), np.float32)
NET, OPTIMIZER = fnn.dense(1), optax.sgd(0.1)


def slow(y: Any, target: Any) -> Any:
    """Some milliseconds beside a step of microseconds."""
    return y[:, 0] + jnp.sort(jnp.sin(jnp.arange(3e4) + y.sum()))[0]


def texts_of(objective: Any, data: Any = (X, Y), **settings: Any) -> list[str]:
    run = fnn.train_init(NET, OPTIMIZER, jax.random.key(0), X)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fnn.fit(objective, OPTIMIZER, run, data, batch_size=4, epochs=12, progress=False, **settings)
    return [str(warning.message) for warning in found]


@pytest.mark.parametrize("data", [(X, Y), [(X[:4], Y[:4])] * 20], ids=["arrays", "iterable"])
def test_a_slow_metric_is_named_with_what_it_takes(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "PATIENCE", 0.0)
    monkeypatch.setattr(costs, "_seconds", lambda metric, y, target: 1e3 * (metric is slow and y.shape == (4, 1)))
    objective = fnn.supervised(NET, optax.losses.squared_error, metrics={"good": lambda y, t: y[:, 0], "slow": slow})
    (text,) = texts_of(objective, data)
    assert "the metric 'slow' takes" in text
    assert "metrics={'slow': fnn.mean(...)}" in text


def test_what_a_call_costs_beyond_an_empty_one_is_the_shortest_of_many() -> None:
    assert costs._seconds(slow, X, Y) > costs._seconds(lambda y, target: y[:, 0], X, Y)


def test_a_metric_of_evaluation_is_not_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "PATIENCE", 0.0)
    monkeypatch.setattr(costs, "_seconds", lambda *_: pytest.fail("nothing was to be measured"))
    objective = fnn.supervised(NET, optax.losses.squared_error, metrics={"slow": fnn.mean(slow)})
    assert texts_of(objective) == []


def test_a_slow_watch_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "PATIENCE", 0.0)
    monkeypatch.setattr(costs, "_seconds", lambda *_: 1e3)
    objective = fnn.supervised(NET, optax.losses.squared_error)
    (text,) = texts_of(objective, watch=fnn.norms())
    assert text.startswith("watch takes 1e+06 ms of the")


def test_nothing_is_measured_in_a_short_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "_seconds", lambda *_: pytest.fail("it was measured"))
    objective = fnn.supervised(NET, optax.losses.squared_error, metrics={"slow": fnn.absolute_error})
    assert texts_of(objective) == []
