"""The front of studies: arguments are checked, and the parts put together."""

import signal
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fnn.core.keys import check_key, fold
from fnn.core.specs import show as show_specs
from fnn.data import on_device, rows
from fnn.studies.conduct import Settings, Study
from fnn.studies.folder import StudyFolder
from fnn.studies.folds import as_folds, index_sets
from fnn.studies.halving import Halving
from fnn.studies.progress import StudyProgress
from fnn.studies.result import StudyResult, value_of
from fnn.studies.runs import RunId
from fnn.studies.schedule import to_host
from fnn.studies.space import Configuration, as_space, show
from fnn.studies.trial import Place, Table
from fnn.training.early_stopping import EarlyStopping
from fnn.training.objective import Supervised, split_batch
from fnn.training.resume import TERMINATED, identify


def study(
    trial: Callable[[dict[str, Any]], Any],
    space: Any = None,
    *,
    data: Any,
    steps: int | Callable[[Configuration], int],
    key: jax.Array,
    trials: int | None = None,
    seeds: int = 1,
    folds: Any = None,
    validation: Any = None,
    batch_size: int | Callable[[Configuration], int] = 32,
    evaluate_every: int | None = None,
    maximize: str | None = None,
    minimize: str | None = None,
    at: Literal["best", "last"] = "best",
    early_stopping: EarlyStopping | None = None,
    halving: Halving | None = None,
    keep: int | Literal["all"] = 1,
    predictions: bool = False,
    mode: Literal["auto", "vmap", "loop"] = "auto",
    width: int | Literal["auto"] = "auto",
    mesh: Mesh | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> StudyResult:
    """Train many configurations, seeds and folds as few compiled programs.

    A trial is a configuration of the space, a run one training of it: with one seed, on one fold. All runs of the same
    static choices share one executable, that trains several side by side (under `jax.vmap`) or one after another,
    whichever is faster here. What a run computes depends on its configuration, its seed, its fold and ``key``, and on
    nothing else: not on the others, their number or their order. The same seed starts from the same numbers in every
    trial, so that trials can be compared in pairs. Between the ways to run, results differ by rounding.

    A run whose loss is not finite ends alone, at the step before. Ctrl-C returns what is there. With ``folder`` a study
    that was killed, or that is given more trials or seeds, goes on where it stopped and ends in the same bits.

    Args:
        trial: ``trial(hp) -> (net, objective, optimizer)``, or with ``augment(key, batch)`` as a fourth. It is called
            while the program is compiled: the values of ``hp`` are traced scalars, except static choices.
        space: By name `uniform`, `log_uniform`, `normal`, `integer` or `choice`; or `sobol`, `grid`, `table`, or a list
            of configurations; or suggestions of Optuna (`from_optuna`). None: one configuration, ``{}``.
        data: ``(x, target)`` or ``(x, target, weight)``, arrays with a common leading axis of rows.
        steps: Steps of each run; or a function of the configuration.
        key: Decides configurations, folds, and all that is random in training.
        trials: How many configurations. None: all of a grid, table or list.
        seeds: How many trainings of each configuration and fold.
        folds: How to hold out rows: `k_fold`, `leave_one_out`, `shuffle_split`, `time_series`; an int for ``k_fold``;
            a splitter of scikit-learn; or a list of pairs of rows to train and to validate on.
        validation: Data to validate on, where there are no folds.
        batch_size: Rows of a batch; or a function of the static choices.
        evaluate_every: Steps between measurements. None: a tenth of the steps.
        maximize: What is best where it is largest, such as ``"validation/accuracy"``.
        minimize: What is best where it is smallest. By default ``"validation/loss"``, or ``"loss"`` where nothing is
            held out.
        at: Whether a run's value, and the parameters that are kept, are those of its best measurement or its last.
        early_stopping: From `fnn.early_stopping`; it counts measurements.
        halving: From `fnn.halving`: only the best configurations get all steps.
        keep: Of how many of the best trials the parameters are kept; ``"all"`` or 0.
        predictions: Whether the outputs for rows that a run did not see are returned.
        mode: ``"vmap"``, ``"loop"``, or ``"auto"``: a few steps of both are measured where that can pay.
        width: How many runs side by side. ``"auto"``: as many as are fast and fit the memory.
        mesh: Devices to spread the runs over, along its first axis.
        folder: Where to write configurations, measurements, networks and what is in the middle.
        progress: Whether to show remarks and a bar (on a terminal).

    Returns:
        A `StudyResult`.

    Raises:
        ValueError: when an argument is not as described, or the trial cannot be compiled.
        MisfitError: when the folder holds another study; it says what differs.
        SystemExit: after SIGTERM, with ``folder``.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> def trial(hp):
        ...     net = fnn.serial(fnn.dense(8), jnp.tanh, fnn.dense(1))
        ...     return net, fnn.supervised(net, optax.losses.squared_error), optax.adam(hp["learning_rate"])
        >>> x = jnp.linspace(-1, 1, 32)[:, None]
        >>> result = fnn.study(
        ...     trial, {"learning_rate": fnn.log_uniform(1e-4, 1e-1)}, trials=4, data=(x, x**2), steps=50,
        ...     folds=fnn.shuffle_split(), key=jax.random.key(0), progress=False,
        ... )
        >>> result.best().trial in range(4), result.curves("validation/loss").shape
        (True, (4, 10))
    """
    check_key(key)
    space = as_space(space)
    count = _count_trials(space, trials)
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    if keep != "all" and (not isinstance(keep, int) or keep < 0):
        raise ValueError(f"keep is a number of trials or 'all', got {keep!r}")
    if mode not in ("auto", "vmap", "loop") or (mode == "loop" and (mesh is not None or width not in (1, "auto"))):
        raise ValueError(f"mode is 'auto', 'vmap' or 'loop' (of width 1, on one device), got {mode!r}")
    if width != "auto" and (not isinstance(width, int) or width < 1):
        raise ValueError(f"width is a positive number of runs or 'auto', got {width!r}")
    draws = np.asarray(jax.random.key_data(fold(key, "study"))).ravel().tolist()
    table, folds_name = _table(data, validation, folds, draws)
    if predictions and table.held_out is None:
        raise ValueError("predictions are of held-out rows; give folds or validation")
    configurations = space.draw(draws, count)
    steps_of = steps if callable(steps) else lambda configuration: steps
    longest = max(_positive(steps_of(one), "steps") for one in configurations)
    settings = Settings(
        trial=trial,
        space=space,
        table=table,
        key=key,
        seeds=seeds,
        folds=len(table.train),
        batch_size=_batch_size(batch_size, table),
        steps=steps_of,
        every=max(1, longest // 10) if evaluate_every is None else _positive(evaluate_every, "evaluate_every"),
        **_goal(maximize, minimize, table.held_out is not None),
        at=at,
        rule=early_stopping,
        halving=halving,
        keep=keep,
        predictions=predictions,
        mode=mode,
        width=width,
        mesh=mesh,
    )
    opened = None if folder is None else StudyFolder(folder)
    value = lambda run: value_of(run, settings.monitor, settings.at)
    total = sum(steps_of(one) for one in configurations) * seeds * settings.folds
    shown = StudyProgress(total, value, settings.monitor, settings.maximize, shown=progress)
    try:
        with _signals() as asked:
            made = Study(settings, shown, opened, lambda: bool(asked), configurations)
            _check_trials(settings, configurations)
            _announce(made)
            if opened is not None:
                _go_on(made, opened, _identity(settings, folds_name, count))
            whole = made.conduct(range(count))
        if not whole:
            shown.say(f"asked to stop: {sum(run.status == 'finished' for run in made.runs.values())} runs are finished")
        if signal.SIGTERM in asked and opened is not None:
            raise SystemExit(TERMINATED)
    finally:
        shown.close()
        if opened is not None:
            opened.close()
    return _result(made)


def _result(made: Study) -> StudyResult:
    settings = made.settings
    result = StudyResult(
        space=settings.space,
        configurations=made.configurations,
        runs=sorted(made.runs.values(), key=lambda run: run.id),
        monitor=settings.monitor,
        maximize=settings.maximize,
        at=settings.at,
        networks=lambda configuration: settings.program(configuration).build(settings.traced(configuration)).net,
        kept=made.store.kept,
        predictions=_predictions(made) if settings.predictions else None,
        remarks=made.progress.remarks,
    )
    if not np.isfinite(result.scores()).any():
        warnings.warn(f"no trial has a finite {settings.monitor}: {result.counted()}", stacklevel=3)
    return result


def _count_trials(space: Any, trials: int | None) -> int:
    if trials is None:
        if space.rows is None:
            raise ValueError("say how many configurations to draw: trials=64")
        return len(space.rows)
    if trials < 1 or (space.rows is not None and trials > len(space.rows)):
        most = "" if space.rows is None else f" and at most {len(space.rows)}, the configurations there are"
        raise ValueError(f"trials must be at least 1{most}; got {trials}")
    return trials


def _positive(value: Any, name: str) -> int:
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a positive int, got {value!r}")
    return int(value)


def _table(data: Any, validation: Any, folds: Any, draws: list[int]) -> tuple[Table, str]:
    """The data and its folds, on the device."""
    data = on_device(data)
    size = rows(data)
    if folds is not None and validation is not None:
        raise ValueError("give folds, which hold out rows of the data, or validation, which is other data; not both")
    if folds is not None:
        rule = as_folds(folds)
        sets = index_sets(rule, size, _target(data), [*draws, zlib.crc32(b"folds")])
        return Table(data, *map(jnp.asarray, sets)), rule.name
    every = jnp.arange(size, dtype=jnp.int32)[None]
    if validation is None:
        return Table(data, every, jnp.array([size], jnp.int32)), "none"
    validation = on_device(validation)
    if jax.tree.structure(validation) != jax.tree.structure(data):
        raise ValueError("validation data must have the form of the data, such as (x, target)")
    joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b.astype(a.dtype)]), data, validation)
    held_out = jnp.arange(size, size + rows(validation), dtype=jnp.int32)[None]
    sizes = jnp.array([held_out.shape[1]], jnp.int32)
    return Table(joined, every, jnp.array([size], jnp.int32), held_out, sizes), "validation data"


