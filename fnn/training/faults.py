"""When training goes wrong: which step, which value, and where it began."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.training.loop import Step
from fnn.training.step import Objective, TrainState, all_finite

SHOWN = 8  # rows of a batch that a message names


class NonFiniteError(ArithmeticError):
    """Training met a loss or gradients that are not finite.

    Attributes:
        step: Number of the step, counted from 0.
        leaf: The first array that is not finite, such as ``"batch[0]"`` or ``"gradient of dense_0/kernel"``.
        rows: Which rows of the data were the step's batch, where `fit` has them as arrays.
        run: The state before that step: the last good one.
        history: What `fit` had recorded.
    """

    def __init__(self, message: str, *, step: int, leaf: str, rows: np.ndarray | None, run: TrainState):
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
    compiled = jax.jit(step)
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
        message = (
            f"{what}; the first array that is not finite is {leaf}.{of} {_advice(leaf)} The state before this step is "
            "in this error's `run`."
        )
        return NonFiniteError(message, step=int(run.step), leaf=leaf, rows=rows, run=run)
    raise AssertionError("the steps were finite when they were repeated")


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
