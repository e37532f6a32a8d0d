"""Compiled functions are kept for as long as the objects that they were made for, and no longer."""

import copy
import functools
import gc
import pickle
import resource
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.core.caches import cached_on_first, on_clear

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
Y = X[:, :1]


def train(seed: int) -> list[Callable[[], Any]]:
    """Train, evaluate and serve a new network; return weak references to all that was made for it."""
    net, optimizer, large = fnn.dense(1), optax.sgd(0.1), jnp.ones(1000)

    def augment(key: jax.Array, batch: Any, data: Any = large) -> Any:
        return batch

    objective = fnn.supervised(net, optax.losses.squared_error)
    run = fnn.train_init(net, optimizer, jax.random.key(seed), X)
    run, _ = fnn.fit(objective, optimizer, run, (X, Y), batch_size=4, augment=augment, progress=False)
    fnn.evaluate(objective, run.params, run.state, (X, Y))
    fnn.predict(net, run.params, run.state, X)
    step = fnn.train_step(objective, optimizer)
    for report in fnn.training(step, run, [(X, Y)]):
        assert int(report.run.step) == 2
    return [weakref.ref(one) for one in (net, objective, augment, large, step)]


def resident_megabytes() -> float:
    """Memory of this process, where the system says it."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * resource.getpagesize() / 2**20 if file.exists() else 0.0


def test_trainings_leave_nothing_behind() -> None:
    """Nine caches of functions kept networks, data and executables: 870 objects and 3 MB for each training."""
    counts = []
    for seed in range(50):
        made = train(seed)
        gc.collect()
        assert [one() for one in made] == [None] * len(made)
        counts.append((len(jax.live_arrays()), len(gc.get_objects()), resident_megabytes()))
    arrays, objects, megabytes = (last - early for early, last in zip(counts[4], counts[-1]))
    assert arrays == 0
    assert objects < 50
    assert megabytes < 20


@dataclass
class Shifted:
    """An objective with state, and with ``==`` by value: Python does not hash it."""

    shift: float

    def __call__(self, params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> Any:
        TRACES.append(1)
        return jnp.mean((batch[0] @ params["kernel"] - batch[1] - self.shift) ** 2), (state, {})

    def method(self, *args: Any, **named: Any) -> Any:
        return self(*args, **named)


class Pair(NamedTuple):
    """An objective that takes no attributes and no weak references."""

    shift: float
    other: float = 0.0

    def __call__(self, *args: Any, **named: Any) -> Any:
        return Shifted(self.shift)(*args, **named)


TRACES: list[int] = []
SHIFTED, PAIR = Shifted(0.5), Pair(0.5)
NET, SGD = fnn.dense(1), optax.sgd(0.1)


def fit_and_evaluate(objective: Any) -> float:
    run = fnn.train_init(NET, SGD, jax.random.key(0), X)
    run, _ = fnn.fit(objective, SGD, run, (X, Y), batch_size=4, progress=False)
    return fnn.evaluate(objective, run.params, run.state, (X, Y))["loss"]


@pytest.mark.parametrize(
    "get", [lambda: SHIFTED, lambda: SHIFTED.method, lambda: PAIR], ids=["object", "method", "tuple"]
)
def test_any_object_is_an_objective_and_is_compiled_once(get: Callable[[], Any]) -> None:
    """A dataclass with a method __call__ was "unhashable", though any callable is an objective."""
    first = fit_and_evaluate(get())
    TRACES.clear()
    assert fit_and_evaluate(get()) == first
    assert not TRACES


def test_a_copy_is_another_object() -> None:
    original = Shifted(0.0)
    first = fit_and_evaluate(original)
    for other in (copy.copy(original), copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        other.shift = 3.0
        assert fit_and_evaluate(other) > first + 1


def test_a_wrapper_is_another_function() -> None:
    def plain(*args: Any, **named: Any) -> Any:
        return Shifted(0.0)(*args, **named)

    first = fit_and_evaluate(plain)

    @functools.wraps(plain)
    def tenfold(*args: Any, **named: Any) -> Any:
        loss, rest = plain(*args, **named)
        return 10 * loss, rest

    assert fit_and_evaluate(tenfold) != first


def test_clear_caches_releases_what_living_objects_keep() -> None:
    objective = Shifted(0.25)
    first = fit_and_evaluate(objective)
    fnn.clear_caches()
    TRACES.clear()
    assert fit_and_evaluate(objective) == first
    assert TRACES


def test_the_last_results_of_one_object_are_kept() -> None:
    """A sweep over learning rates with one objective keeps some of its steps, not all."""
    made: list[Any] = []

    @cached_on_first
    def make(owner: Any, other: Any) -> list[Any]:
        made.append(other)
        return [owner, other]

    owner, others = Shifted(0.0), [object() for _ in range(20)]
    for other in others:
        assert make(owner, other) is make(owner, other)
    assert len(made) == 20
    make(owner, others[-1])
    assert len(made) == 20
    make(owner, others[0])
    assert len(made) == 21


def test_a_cache_of_a_module_is_cleared_too() -> None:
    cleared: list[int] = []
    on_clear(lambda: cleared.append(1))
    fnn.clear_caches()
    assert cleared == [1]
