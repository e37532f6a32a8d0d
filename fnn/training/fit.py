"""Training from start to finish: a thin assembly of the step, the loop, evaluation and progress."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import optax

from fnn.core.keys import fold
from fnn.data import Batches, batches, is_arrays, on_device
from fnn.training.early_stopping import EarlyStopping
from fnn.training.evaluate import evaluate
from fnn.training.faults import find_non_finite
from fnn.training.loop import Report, Step, training
from fnn.training.progress import Progress
from fnn.training.step import Augment, Objective, TrainState, train_step

History = dict[str, np.ndarray]

STEPS_PER_REPORT = 16  # of an iterable: so many batches are kept to explain a loss that is not finite


def fit(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    run: TrainState,
    data: Any,
    *,
    batch_size: int = 32,
    epochs: int = 1,
    validation: Any = None,
    augment: Augment | None = None,
    early_stopping: EarlyStopping | None = None,
    progress: bool = True,
) -> tuple[TrainState, History]:
    """Train for some epochs and record what was measured.

    A run that was trained before goes on where it stopped, with other permutations. Ctrl-C returns what is there.

    Args:
        objective: What to make small, such as `supervised` makes.
        optimizer: From optax.
        run: From `train_init`, or from an earlier `fit`.
        data: Arrays, ``(x, target)`` or ``(x, target, weight)``, that stay on the device and are shuffled each epoch;
            or an iterable of batches, each pass over which is an epoch.
        batch_size: Rows of a batch, for arrays.
        epochs: How many passes over the data.
        validation: Data to evaluate after each epoch, in either form.
        augment: ``augment(key, batch) -> batch``, within the compiled step.
        early_stopping: From `fnn.early_stopping`.
        progress: Whether to show a bar (on a terminal) and a row for each epoch.

    Returns:
        The trained state and the history: by name one value for each epoch, NumPy arrays. Training metrics are means
        over the epoch's steps; those of validation are called ``"validation/..."``; ``"step"`` counts steps.

    Raises:
        ValueError: when the data is empty, its arrays differ in length, or it has fewer rows than a batch.
        NonFiniteError: when the loss is not finite; it names the step and the first bad array, and holds the last
            good state and the history.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> net, optimizer = fnn.dense(1), optax.sgd(0.1)
        >>> x, y = jnp.ones((8, 2)), jnp.ones((8, 1))
        >>> run = fnn.train_init(net, optimizer, jax.random.key(0), x)
        >>> objective = fnn.supervised(net, optax.losses.squared_error)
        >>> run, history = fnn.fit(objective, optimizer, run, (x, y), batch_size=4, epochs=3, progress=False)
        >>> history["step"].tolist()
        [2, 4, 6]
    """
    if not isinstance(run, TrainState):
        raise TypeError(f"run must be the TrainState that fnn.train_init returned, got {type(run).__name__}")
    if is_arrays(data):
        data = batches(data, batch_size, key=run.key, epochs=epochs, start=int(run.step))
    elif epochs > 1 and iter(data) is data:
        raise ValueError("data is an iterator, which one epoch uses up; pass a list, or an iterable that starts again")
    if validation is not None and is_arrays(validation):
        validation = on_device(validation)

    step = _step(objective, optimizer, augment)
    rows: list[dict[str, Any]] = []
    seen: list[Report] = []
    best, memory = run, early_stopping and early_stopping.init()
    bar = Progress(epochs, getattr(data, "steps_per_epoch", None), shown=progress)
    try:
        for report, is_last_of_epoch in _reports(objective, step, run, data, epochs, rows):
            run = report.run
            seen.append(report)
            bar.update(report.steps, report.metrics)
            if not is_last_of_epoch:
                continue
            row = _means(seen) | {"step": int(run.step)}
            seen = []
            if validation is not None:
                key = fold(run.key, "validation")
                measured = evaluate(objective, run.params, run.state, validation, key=key)
                row |= {f"validation/{name}": value for name, value in measured.items()}
            rows.append(row)
            bar.epoch({name: value for name, value in row.items() if name != "step"})
            if early_stopping is not None and memory is not None:
                memory = early_stopping.update(memory, _monitored(early_stopping, row), len(rows))
                best = run if memory.best_epoch == len(rows) else best
                if early_stopping.is_over(memory):
                    bar.say(f"stopped early: {early_stopping.monitor} was best in epoch {memory.best_epoch}")
                    break
    except KeyboardInterrupt:
        bar.say(f"interrupted after step {int(run.step)}: returning what is trained so far")
    finally:
        bar.close()
    if early_stopping is not None and early_stopping.restore and memory is not None and memory.best_epoch:
        run = best
    return run, _history(rows)


@lru_cache(maxsize=32)
def _step(objective: Objective, optimizer: optax.GradientTransformation, augment: Augment | None) -> Step:
    """The same step for the same arguments, so that a second `fit` compiles nothing again."""
    return train_step(objective, optimizer, augment=augment)


def _reports(
    objective: Objective, step: Step, run: TrainState, data: Any, epochs: int, rows: list[Any]
) -> Iterator[tuple[Report, bool]]:
    """Reports of all epochs, each with whether it ends an epoch; a loss that is not finite raises."""
    if isinstance(data, Batches):
        done = 0
        for report in training(step, run, data):
            if not _is_finite(report):
                again = replace(data, start=int(run.step), epochs=epochs)
                raise find_non_finite(objective, step, run, again, _history(rows))
            run, done = report.run, done + report.steps
            yield report, done % data.steps_per_epoch == 0
        return
    recent: deque[Any] = deque(maxlen=STEPS_PER_REPORT)
    for _ in range(epochs):
        waiting = None
        for report in training(step, run, _recording(data, recent), every=STEPS_PER_REPORT):
            if waiting is not None:
                yield waiting, False
            if not _is_finite(report):
                raise find_non_finite(objective, step, run, list(recent)[-report.steps :], _history(rows))
            run, waiting = report.run, report
        if waiting is None:
            raise ValueError("the data is empty: it has no batches")
        yield waiting, True


def _is_finite(report: Report) -> bool:
    return bool(np.isfinite(report.metrics["loss"]).all())


def _recording(data: Iterable[Any], recent: deque[Any]) -> Iterator[Any]:
    for batch in data:
        recent.append(batch)
        yield batch


def _means(reports: list[Report]) -> dict[str, Any]:
    names = sorted(reports[0].metrics, key=lambda name: name != "loss")
    return {
        name: np.concatenate([report.metrics[name] for report in reports]).mean(axis=0, dtype=np.float64).tolist()
        for name in names
    }


def _monitored(rule: EarlyStopping, row: dict[str, Any]) -> float:
    if rule.monitor not in row:
        raise ValueError(f"early stopping monitors {rule.monitor!r}, which is not measured; there is {', '.join(row)}")
    return float(row[rule.monitor])


def _history(rows: list[dict[str, Any]]) -> History:
    return {name: np.asarray([row[name] for row in rows]) for name in (rows[0] if rows else {})}