def _target(data: Any) -> Any:
    try:
        return split_batch(data)[1]
    except ValueError:  # of an objective of another kind
        return None


def _batch_size(batch_size: Any, table: Table) -> Callable[[Configuration], int]:
    least = int(np.min(np.asarray(table.train_sizes)))

    def of(static: Configuration) -> int:
        try:
            size = batch_size(static) if callable(batch_size) else batch_size
        except KeyError as error:
            raise ValueError(f"batch_size depends on {error}, which must be a choice with static=True") from error
        if _positive(size, "batch_size") > least:
            raise ValueError(
                f"batch_size is {size}, and a fold has {least} rows to train on; choose {least} or smaller"
            )
        return size

    return of


def _goal(maximize: str | None, minimize: str | None, validates: bool) -> dict[str, Any]:
    if maximize and minimize:
        raise ValueError("give maximize or minimize, not both")
    default = "validation/loss" if validates else "loss"
    return {"monitor": maximize or minimize or default, "maximize": maximize is not None}


def _check_trials(settings: Settings, configurations: list[Configuration]) -> None:
    """Build one trial, so that what is wrong with it is said before anything is compiled."""
    configuration = configurations[0]
    program = settings.program(configuration)
    made = program.build({name: jnp.asarray(value) for name, value in settings.traced(configuration).items()})
    sizes = settings.table.held_out_sizes
    if sizes is not None and not isinstance(made.objective, Supervised) and np.ptp(np.asarray(sizes)):
        raise ValueError("folds of different sizes need an objective made by fnn.supervised, which can mask rows")
    if settings.rule is not None and settings.rule.monitor.startswith("validation/") and sizes is None:
        raise ValueError(f"early stopping monitors {settings.rule.monitor!r}; give folds or validation")


