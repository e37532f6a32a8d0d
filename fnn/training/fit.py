"""Training from start to finish: a thin assembly of the step, the loop, evaluation, checkpoints and progress."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax

from fnn.checkpoint.folder import Checkpoints
from fnn.core.caches import cached_on_first
from fnn.core.errors import short_tracebacks
from fnn.core.specs import same, specs
from fnn.data import Batches, batches, is_arrays, on_device, rows
from fnn.ops.checks import check_choice, check_counts
from fnn.training.arguments import (
    check_function,
    check_logs,
    check_rules,
    check_validation,
    explain_arguments,
)
from fnn.training.costs import Costs
from fnn.training.early_stopping import EarlyStopping
from fnn.training.evaluate import evaluated
from fnn.training.faults import NonFiniteError
from fnn.training.job import ATTEMPTS, Job, Kept
from fnn.training.logs import Log, Logger
from fnn.training.loop import Step, measured, spec_of_batch
from fnn.training.objective import Supervised, check_data, check_examples, split_batch
from fnn.training.profile import Profiler, Window
from fnn.training.progress import Progress, steps_per_epoch
from fnn.training.resume import Identity, Past, Resume, history, identify, order_of
from fnn.training.signals import termination
from fnn.training.step import Augment, Objective, TrainState, train_step
from fnn.training.watch import Watch

History = dict[str, np.ndarray]
OnEpoch = Callable[[TrainState, dict[str, Any]], str | None]


@short_tracebacks
@explain_arguments
def fit(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    run: TrainState,
    data: Any,
    *,
    batch_size: int = 32,
    epochs: int = 1,
    shuffle: bool = True,
    remainder: Literal["drop", "pad"] = "drop",
    validation: Any = None,
    validation_batch_size: int | None = None,
    evaluate_with: Callable[[TrainState], Any] | None = None,
    augment: Augment | None = None,
    early_stopping: EarlyStopping | None = None,
    checkpoints: Checkpoints | None = None,
    resume: Resume = "warn",
    log: Log | Sequence[Log] = (),
    log_every: int | None = None,
    watch: Watch | None = None,
    profile: Window | None = None,
    non_finite: Literal["stop", "skip", "restore"] = "stop",
    on_epoch: OnEpoch | None = None,
    progress: bool = True,
) -> tuple[TrainState, History]:
    """Train for some epochs and record what was measured.

    A run that was trained before continues at ``run.step``, with other permutations. Ctrl-C returns what is trained so
    far; before the first step, such as while it is compiled, it raises KeyboardInterrupt.

    With ``checkpoints`` the folder decides where to begin: empty, at ``run``; otherwise where its newest checkpoint
    stopped, in the middle of an epoch too. A run that is killed and started again ends in the same bits as one that is
    not (on the same machine). To train for longer, start it again with more epochs. SIGTERM finishes the step, saves
    and exits with status 143; without ``checkpoints`` it exits at once, with the same status.

    Args:
        objective: What to make small, such as `supervised` makes.
        optimizer: From optax.
        run: From `train_init`, or from an earlier `fit`.
        data: Arrays, ``(x, target)`` or ``(x, target, weight)``, that stay on the device and are shuffled each epoch;
            or an iterable of batches, each pass over which is an epoch. A run that goes on in the middle of an epoch
            passes over the batches of an iterable that it has seen.
        batch_size: Rows of a batch, for arrays. 63 rows in batches of 32 are one step for each epoch; ``remainder``
            says what becomes of the other 31 rows.
        epochs: How many passes over the data. With ``checkpoints`` the total over all calls for that folder: 3 after 2
            trains for one more. Without them each call trains for so many.
        shuffle: Whether arrays are shuffled before each epoch. Otherwise batches are taken in the order of the rows.
        remainder: What becomes of the rows of an epoch that fill no batch. ``"drop"``: they are left out; the next
            epoch leaves out others, if it shuffles. ``"pad"``: they are one more batch, filled with other rows of
            weight 0, so that its loss, metrics and gradients are those of its own rows. Layers that mix the rows of a
            batch, such as batch norm, see the filling rows: these are examples of the data. For objectives of
            `supervised` alone.
        validation: Data to evaluate after each epoch, in either form.
        validation_batch_size: Rows at a time in evaluation, for arrays. None: ``batch_size``, which fits into memory
            where training does; more may be faster.
        evaluate_with: ``evaluate_with(run) -> params``: the parameters to validate with, such as `fnn.ema_params`. The
            run that `fit` returns, or that early stopping restores, is the trained one.
        augment: ``augment(key, batch) -> batch``, within the compiled step.
        early_stopping: From `fnn.early_stopping`.
        checkpoints: Where to save all that the run needs to go on: after each epoch, or ``every`` so many steps.
        resume: What to do where the folder holds a run whose loss, network, optimizer, code or configuration was
            another: ``"warn"`` with a table of what differs, or ``"strict"``: an error. Other data, and other shapes of
            parameters, state or optimizer state, are always an error.
        log: ``log(step, values)``, called after each epoch with what the history has, such as `fnn.jsonl_log` makes;
            one or several.
        log_every: Steps after which training metrics are logged too: means over so many steps. They have the plain
            names, and the means over an epoch are logged as ``"epoch/..."``.
        watch: More metrics of each step, such as `fnn.norms` measures.
        profile: ``(start, stop)``: trace the steps from start to stop - 1, counted as ``run.step`` counts, into the
            folder ``"profile"`` beside the checkpoints, or where the program runs; ``(start, stop, folder)`` into
            another. Open it with TensorBoard or Perfetto. The first steps of a run are also compiled.
        non_finite: What to do where a loss or gradients are not finite: ``"stop"``; ``"skip"`` such steps, which change
            nothing and are counted as ``"skipped"``; or ``"restore"`` the newest checkpoint (the beginning, where there
            is none) and go on with half the learning rate, which the optimizer must keep
            (``optax.inject_hyperparams``); where it fails again before it has come further, it goes back to a
            checkpoint of an earlier step, at last to the beginning. After ten of them in a row it stops.
        on_epoch: ``on_epoch(run, row)``, called after each epoch with the state and what was measured, by name; it may
            return ``"stop"`` to end the training. With ``checkpoints`` a run that was stopped stays stopped.
        progress: Whether to show a bar (on a terminal or in a notebook; elsewhere a line now and then) and rows of the
            epochs, about twenty at most.

    Returns:
        The trained state and the history: by name one value for each epoch, NumPy arrays. Training metrics are means
        over the epoch's steps; those of validation are called ``"validation/..."``; ``"step"`` counts steps.

    Raises:
        TypeError: when an argument is of another kind; it says what to pass, before anything is traced.
        ValueError: when the data is empty, its arrays differ in length, or it has fewer rows than a batch; when weights
            are negative or all 0; when labels are not classes of the output, under
            ``optax.losses.softmax_cross_entropy_with_integer_labels`` and where their weight is not 0; or when
            ``profile`` has no steps, or begins after the last.
        NonFiniteError: when a loss or gradients are not finite; it names the step and the first bad array, and
            holds the last good state and the history.
        MisfitError: when the folder holds the checkpoints of a run of other data or other shapes, or with
            ``resume="strict"`` of any other run; it says what differs.
        SystemExit: after SIGTERM.
        KeyboardInterrupt: after Ctrl-C before the first step.

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
    check_counts(batch_size=(batch_size, 1), epochs=(epochs, 0), log_every=(log_every, 1))
    check_counts(validation_batch_size=(validation_batch_size, 1))
    check_choice("remainder", remainder, "drop", "pad")
    check_choice("resume", resume, "warn", "strict")
    check_choice("non_finite", non_finite, "stop", "skip", "restore")
    check_function("augment", augment, "key", "batch")
    check_function("watch", watch, "params", "grads", "updates", "opt_state")
    check_function("on_epoch", on_epoch, "run", "row")
    check_logs(log)
    check_rules(early_stopping, checkpoints)
    check_validation(validation, epochs)
    if non_finite == "restore":
        _rate(run)
    profiler = Profiler(profile, Path() if checkpoints is None else checkpoints.folder)
    past = Past(run, int(run.step))
    if early_stopping is not None:
        past = past._replace(best=run, patience=early_stopping.init())
    check_examples(objective, data, "data")
    if validation is not None:
        check_examples(objective, validation, "validation")
    cut = is_arrays(data)
    if remainder == "pad":
        _check_padding(objective, cut)
        if augment is not None and split_batch(data)[2] is None:
            augment = _without_weight(augment)
    if cut:
        order = {"key": run.key if shuffle else None, "epochs": epochs, "start": past.began}
        data = batches(data, batch_size, **order, remainder=remainder)
    elif isinstance(data, Batches) and len(data) != epochs * data.steps_per_epoch:
        raise ValueError(
            f"data are fnn.batches of {len(data)} steps, and {epochs} epochs are {epochs * data.steps_per_epoch}; pass "
            "the arrays themselves, or the same number of epochs to both"
        )
    elif epochs > 1 and iter(data) is data:
        raise ValueError("data is an iterator, which one epoch uses up; pass a list, or an iterable that starts again")
    if validation is not None and is_arrays(validation):
        validation = on_device(validation, "validation")
    evaluated_rows = validation_batch_size or batch_size
    step = _step(objective, optimizer, augment, watch, non_finite == "skip")
    _dry_run(objective, step, run, data, validation, evaluated_rows, early_stopping, checkpoints)
    if evaluate_with is not None:
        _check_evaluated(evaluate_with, run, validation)
    kept = None
    if checkpoints is not None:
        settings = {"augment": augment, "early stopping": early_stopping, "watch": watch}
        settings["evaluate_with"] = evaluate_with
        measured = {"validation": validation is not None or None, "skips steps": non_finite == "skip" or None}
        identity = Identity(checkpoints.folder, identify(objective, data, **settings, **measured), resume)
        if isinstance(data, Batches):
            # Arrays are shuffled by the key of the run, which is that of the checkpoint.
            identity.texts["order of the rows"] = "shuffled" if cut and shuffle else order_of(data)
            identity.texts["last batch"] = "padded" if data.pads else "dropped"
            identity.note_program(step, run, spec_of_batch(data))
        goal = None if early_stopping is None else [early_stopping.monitor, early_stopping.maximize]
        kept = Kept(checkpoints, identity, goal)
        past = kept.restore(past) or past
    if cut:
        data = replace(data, key=past.run.key if shuffle else None, start=past.began, stop=past.began + len(data))
        profiler.fits(data.stop)
    bar = Progress(epochs, steps_per_epoch(data), shown=progress, done=len(past.rows))
    if kept is not None and kept.step is not None:
        done = f"step {kept.step}, {len(past.rows)} of {epochs} epochs done"
        bar.say(f"resuming from {kept.checkpoints.folder}: {done}")
    if isinstance(data, Batches) and not data.pads and (left := rows(data.data) % data.batch_size):
        bar.say(f"each epoch leaves out {left} of {rows(data.data)} rows, which fill no batch of {data.batch_size}")
    logger, costs = Logger(log, log_every), Costs(objective, watch)
    rules = {"early_stopping": early_stopping, "on_epoch": on_epoch, "evaluate_with": evaluate_with}
    measuring = {"validation": validation, "validation_batch_size": evaluated_rows, "logger": logger, "costs": costs}
    job = Job(objective, step, data, epochs, kept=kept, profiler=profiler, bar=bar, **rules, **measuring)
    try:
        with checkpoints or nullcontext(), termination(saves=kept is not None) as asked:
            past = _restoring(job, past, asked) if non_finite == "restore" else job.run(past, asked)
    finally:
        profiler.close()
        bar.close()
    restored = early_stopping is not None and early_stopping.restore and past.patience and past.patience.best_epoch
    return (past.best if restored and past.best is not None else past.run), history(past.rows)


