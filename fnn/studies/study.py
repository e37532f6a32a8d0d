"""The front of studies: arguments are checked, and the parts put together."""

import warnings
import zlib
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from fnn.core.errors import short_tracebacks
from fnn.core.keys import check_key
from fnn.studies.conduct import Study
from fnn.studies.configurations import Configuration, as_space
from fnn.studies.folder import StudyFolder
from fnn.studies.going_on import go_on, write_configurations
from fnn.studies.halving import Halving
from fnn.studies.identity import identity_of
from fnn.studies.progress import StudyProgress
from fnn.studies.result import StudyResult, in_order, many
from fnn.studies.runs import OVER
from fnn.studies.scores import scores_of, value_of
from fnn.studies.settings import Settings, arrays, batch_sizes, check_trial, goal, make_table, positive
from fnn.studies.suggestions import Suggestions
from fnn.training.early_stopping import EarlyStopping
from fnn.training.objective import check_data
from fnn.training.signals import TERMINATED, interruption, termination


@short_tracebacks
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
    resume: Literal["strict", "warn"] = "strict",
    progress: bool = True,
) -> StudyResult:
    """Train many configurations, seeds and folds as few compiled programs.

    A trial is a configuration of the space, a run one training of it: with one seed, on one fold. All runs of the same
    static choices share one executable, that trains several side by side (under `jax.vmap`) or one after another,
    whichever is faster here. What a run computes depends on its configuration, its seed, its fold and ``key``, and on
    nothing else: not on the others, their number or their order. The same seed starts from the same numbers in every
    trial, so that trials can be compared in pairs. Results of different modes and widths differ by rounding.

    A run whose loss is not finite ends alone, at the step before. Ctrl-C returns the results so far once something is
    measured, and raises KeyboardInterrupt before; a second one raises at once. SIGTERM ends the process with status
    143.

    With ``folder``, a study that was killed, or that is given more trials or seeds, resumes where it stopped and ends
    in the same bits.

    Args:
        trial: ``trial(hp) -> (net, objective, optimizer)``, or with ``augment(key, batch)`` as a fourth. It is called
            while the program is traced: the values of ``hp`` are traced scalars, except static choices; and before that
            once with numbers, to check what it returns.
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
        keep: Of how many of the best trials the parameters are kept, evicted ones last; ``"all"`` or 0.
        predictions: Whether the outputs for rows that a run did not see are returned.
        mode: ``"vmap"``, ``"loop"``, or ``"auto"``: the faster of both where trying them can pay, or ``"vmap"``.
        width: How many runs side by side. ``"auto"``: as many as are fast and fit the memory.
        mesh: Devices to spread the runs over, along its first axis.
        folder: Where to write configurations, measurements, networks and what is in the middle.
        resume: What to do where the folder's runs were trained by another program: ``"strict"`` raises, ``"warn"``
            warns and continues. Programs are compared by what they compute: a renamed function is the same, a changed
            constant is not. Other data, folds, options, spaces or trees of parameters always raise.
        progress: Whether to show remarks and a bar (on a terminal).

    Returns:
        A `StudyResult`.

    Raises:
        ValueError: when an argument is not as described, or the trial cannot be compiled.
        MisfitError: when the folder holds another study, or runs of another program; it says what differs.
        SystemExit: on SIGTERM, with status 143; with ``folder`` all is saved first.
        KeyboardInterrupt: on Ctrl-C before anything is measured.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> def trial(hp):
        ...     net = fnn.serial(fnn.dense(8), jnp.tanh, fnn.dense(1))
        ...     return net, fnn.supervised(net, optax.losses.squared_error), optax.adam(hp["learning_rate"])
        >>> x = jnp.linspace(-1, 1, 32)[:, None]
        >>> result = fnn.study(
        ...     trial, {"learning_rate": fnn.log_uniform(1e-4, 1e-1)}, trials=4, data=(x, x**2), steps=50, batch_size=8,
        ...     folds=fnn.shuffle_split(), key=jax.random.key(0), progress=False,
        ... )
        >>> result.best().trial in range(4), result.curves("validation/loss").shape
        (True, (4, 10))
    """
    check_key(key)
    if not callable(trial):
        raise TypeError(f"trial must be a function trial(hp), got a {type(trial).__name__}; pass it without calling it")
    space = as_space(space)
    count = _count_trials(space, trials)
    seeds = positive(seeds, "seeds")
    if at not in ("best", "last"):
        raise ValueError(f"at is 'best' or 'last', got {at!r}")
    _check_rules(early_stopping, halving, mesh)
    if keep != "all" and (not isinstance(keep, int) or keep < 0):
        raise ValueError(f"keep is a number of trials or 'all', got {keep!r}")
    if mode not in ("auto", "vmap", "loop") or (mode == "loop" and (mesh is not None or width not in (1, "auto"))):
        raise ValueError(f"mode is 'auto', 'vmap' or 'loop' (of width 1, on one device), got {mode!r}")
    if resume not in ("strict", "warn"):
        raise ValueError(f"resume is 'strict' or 'warn', got {resume!r}")
    if width != "auto" and (not isinstance(width, int) or width < 1):
        raise ValueError(f"width is a positive number of runs or 'auto', got {width!r}")
    draws = [*np.asarray(jax.random.key_data(key)).ravel().tolist(), zlib.crc32(b"study")]
    data = arrays(data, "data")
    validation = None if validation is None else arrays(validation, "validation")
    table, folds_name = make_table(data, validation, folds, draws)
    if predictions and table.held_out is None:
        raise ValueError("predictions are of held-out rows; give folds or validation")
    opened = None if folder is None else StudyFolder(folder)
    with nullcontext() if opened is None else closing(opened):
        configurations = _configurations(space, draws, count, opened)
        steps_of = steps if callable(steps) else lambda configuration: steps
        longest = max(positive(steps_of(one), "steps") for one in configurations)
        settings = Settings(
            trial=trial,
            space=space,
            table=table,
            key=key,
            seeds=seeds,
            folds=len(table.train),
            batch_size=batch_sizes(batch_size, table),
            steps=steps_of,
            longest=None if callable(steps) else longest,
            every=max(1, longest // 10) if evaluate_every is None else positive(evaluate_every, "evaluate_every"),
            **goal(maximize, minimize, table.held_out is not None),
            at=at,
            rule=early_stopping,
            halving=halving,
            keep=keep,
            predictions=predictions,
            mode=mode,
            width=width,
            mesh=mesh,
        )
        _check_suggestions(settings)
        value = lambda run: value_of(run, settings.monitor, settings.at)
        shown = StudyProgress(value, settings.monitor, settings.maximize, shown=progress)
        made = Study(settings, shown, opened, configurations)
        try:
            with termination(saves=opened is not None) as terminated, interruption(made.has_results) as interrupted:
                made.asked = lambda: terminated() or interrupted()
                _check(made, data, validation)
                resumed = None
                if opened is not None:
                    resumed = go_on(made, opened, identity_of(settings, folds_name, count), resume)
                _announce(made, resumed)
                whole = _conduct(made, count)
            if not whole:
                over = sum(run.status in OVER for run in made.runs.values())
                shown.say(f"asked to stop: {over} of {len(made.runs)} runs are over")
            if terminated():
                raise SystemExit(TERMINATED)
        finally:
            shown.close()
    return _result(made)


def _configurations(space: Any, draws: list[int], count: int, folder: StudyFolder | None) -> list[Configuration]:
    """Those that are known at the start: all, except of suggestions."""
    if not isinstance(space, Suggestions):
        return space.draw(draws, count)
    known = [] if folder is None else [space.read(row) for row in folder.configurations()]
    return known[:count] or space.ask(0, min(space.batch, count))


def _check_rules(early_stopping: Any, halving: Any, mesh: Any) -> None:
    kinds = [
        ("early_stopping", early_stopping, EarlyStopping, 'fnn.early_stopping(5, minimize="validation/loss")'),
        ("halving", halving, Halving, "fnn.halving(3, first=100)"),
        ("mesh", mesh, Mesh, 'jax.make_mesh((4,), ("trials",))'),
    ]
    for name, value, kind, example in kinds:
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{name} must be None or such as {example}, got {value!r}")


def _check(made: Study, data: Any, validation: Any) -> None:
    """Say what is wrong with the trial or the data before anything is compiled."""
    settings, configuration = made.settings, made.configurations[0]
    objective = check_trial(settings, configuration, data, validation).objective
    lane = made.trace(0)["start"].outputs
    for name, some in (("", data), ("validation", validation)):
        if some is not None:
            check_data(objective, lane.params, lane.state, some, settings.batch_size(configuration), name)


def _check_suggestions(settings: Settings) -> None:
    if isinstance(settings.space, Suggestions):
        settings.space.check(settings.maximize)
        if settings.halving is not None:
            raise ValueError("halving compares all configurations, and suggestions come in batches; leave one out")


def _conduct(made: Study, count: int) -> bool:
    """Train all configurations, and those that are suggested after the scores of others are known."""
    space, value = made.settings.space, lambda run: value_of(run, made.settings.monitor, made.settings.at)
    made.unasked = count - len(made.configurations)
    done = made.conduct(range(len(made.configurations)))
    while done and isinstance(space, Suggestions):
        known = len(made.configurations)
        space.tell(made.configurations, scores_of(list(made.runs.values()), known, value).tolist())
        if known == count:
            break
        made.configurations += space.ask(known, min(space.batch, count - known))
        made.unasked = count - len(made.configurations)
        if made.folder is not None:
            write_configurations(made, made.folder)
        done = made.conduct(range(known, len(made.configurations)))
    return done


def _result(made: Study) -> StudyResult:
    settings = made.settings
    found = in_order(made.store.predictions, settings.table, len(made.configurations), settings.seeds)
    result = StudyResult(
        space=settings.space,
        configurations=made.configurations,
        runs=sorted(made.runs.values(), key=lambda run: run.id),
        monitor=settings.monitor,
        maximize=settings.maximize,
        at=settings.at,
        networks=lambda configuration: settings.program(configuration).build(settings.traced(configuration)).net,
        kept={**made.store.kept},
        predictions=found if settings.predictions else None,
        remarks=made.progress.remarks,
    )
    if not np.isfinite(result.scores()).any():
        warnings.warn(f"no trial has a finite {settings.monitor}: {result.counted()}", stacklevel=4)
    return result


def _count_trials(space: Any, trials: int | None) -> int:
    if trials is None:
        if space.rows is None:
            raise ValueError("say how many configurations to draw: trials=64")
        return len(space.rows)
    if not isinstance(trials, int) or trials < 1 or (space.rows is not None and trials > len(space.rows)):
        most = "" if space.rows is None else f" and at most {len(space.rows)}, the configurations there are"
        raise ValueError(f"trials must be an int of at least 1{most}; got {trials!r}")
    return trials


def _announce(made: Study, resumed: str | None) -> None:
    """Say what is coming: how many runs, how many programs are compiled for them, and what is done already."""
    settings = made.settings
    parts = [many(len(made.configurations), "trial")]
    parts += [f"{settings.seeds} seeds"] if settings.seeds > 1 else []
    parts += [f"{settings.folds} folds"] if settings.folds > 1 else []
    ids = made.ids(range(len(made.configurations)))
    left = [run_id.trial for run_id in ids if not made.is_over(run_id)]
    labels = list(dict.fromkeys(map(made.label, left)))
    listed = "; ".join(labels[:4]) + ("; ..." if len(labels) > 4 else "")
    programs = "one program" if len(labels) == 1 else f"{len(labels)} programs ({listed})"
    made.progress.say(f"{' x '.join(parts)}: {many(len(ids), 'run')}" + (f", {programs} to compile" if labels else ""))
    if resumed:
        made.progress.say(resumed)
    if settings.halving is not None:
        longest = max(map(settings.steps, made.configurations))
        *rungs, end = settings.halving.rungs(longest, settings.every)
        if not rungs:
            raise ValueError(f"halving compares first after {settings.halving.first} steps, and there are {longest}")
        made.progress.say(f"compared after {', '.join(map(str, rungs))} of {end} steps")
