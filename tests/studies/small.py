"""A study small enough for tests; those that share a trial and shapes share its executables."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnn

KEY = jax.random.key(0)
random = np.random.default_rng(0)
X = random.normal(size=(48, 3)).astype(np.float32)
Y = (X @ [[1.0], [-2.0], [0.5]] + 0.1 * random.normal(size=(48, 1))).astype(np.float32)
SPACE = {"learning_rate": fnn.log_uniform(1e-3, 1e-1)}
RATES = [{"learning_rate": rate} for rate in (0.01, 0.03, 0.1)]


def trial(hp):
    net = fnn.serial(fnn.dense(4), jnp.tanh, fnn.dense(1))
    objective = fnn.supervised(net, optax.losses.squared_error, metrics={"error": fnn.absolute_error})
    return net, objective, optax.sgd(hp["learning_rate"])


def study(space: Any = RATES, **changes: Any) -> fnn.StudyResult:
    """A study of three rates, 12 steps, two folds, in one mode and width, with what a test wants to be different."""
    settings = {"data": (X, Y), "steps": 12, "evaluate_every": 4, "batch_size": 8, "folds": 2, "key": KEY}
    settings |= {"mode": "vmap", "width": 4, "progress": False}
    if "validation" in changes:
        del settings["folds"]
    return fnn.study(changes.pop("trial", trial), space, **settings | changes)


def same(a: fnn.StudyResult, b: fnn.StudyResult, **tolerance: Any) -> None:
    """Whether the runs that both have are equal: to the bit, or to a tolerance."""
    others = {run.id: run for run in b.runs}
    tolerance = {"rtol": 0, "atol": 0} | tolerance
    common = [run for run in a.runs if run.id in others]
    assert common
    for run in common:
        other = others[run.id]
        assert (run.status, run.step, run.steps) == (other.status, other.step, other.steps)
        for name, values in run.measured.items():
            np.testing.assert_allclose(values, other.measured[name], **tolerance, err_msg=name)
    for run_id in a.kept.keys() & b.kept.keys():
        for mine, theirs in zip(jax.tree.leaves(a.kept[run_id]), jax.tree.leaves(b.kept[run_id]), strict=True):
            np.testing.assert_allclose(mine, theirs, **tolerance)