def _dry_run(
    objective: Objective,
    step: Step,
    run: TrainState,
    data: Any,
    validation: Any,
    batch_size: int,
    early_stopping: EarlyStopping | None,
    checkpoints: Checkpoints | None,
) -> None:
    """Find out before the first step what would go wrong later: shapes, labels, weights, names that are monitored."""
    trained = [*measured(step, run, data), "step"] if isinstance(data, Batches) else None
    validated = [] if validation is None else None
    if isinstance(data, Batches):
        check_data(objective, run.params, run.state, data.data, data.batch_size, key=run.key)
    if validation is not None and is_arrays(validation):
        check_data(objective, run.params, run.state, validation, batch_size, "validation")
        names = evaluated(objective, run.params, run.state, validation, run.key, batch_size)
        validated = [f"validation/{name}" for name in names]
    monitored = {
        "early stopping": early_stopping and early_stopping.monitor,
        "checkpoints": checkpoints and checkpoints.monitor,
    }
    for of, name in monitored.items():
        known = validated if name and name.startswith("validation/") else trained
        if name and known is not None and name not in known:
            listed = ", ".join([*(trained or []), *(validated or [])])
            without = "" if validation is not None else " (and no validation data)"
            raise ValueError(f"{of} monitors {name!r}, which will not be measured; there is {listed}{without}")


