"""What stays while a study runs, made from its arguments and checked."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fnn.core.arrays import as_arrays
from fnn.core.specs import show
from fnn.data import on_device, rows
from fnn.ops.checks import check_positive_int
from fnn.studies.configurations import Configuration, Space
from fnn.studies.folds import as_folds, index_sets
from fnn.studies.halving import Halving
from fnn.studies.suggestions import Suggestions
from fnn.studies.trial import Program, Table, Trial
from fnn.training.early_stopping import EarlyStopping
from fnn.training.objective import Supervised, check_form, split_batch


@dataclass(frozen=True)
class Settings:
    """What stays while a study runs; the arguments of `fnn.study`, checked.

    Attributes:
        trial: The user's function.
        space: Where configurations come from.
        table: The data.
        key: The study's key.
        seeds: How many.
        folds: How many.
        batch_size: Rows of a batch, for the static hyperparameters of a configuration.
        steps: Steps of a configuration.
        longest: Steps of each run, where they do not depend on the configuration; None otherwise.
        every: Steps between measurements.
        monitor: Name of the measurement that is compared.
        maximize: Whether larger is better.
        at: Whether a run's value is its best measurement or its last.
        rule: Early stopping of each run.
        halving: Successive halving.
        keep: Of how many trials parameters are kept, or ``"all"``.
        predictions: Whether outputs for held-out rows are.
        mode: How networks are trained side by side.
        width: How many.
        mesh: Devices to spread them over.
    """

    trial: Callable[[dict[str, Any]], Any]
    space: Space | Suggestions
    table: Table
    key: jax.Array
    seeds: int
    folds: int
    batch_size: Callable[[Configuration], int]
    steps: Callable[[Configuration], int]
    longest: int | None
    every: int
    monitor: str
    maximize: bool
    at: Literal["best", "last"]
    rule: EarlyStopping | None
    halving: Halving | None
    keep: int | Literal["all"]
    predictions: bool
    mode: str
    width: int | Literal["auto"]
    mesh: Mesh | None

    def static(self, configuration: Configuration) -> Configuration:
        """The hyperparameters that change shapes or code."""
        return {name: configuration[name] for name in self.space.static}

    def traced(self, configuration: Configuration) -> dict[str, Any]:
        """The others, as scalars with a dtype."""
        return {name: scalar(value) for name, value in configuration.items() if name not in self.space.static}

    def program(self, configuration: Configuration) -> Program:
        """The pure functions for a configuration and all that share its static choices."""
        static = self.static(configuration)
        keeps_best = self.at == "best" and (self.keep == "all" or self.keep > 0 or self.predictions)
        size = self.batch_size(static)
        return Program(self.trial, static, size, self.monitor, 1 if self.maximize else -1, keeps_best)


def arrays(data: Any, name: str) -> Any:
    """The data as arrays of numbers."""
    if isinstance(data, list):
        raise TypeError(f"{name} is a list; pass a tuple of arrays, (x, target) or (x, target, weight)")
    check_form(data)
    return as_arrays(data, name)


def make_table(data: Any, validation: Any, folds: Any, draws: list[int]) -> tuple[Table, str]:
    """The data and its folds, on the device."""
    size = rows(data)
    if folds is not None and validation is not None:
        raise ValueError("give folds, which hold out rows of the data, or validation, which is other data; not both")
    if folds is not None:
        rule = as_folds(folds)
        sets = index_sets(rule, size, _target(data), [*draws, zlib.crc32(b"folds")])
        return Table(on_device(data), *jax.device_put(sets)), rule.name
    every, sizes = np.arange(size, dtype=np.int32)[None], np.array([size], np.int32)
    if validation is None:
        return Table(on_device(data), *jax.device_put((every, sizes))), "none"
    _check_validation(data, validation)
    joined = jax.tree.map(_join, data, validation)
    held_out = np.arange(size, size + rows(validation, "validation"), dtype=np.int32)[None]
    sets = (every, sizes, held_out, np.array([held_out.shape[1]], np.int32))
    return Table(on_device(joined), *jax.device_put(sets)), "validation data"


def _check_validation(data: Any, validation: Any) -> None:
    """Raise unless the rows of both can lie in the same arrays."""
    are_alike = jax.tree.structure(validation) == jax.tree.structure(data) and all(
        a.shape[1:] == b.shape[1:] and _kind(b.dtype) <= _kind(a.dtype)
        for a, b in zip(jax.tree.leaves(data), jax.tree.leaves(validation))
    )
    if not are_alike:
        raise ValueError(
            f"validation is {show(validation)} and data is {show(data)}; give both the same arrays, shapes of rows and "
            "kinds of numbers"
        )


def _kind(dtype: Any) -> int:
    """A kind of numbers; values of a lower one are converted to it exactly, or to the nearest number."""
    return sum(jnp.issubdtype(dtype, kind) for kind in (jnp.number, jnp.inexact, jnp.complexfloating))


def _join(a: Any, b: Any) -> Any:
    """On the host where both are there: to join them on the device, a program would be compiled."""
    xp = np if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) else jnp
    return xp.concatenate([a, b.astype(a.dtype)])


def _target(data: Any) -> Any:
    try:
        return split_batch(data)[1]
    except ValueError:  # of an objective of another kind
        return None


def batch_sizes(batch_size: Any, table: Table) -> Callable[[Configuration], int]:
    least = int(np.min(np.asarray(table.train_sizes)))

    def of(static: Configuration) -> int:
        try:
            size = batch_size(static) if callable(batch_size) else batch_size
        except KeyError as error:
            raise ValueError(f"batch_size depends on {error}, which must be a choice with static=True") from error
        size = positive(size, "batch_size")
        if size > least:
            raise ValueError(
                f"batch_size is {size}, and a fold has {least} rows to train on; choose {least} or smaller"
            )
        return size

    return of


def goal(maximize: str | None, minimize: str | None, validates: bool) -> dict[str, Any]:
    if maximize and minimize:
        raise ValueError("give maximize or minimize, not both")
    default = "validation/loss" if validates else "loss"
    return {"monitor": maximize or minimize or default, "maximize": maximize is not None}


def check_trial(settings: Settings, configuration: Configuration, data: Any, validation: Any) -> Trial:
    """Build a trial, so that what is wrong with it or with the data is said before anything is traced."""
    traced = {name: value.item() for name, value in settings.traced(configuration).items()}
    made = settings.program(configuration).build(traced)
    sizes = settings.table.held_out_sizes
    if isinstance(made.objective, Supervised):
        if not isinstance(data, tuple | dict) or len(data) not in (2, 3):
            what = f"of {len(data)}" if isinstance(data, tuple | dict) else f"of shape {np.shape(data)}"
            raise ValueError(
                f"data is a {type(data).__name__} {what}; fnn.supervised takes (x, target) or (x, target, weight)"
            )
    elif sizes is not None and np.ptp(np.asarray(sizes)):
        raise ValueError("folds of different sizes need an objective made by fnn.supervised, which can mask rows")
    if settings.rule is not None and settings.rule.monitor.startswith("validation/") and sizes is None:
        raise ValueError(f"early stopping monitors {settings.rule.monitor!r}; give folds or validation")
    return made


def positive(value: Any, name: str) -> int:
    check_positive_int(name, value)
    return int(value)


def scalar(value: Any) -> Any:
    """A number as the scalar that is traced: float32, int32 or bool."""
    value = np.asarray(value)
    kinds = {"f": np.float32, "i": np.int32, "u": np.int32, "b": np.bool_}
    return kinds.get(value.dtype.kind, value.dtype.type)(value)
