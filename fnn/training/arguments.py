"""What `fit` was given, checked before anything is traced."""

import functools
import inspect
from collections.abc import Callable
from numbers import Number
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import optax

from fnn.checkpoint.folder import Checkpoints
from fnn.core.layer import Layer
from fnn.training.early_stopping import EarlyStopping
from fnn.training.optimizer import check_optimizer
from fnn.training.step import TrainState

POSITIONAL = ("objective", "optimizer", "run", "data")
CALL = "fit(objective, optimizer, run, (x, target))"

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


def explain_arguments(function: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
    """Decorate `fit`: where its positional arguments are not those that it takes, the error says what to write."""

    @functools.wraps(function)
    def call(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        named: dict[str, Any] = {name: kwargs[name] for name in POSITIONAL if name in kwargs}
        given = named | dict(zip(POSITIONAL, args))
        if "objective" in given:
            _check_objective(given["objective"])
        if "optimizer" in given:
            _check_optimizer(given["optimizer"])
        if "run" in given:
            _check_run(given["run"])
        if "data" not in given:
            raise TypeError(f"data is missing: {CALL}")
        if len(args) > len(POSITIONAL):
            raise TypeError(f"data is one argument, a tuple: {CALL}")
        return function(*args, **kwargs)

    return call


def check_function(name: str, function: Any, *arguments: str) -> None:
    """Raise where something is neither None nor a function of such arguments."""
    if function is None:
        return
    wanted = f"{name} must be a function of ({', '.join(arguments)})"
    if not callable(function):
        raise TypeError(f"{wanted}, got {function!r}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # it has no signature that Python knows
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        given = ", ".join(signature.parameters)
        raise TypeError(
            f"{wanted}, got {getattr(function, '__name__', type(function).__name__)}({given}); if that returns the "
            "function, call it first"
        ) from None


def _check_objective(objective: Any) -> None:
    if isinstance(objective, Layer):
        raise TypeError("objective is a network; pass fnn.supervised(net, loss), which says what to minimize")
    if not callable(objective):
        raise TypeError(
            "objective must be a function objective(params, state, batch, *, key, train), such as fnn.supervised(net, "
            f"loss), got {_kind(objective)}"
        )


def _check_optimizer(optimizer: Any) -> None:
    if isinstance(optimizer, TrainState):
        raise TypeError(f"optimizer is a TrainState: {CALL} takes the optimizer before the run")
    check_optimizer(optimizer)


def _check_run(run: Any) -> None:
    if not isinstance(run, TrainState):
        got = "an optimizer" if isinstance(run, optax.GradientTransformation) else _kind(run)
        raise TypeError(f"run must be the TrainState that fnn.train_init returned, got {got}")


def check_logs(logs: Any) -> None:
    """Raise where one is no function."""
    for log in (logs,) if callable(logs) or isinstance(logs, str | Path) else logs:
        if not callable(log):
            raise TypeError(f"log must be a function log(step, values), such as fnn.csv_log('run.csv'), got {log!r}")


def check_rules(early_stopping: Any, checkpoints: Any) -> None:
    """Raise where they were not made by `early_stopping` and `Checkpoints`."""
    if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
        raise TypeError(
            'early_stopping must be a rule, such as fnn.early_stopping(3, minimize="validation/loss"), '
            f"got {early_stopping!r}"
        )
    if checkpoints is not None and not isinstance(checkpoints, Checkpoints):
        folder = repr(str(checkpoints)) if isinstance(checkpoints, str | Path) else "folder"
        raise TypeError(f"checkpoints must be fnn.Checkpoints({folder}), got {_kind(checkpoints)}")


def check_validation(validation: Any, epochs: int) -> None:
    """Raise where it is no data, or cannot be passed over after each epoch."""
    if isinstance(validation, Number):
        raise TypeError(
            f"validation must be data, (x, target) or an iterable of batches, got {validation!r}; split the arrays "
            "first: fit(objective, optimizer, run, (x[:n], y[:n]), validation=(x[n:], y[n:]))"
        )
    if epochs > 1 and hasattr(validation, "__iter__") and iter(validation) is validation:
        raise ValueError(
            "validation is an iterator, which one epoch uses up; pass a list, or an iterable that starts again"
        )


def _kind(value: Any) -> str:
    """What a value is, in few words."""
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    return repr(value) if isinstance(value, str | Number) else type(value).__name__