def _check_evaluated(evaluate_with: Callable[[TrainState], Any], run: TrainState, validation: Any) -> None:
    if validation is None:
        raise ValueError("evaluate_with gives the parameters to validate with; pass validation data")
    params = jax.eval_shape(evaluate_with, run)
    if not same(specs(params), specs(run.params)):
        raise ValueError(
            "evaluate_with must return parameters in the form of run.params, such as fnn.ema_params does; "
            f"{evaluate_with!r} returned another tree"
        )


def _check_padding(objective: Objective, arrays: bool) -> None:
    if not arrays:
        raise ValueError('remainder="pad" pads batches of arrays; an iterable of batches makes its own')
    if not isinstance(objective, Supervised):
        raise ValueError(
            'remainder="pad" gives some rows the weight 0, which objectives of fnn.supervised heed; '
            'for others, pass remainder="drop"'
        )


@cached_on_first
def _without_weight(augment: Augment) -> Augment:
    """The same augmentation of batches that are padded: it sees x and target, as without padding."""

    @wraps(augment)
    def augment_padded(key: jax.Array, batch: Any) -> Any:
        x, target, weight = split_batch(batch)
        kind = (lambda *parts: dict(zip(("x", "target", "weight"), parts))) if isinstance(batch, dict) else _as_tuple
        x, target, own = split_batch(augment(key, kind(x, target)))
        if own is not None:
            weight = own * weight.reshape(weight.shape + (1,) * (own.ndim - 1))
        return kind(x, target, weight)

    return augment_padded


