"""When training goes wrong: which step, which value, and where it began."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.ops.targets import is_class
from fnn.training.loop import Step
from fnn.training.objective import Supervised, split_batch, wrong_labels
from fnn.training.step import Objective, TrainState, all_finite

SHOWN = 8  # rows of a batch that a message names


class NonFiniteError(ArithmeticError):
    """Training met a loss or gradients that are not finite.

    Attributes:
        step: Number of the step, counted from 0.
        leaf: The first array that is not finite, such as ``"batch[0]"`` or ``"gradient of dense_0/kernel"``; None where
            all were finite when the steps were repeated.
        rows: Which rows of the data were the step's batch, where `fit` has them as arrays.
        run: The state before that step: the last good one.
        history: What `fit` had recorded.
    """

    def __init__(self, message: str, *, step: int, leaf: str | None, rows: np.ndarray | None, run: TrainState):
        super().__init__(message)
        self.step, self.leaf, self.rows, self.run = step, leaf, rows, run
        self.history: dict[str, np.ndarray] = {}


def find_non_finite(
    objective: Objective, step: Step, run: TrainState, batches: Iterable[tuple[Any, np.ndarray | None]]
) -> NonFiniteError:
    """Repeat the steps since the last good state one by one, up to the first that is not finite.

    Args:
        objective: What was made small.
        step: The step.
        run: The last good state.
        batches: The batches since then, each with its rows of the data.
    """
    compiled, before = jax.jit(step), run
    for batch, rows in batches:
        after, metrics = compiled(run, batch)
        if np.isfinite(metrics["loss"]) and all_finite(after.params) and not metrics.get("skipped", 0):
            run = after
            continue
        leaf = _first_leaf(objective, run, batch)
        of = "" if rows is None else f" Its batch are the rows {_some(rows)} of the data."
        number, loss = int(run.step), metrics["loss"]
        what = (
            f"the gradients of step {number} are not finite"
            if np.isfinite(loss)
            else f"the loss of step {number} is {loss}"
        )
        cause = None if leaf.startswith("batch") else _wrong_integers(objective, run, batch, rows)
        reason = f": {cause}." if cause else f"; the first array that is not finite is {leaf}."
        advice = "" if cause else f" {_advice(leaf)}"
        message = f"{what}{reason}{of}{advice} The state before this step is in this error's `run`."
        return NonFiniteError(message, step=int(run.step), leaf=leaf, rows=rows, run=run)
    message = (
        f"a step from {int(before.step)} to {int(run.step) - 1} was not finite, but all of them were when they were "
        "repeated one by one: something is not deterministic, such as sums on a GPU (set "
        "XLA_FLAGS=--xla_gpu_deterministic_ops=true) or a callback, or a number is near the limit of its dtype. The "
        "state before these steps is in this error's `run`."
    )
    return NonFiniteError(message, step=int(before.step), leaf=None, rows=None, run=before)


def _some(rows: np.ndarray) -> str:
    listed = ", ".join(map(str, rows[:SHOWN].tolist()))
    return listed if len(rows) <= SHOWN else f"{listed} and {len(rows) - SHOWN} more (`rows`)"


def _first_leaf(objective: Objective, run: TrainState, batch: Any) -> str:
    for prefix, tree in (("batch", batch), ("params ", run.params), ("state ", run.state)):
        if names := _bad_leaves(tree, prefix):
            return names[0]
    grad = jax.jit(jax.grad(lambda params: objective(params, run.state, batch, key=run.key, train=True)[0]))
    names = _bad_leaves(grad(run.params), "gradient of ")
    return names[0] if names else "loss"


def _bad_leaves(tree: Any, prefix: str) -> list[str]:
    def name(path: Any) -> str:
        return (
            jax.tree_util.keystr(path) if prefix == "batch" else jax.tree_util.keystr(path, simple=True, separator="/")
        )

    return [prefix + name(path) for path, leaf in jax.tree.leaves_with_path(tree) if not jnp.isfinite(leaf).all()]


def _advice(leaf: str) -> str:
    if leaf.startswith("batch"):
        return "Clean the data: np.isfinite finds the rows."
    return "Lower the learning rate, clip the gradients (optax.clip_by_global_norm), or look for log(0) and 0/0."


def _wrong_integers(objective: Objective, run: TrainState, batch: Any, rows: np.ndarray | None) -> str | None:
    """Labels that are not classes, or ids that are not in an embedding's table, in rows that are not finite."""
    if not isinstance(objective, Supervised):
        return None
    x, target, weight = split_batch(batch)
    y, _ = jax.jit(objective.output)(run.params, run.state, x)
    return _wrong_ids(run.params, x, _spoiled_rows(y), rows) or _wrong_labels(objective, y, target, weight, rows)


def _wrong_ids(params: Any, x: Any, spoiled: np.ndarray, rows: np.ndarray | None) -> str | None:
    tables = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), table.shape[-2])
        for path, table in jax.tree.leaves_with_path(params)
        if getattr(path[-1], "key", None) == "embedding" and table.ndim > 1
    ]
    for place, ids in jax.tree.leaves_with_path(x):
        if not jnp.issubdtype(ids.dtype, jnp.integer) or ids.shape[:1] != spoiled.shape:
            continue
        ids = np.asarray(ids)
        for name, size in tables:
            outside = (ids < 0) | (ids >= size)
            has_outside = outside.reshape(len(ids), -1).any(axis=1)
            if has_outside.any() and spoiled[has_outside].all():  # otherwise these ids are for another table
                where = _row(int(has_outside.argmax()), rows)
                return (
                    f"x{jax.tree_util.keystr(place)} holds the id {ids[outside][0]} ({where}), {name} has the ids 0 to "
                    f"{size - 1}; make the vocabulary larger, or replace such ids"
                )
    return None


def _wrong_labels(objective: Supervised, y: Any, target: Any, weight: Any, rows: np.ndarray | None) -> str | None:
    is_integer = hasattr(target, "dtype") and jnp.issubdtype(target.dtype, jnp.integer)
    if not is_integer or not hasattr(y, "shape") or not y.ndim or target.shape != y.shape[:-1]:
        return None
    losses = jax.jit(objective.losses)(y, target)
    outside = ~is_class(target, y.shape[-1])
    if losses.shape != target.shape or bool(jnp.isfinite(jnp.where(outside, losses, jnp.nan)).any()):
        return None  # the loss has a meaning for them
    return wrong_labels(target, weight, y.shape[-1], lambda row: _row(row, rows))


def _spoiled_rows(y: Any) -> np.ndarray:
    """Which rows of the output are not finite, ``(batch,)``; of no rows where it has several batch sizes."""
    finite = [np.isfinite(np.asarray(leaf)) for leaf in jax.tree.leaves(y)]
    if len({leaf.shape[:1] for leaf in finite}) != 1 or not finite[0].ndim:
        return np.zeros(0, bool)
    return ~np.all([leaf.reshape(len(leaf), -1).all(axis=1) for leaf in finite], axis=0)


def _row(row: int, rows: np.ndarray | None) -> str:
    if rows is None or row >= len(rows):  # rows that pad a batch are not listed
        return f"row {row} of the batch"
    return f"row {int(rows[row])} of the data"