def _announce(made: Study) -> None:
    """Say what is coming: how many runs, and how many programs are compiled for them."""
    settings = made.settings
    parts = [f"{len(made.configurations)} trials"]
    parts += [f"{settings.seeds} seeds"] if settings.seeds > 1 else []
    parts += [f"{settings.folds} folds"] if settings.folds > 1 else []
    runs = len(made.configurations) * settings.seeds * settings.folds
    labels = list(dict.fromkeys(map(made.label, range(len(made.configurations)))))
    listed = "; ".join(labels[:4]) + ("; ..." if len(labels) > 4 else "")
    programs = "one program" if len(labels) == 1 else f"{len(labels)} programs ({listed})"
    made.progress.say(f"{' x '.join(parts)}: {runs} runs, {programs} to compile")


def _identity(settings: Settings, folds_name: str, count: int) -> dict[str, str]:
    """What must be the same for a study to go on, as texts."""
    arrays = jax.tree.leaves(settings.table)
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), checksum)
    options = {
        "key": np.asarray(jax.random.key_data(settings.key)).tolist(),
        "space": {name: repr(dimension) for name, dimension in settings.space.dimensions.items()},
        "drawn by": settings.space.rule,
        "data": f"{show_specs(settings.table.data)}, checksum {checksum:08x}",
        "folds": folds_name,
        "evaluate_every": settings.every,
        "compared": f"{'largest' if settings.maximize else 'smallest'} {settings.monitor} at {settings.at}",
        "early stopping": settings.rule,
        "halving": settings.halving and f"{settings.halving} of {count} trials and {settings.seeds} seeds",
        "keep": settings.keep,
        "predictions": settings.predictions,
        "mode": f"{settings.mode}, width {settings.width}, {'no mesh' if settings.mesh is None else settings.mesh.shape}",
    }
    return {name: str(value) for name, value in options.items()}