def _as_tuple(*parts: Any) -> tuple[Any, ...]:
    return parts


def _restoring(job: Job, past: Past, asked: Callable[[], bool]) -> Past:
    """Train, and where that fails go on from a checkpoint with a smaller rate.

    Where it fails again before it has come further, it goes on from one of an earlier step, at last from the beginning.
    """
    first, furthest = past, -1
    rate = _rate(past.run)
    for attempt in itertools.count(1):
        try:
            return job.run(past, asked)
        except NonFiniteError as error:
            if attempt > ATTEMPTS:
                raise
            before = None if error.step > furthest else int(past.run.step)
            furthest = max(furthest, error.step)
            saved = None if job.kept is None else job.kept.restore(first, before)
            past, rate = saved or first, rate / 2
            opt_state = optax.tree.set(past.run.opt_state, learning_rate=rate)
            past = past._replace(run=past.run._replace(opt_state=opt_state))
            at = int(past.run.step)
            job.bar.say(f"step {error.step} is not finite: going on from step {at} with a learning rate of {rate:.3g}")
    raise AssertionError


def _rate(run: TrainState) -> jax.Array:
    """The learning rate that the optimizer keeps, and that is a number of its own."""
    kept = optax.tree.get(run.opt_state, "hyperparams", {})
    if "learning_rate" not in kept or "learning_rate" in optax.tree.get(run.opt_state, "hyperparams_states", {}):
        raise ValueError(
            'non_finite="restore" halves the learning rate, which must be a number that the optimizer keeps, and no '
            "schedule; make it by optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)"
        )
    return kept["learning_rate"]


@cached_on_first
def _step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    augment: Augment | None,
    watch: Watch | None,
    skip_non_finite: bool,
) -> Step:
    """The same step for the same arguments, so that a second `fit` compiles nothing again."""
    return train_step(objective, optimizer, augment=augment, watch=watch, skip_non_finite=skip_non_finite)
