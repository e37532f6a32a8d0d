"""When the loss is not finite: which step, which value, and where it began."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.training.loop import Step
from fnn.training.step import Objective, TrainState


class NonFiniteError(ArithmeticError):
    """Training met a loss that is not finite.

    Attributes:
        step: Number of the step, counted from 0.
        leaf: The first array that is not finite, such as ``"batch[0]"`` or ``"gradient of dense_0/kernel"``.
        run: The state before that step: the last good one.
        history: What `fit` had recorded.
    """

    def __init__(self, message: str, *, step: int, leaf: str, run: TrainState, history: dict[str, Any]):
        super().__init__(message)
        self.step, self.leaf, self.run, self.history = step, leaf, run, history


def find_non_finite(
    objective: Objective, step: Step, run: TrainState, batches: Iterable[Any], history: dict[str, Any]
) -> NonFiniteError:
    """Repeat the steps since the last good state one by one, up to the first whose loss is not finite."""
    compiled = jax.jit(step)
    for batch in batches:
        after, metrics = compiled(run, batch)
        if not np.isfinite(metrics["loss"]):
            leaf = _first_leaf(objective, run, batch)
            message = (
                f"the loss of step {int(run.step)} is {metrics['loss']}; the first array that is not finite is {leaf}. "
                f"{_advice(leaf)} The state before this step is in this error's `run`."
            )
            return NonFiniteError(message, step=int(run.step), leaf=leaf, run=run, history=history)
        run = after
    raise AssertionError("the steps were finite when they were repeated")


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