def _program_identity(settings: Settings, configuration: Configuration) -> dict[str, str]:
    program = settings.program(configuration)
    made = program.build({name: jnp.asarray(value) for name, value in settings.traced(configuration).items()})
    place = Place(settings.traced(configuration), *(np.int32(0) for _ in range(3)))
    lane = jax.eval_shape(program.start, settings.key, place, settings.table)
    options = {"augment": made.augment, "batch size": program.batch_size, "optimizer": show_specs(lane.opt_state)}
    return identify(made.objective, None, **options)


def _go_on(made: Study, folder: StudyFolder, identity: Mapping[str, str]) -> None:
    """Take in what the folder has."""
    settings = made.settings
    groups = {made.label(trial): trial for trial in reversed(range(len(made.configurations)))}
    for label, trial in groups.items():
        texts = _program_identity(settings, made.configurations[trial])
        identity = {**identity, **{f"{label}: {name}" if label else name: text for name, text in texts.items()}}
    made.chosen = folder.begin(identity)
    folder.configurations()
    folder.add_configurations(
        [
            {"trial": n, **{name: plain(value) for name, value in row.items()}}
            for n, row in enumerate(made.configurations)
        ]
    )
    wants = settings.keep == "all" or settings.predictions
    runs, states, kept, predictions = folder.read(settings.rule, wants, lambda run_id: _like(made, run_id))
    known = lambda run_id: run_id.trial < len(made.configurations)
    made.runs |= {run_id: run for run_id, run in runs.items() if known(run_id)}
    made.store.parked |= {run_id: to_host(state) for run_id, state in states.items() if known(run_id)}
    made.store.kept |= {run_id: to_host(tree) for run_id, tree in kept.items()}
    made.store.predictions |= {run_id: to_host(tree) for run_id, tree in predictions.items()}
    if runs:
        over = sum(run.status == "finished" for run in runs.values())
        made.progress.say(f"going on from {folder.folder}: {over} runs are finished, {len(states)} in the middle")


def _like(made: Study, run_id: RunId) -> Any:
    """The state of a run, as NumPy arrays without memory."""
    settings, configuration = made.settings, made.configurations[run_id.trial]
    place = Place(settings.traced(configuration), *(np.int32(0) for _ in range(3)))
    start = lambda: jax.tree.map(_data, settings.program(configuration).start(settings.key, place, settings.table))
    return jax.tree.map(lambda spec: np.broadcast_to(np.zeros((), spec.dtype), spec.shape), jax.eval_shape(start))


def _data(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def plain(value: Any) -> Any:
    """A hyperparameter as JSON holds it: numbers and texts as they are, others by their names."""
    if isinstance(value, bool | int | float | str):
        return value
    return value.item() if hasattr(value, "item") else show(value)


def _predictions(made: Study) -> Any:
    """Outputs in the order of the data; where a row was held out several times, the mean."""
    settings, found = made.settings, made.store.predictions
    table = settings.table
    assert table.held_out is not None and table.held_out_sizes is not None
    held_out, sizes = np.asarray(table.held_out), np.asarray(table.held_out_sizes)
    offset = held_out.min() if held_out.max() >= table.train.shape[1] and len(held_out) == 1 else 0
    size = rows(table.data) - offset

    def gather(*leaves: Any) -> np.ndarray:
        shape = leaves[0].shape[1:]
        totals = np.zeros((len(made.configurations), settings.seeds, size, *shape))
        counts = np.zeros(totals.shape[:3])
        for run_id, leaf in zip(found, leaves):
            places = held_out[run_id.fold, : sizes[run_id.fold]] - offset
            totals[run_id.trial, run_id.seed, places] += leaf[: len(places)]
            counts[run_id.trial, run_id.seed, places] += 1
        counts = counts.reshape(*counts.shape, *(1 for _ in shape))
        return np.where(counts, totals / np.maximum(counts, 1), np.nan)

    return jax.tree.map(gather, *found.values()) if found else None


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Signals that came: the first Ctrl-C and SIGTERM wait for the call that is running, a second Ctrl-C does not."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, _: Any) -> None:
        if number == signal.SIGINT and came:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
