"""A step that is compiled again and again is told of; a few shapes, and transformations, are not."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import fnn

NET = fnn.dense(1)


def batch(rows: int, features: int = 2) -> Any:
    return jnp.ones((rows, features)), jnp.ones((rows, 1))


def make() -> tuple[Any, fnn.TrainState]:
    """A step that nothing else has traced, and a state."""
    optimizer = optax.sgd(0.1)
    objective = fnn.supervised(NET, optax.losses.squared_error)
    return fnn.train_step(objective, optimizer), fnn.train_init(NET, optimizer, jax.random.key(0), batch(1)[0])


def loop(step: Any, run: Any, batches: Any) -> None:
    compiled = jax.jit(step)
    for each in batches:
        run, _ = compiled(run, each)


def training(step: Any, run: Any, batches: Any) -> None:
    for _ in fnn.training(step, run, batches):
        pass


@pytest.mark.parametrize("way", [loop, training])
def test_a_fourth_shape_is_told_with_what_changed(way: Callable[..., None]) -> None:
    step, run = make()
    with pytest.warns(fnn.RetraceWarning) as found:
        way(step, run, [batch(rows) for rows in (8, 8, 7, 6, 8, 5, 4)])
    (warning,) = found
    lines = str(warning.message).splitlines()
    assert lines[0] == "a step is compiled for the 4th time, for other arguments than before"
    assert [line.split() for line in lines[1:4]] == [
        ["argument", "before", "now"],
        ["batch/0", "float32[6,2]", "float32[5,2]"],
        ["batch/1", "float32[6,1]", "float32[5,1]"],
    ]


def test_dtype_structure_and_weak_types_are_changes_too() -> None:
    step, run = make()
    x, y = batch(4)
    others = [(x, y), (x.astype(jnp.bfloat16), y), (x, y, jnp.ones(4)), {"x": x, "target": y}]
    with pytest.warns(fnn.RetraceWarning, match=r"batch/target +nothing +float32\[4,1\]"):
        loop(step, run, others)
    step, run = make()
    weak = run._replace(step=0)
    for rows in (4, 3, 2):
        loop(step, run, [batch(rows)])
    with pytest.warns(fnn.RetraceWarning, match=r"run/step +int32\[\] +int32\[\] \(weakly typed\)"):
        loop(step, weak, [batch(2)])


def test_a_step_of_ones_own_is_watched_in_training() -> None:
    def count(run: Any, batch: Any) -> Any:
        return run + batch.sum(), {"size": jnp.float32(len(batch))}

    with pytest.warns(fnn.RetraceWarning, match=r"batch +float32\[3\] +float32\[4\]"):
        training(count, jnp.float32(0), [jnp.ones(size) for size in (1, 2, 3, 4)])


def test_fit_tells_too() -> None:
    optimizer = optax.sgd(0.1)
    run = fnn.train_init(NET, optimizer, jax.random.key(0), batch(1)[0])
    objective = fnn.supervised(NET, optax.losses.squared_error)
    ragged = [batch(rows) for rows in (5, 4, 3, 2)]
    with pytest.warns(fnn.RetraceWarning, match=r"batch/0 +float32\[3,2\] +float32\[2,2\]"):
        fnn.fit(objective, optimizer, run, ragged, progress=False)


@pytest.mark.parametrize("anew", ["jit", "step"])
def test_a_function_made_in_each_round_is_told(anew: str) -> None:
    optimizer = optax.sgd(0.1)
    objective = fnn.supervised(NET, optax.losses.squared_error)
    run = fnn.train_init(NET, optimizer, jax.random.key(0), batch(1)[0])
    step = fnn.train_step(objective, optimizer)

    def rounds(count: int) -> None:
        for _ in range(count):
            used = fnn.train_step(objective, optimizer) if anew == "step" else lambda run, batch: step(run, batch)
            jax.jit(used)(run, batch(4))

    rounds(7)
    with pytest.warns(fnn.RetraceWarning, match="traced 8 times in a row for arguments of the same shapes"):
        rounds(1)


def test_what_is_compiled_a_few_times_is_not_told() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step, run = make()
        loop(step, run, [batch(rows) for rows in (8, 8, 3, 8, 3)])
        for size in (2, 3, 4, 5, 6):  # each loop has one shape
            training(step, run, [batch(size)] * 2)
            training(step, run, fnn.batches(batch(12), size))
        for _ in range(20):
            step(run, batch(4))
        unrolled = jax.jit(lambda run: [run := step(run, batch(4))[0] for _ in range(20)][-1])
        unrolled(run)
        jax.lax.scan(lambda run, _: step(run, batch(4)), run, length=20)
        several = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), run)
        jax.vmap(step, in_axes=(0, None))(several, batch(4))
        jax.grad(lambda x: step(run, (x, batch(4)[1]))[1]["loss"])(batch(4)[0])


IMPORTED_WITHIN_A_TRACE = """
import warnings
import jax, jax.numpy as jnp, optax

warnings.simplefilter("error", UserWarning)

@jax.jit
def first(x):
    import fnn
    return x

first(1.0)
import fnn
net = fnn.dense(1)
objective = fnn.supervised(net, optax.losses.squared_error)
run = fnn.train_init(net, optax.sgd(0.1), jax.random.key(0), jnp.ones((4, 2)))
batch = jnp.ones((4, 2)), jnp.ones((4, 1))
step = fnn.train_step(objective, optax.sgd(0.1))
for _ in range(5):  # five traces, and five calls that are none
    jax.jit(lambda run: step(run, batch))(run)
    step(run, batch)
"""


def test_a_step_that_is_not_compiled_is_not_told_wherever_fnn_was_imported() -> None:
    """Imported within a traced function, fnn took that trace for the state outside of all traces."""
    program = [sys.executable, "-c", IMPORTED_WITHIN_A_TRACE]
    done = subprocess.run(program, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
