"""fnn: `study`, with validation data or folds."""

from collections.abc import Sequence
from typing import Any

import jax
import optax

import fnn
from benchmarks.harness import Arrays
from benchmarks.peers.compiled import size
from benchmarks.study_peers import Outcome, Program, StudyTask


def network(task: StudyTask) -> fnn.Layer:
    """The networks of the workloads."""
    if task.network == "mlp":
        return fnn.serial(fnn.dense(task.hidden), jax.nn.relu, fnn.dense(task.classes))
    return fnn.serial(
        fnn.conv(task.hidden, (3, 3)), jax.nn.relu, fnn.max_pool((2, 2)),
        fnn.conv(2 * task.hidden, (3, 3)), jax.nn.relu, fnn.max_pool((2, 2)),
        fnn.flatten(), fnn.dense(task.classes),
    )  # fmt: skip


def prepare(task: StudyTask, arrays: Arrays, mode: Any) -> Program:
    net = network(task)
    loss = optax.losses.softmax_cross_entropy_with_integer_labels
    objective = fnn.supervised(net, loss, metrics={"accuracy": fnn.accuracy})
    held_out: dict[str, Any] = (
        {"folds": fnn.k_fold(task.folds, stratified=True)}
        if task.folds > 1
        else {"validation": (arrays["x_validation"], arrays["y_validation"])}
    )

    def trial(hp: dict[str, Any]) -> Any:
        return net, objective, optax.adam(hp["learning_rate"])

    def study(rates: Sequence[float], seed: int) -> Outcome:
        result = fnn.study(
            trial, fnn.grid({"learning_rate": rates}), data=(arrays["x"], arrays["y"]), **held_out,
            batch_size=task.batch, steps=task.steps, evaluate_every=task.steps, maximize="validation/accuracy",
            at="last", keep=0, mode=mode, key=jax.random.key(seed), progress=False,
        )  # fmt: skip
        return Outcome(result.scores().tolist(), max(run.step for run in result.runs), "; ".join(result.remarks))

    def parameters() -> int:
        return size(jax.eval_shape(net.init, jax.random.key(0), arrays["x"][:1])[0])

    return Program(study, parameters)
