"""Configurations that Optuna suggests, a batch at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fnn.studies.space import Configuration, Dimension, dimensions_of, show

NUMBER = "fnn trial"  # the attribute of an Optuna trial that holds its number here


@dataclass(frozen=True)
class Suggestions:
    """A space whose configurations depend on the scores so far; made by `from_optuna`.

    Attributes:
        study: The Optuna study.
        dimensions: By name.
        batch: How many configurations are trained side by side before their scores are told.
    """

    study: Any
    dimensions: Mapping[str, Dimension]
    batch: int

    rule = "optuna"
    rows = None

    @property
    def static(self) -> tuple[str, ...]:
        """Names of the hyperparameters that change shapes or code."""
        return tuple(name for name, dimension in self.dimensions.items() if dimension.static)

    def check(self, maximize: bool) -> None:
        """Whether the Optuna study looks for what is wanted here."""
        wanted = "maximize" if maximize else "minimize"
        if self.study.direction.name.lower() != wanted:
            raise ValueError(
                f"the Optuna study would {self.study.direction.name.lower()} what this study would {wanted}; "
                f"make it by optuna.create_study(direction={wanted!r})"
            )

    def ask(self, first: int, count: int) -> list[Configuration]:
        """The next configurations, whose numbers begin at ``first``."""
        found = []
        for number in range(first, first + count):
            trial = self.study.ask({name: _distribution(name, one) for name, one in self.dimensions.items()})
            trial.set_user_attr(NUMBER, number)
            found.append(self.read(trial.params))
        return found

    def read(self, params: Mapping[str, Any]) -> Configuration:
        """A configuration from what a file or Optuna holds: choices that are no numbers are there by name."""
        return {name: _value(dimension, params[name]) for name, dimension in self.dimensions.items()}

    def tell(self, configurations: Sequence[Configuration], scores: Sequence[float]) -> None:
        """The scores of all configurations so far; NaN is a failure. What Optuna knows already it is not told again."""
        from optuna.trial import TrialState, create_trial

        known = {trial.user_attrs.get(NUMBER): trial for trial in self.study.get_trials(deepcopy=False)}
        for number, (configuration, score) in enumerate(zip(configurations, scores)):
            state = TrialState.COMPLETE if np.isfinite(score) else TrialState.FAIL
            value = float(score) if np.isfinite(score) else None
            if number not in known:
                params = {name: _name(self.dimensions[name], value) for name, value in configuration.items()}
                distributions = {name: _distribution(name, one) for name, one in self.dimensions.items()}
                attributes = {NUMBER: number}
                self.study.add_trial(
                    create_trial(
                        state=state, value=value, params=params, distributions=distributions, user_attrs=attributes
                    )
                )
            elif not known[number].state.is_finished():
                self.study.tell(known[number].number, value, state)


def from_optuna(study: Any, space: Mapping[str, Dimension], *, batch: int = 16) -> Suggestions:
    """Let Optuna suggest configurations: any of its samplers, with its storage and its pictures.

    A batch of configurations is asked for, trained side by side, and its scores are told; a trial without a finite
    score is told as failed.

    Args:
        study: From ``optuna.create_study``, with the direction of the `fnn.study` it is for.
        space: Dimensions by name: all but `normal`, which Optuna does not support.
        batch: Configurations at a time.

    Returns:
        A space for `fnn.study`, which then needs ``trials``.

    Raises:
        ValueError: when batch is below 1, the space is empty, or a value of it is no dimension that Optuna supports.

    Example:
        >>> import fnn, optuna
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> space = {"learning_rate": fnn.log_uniform(1e-4, 1e-1), "width": fnn.choice([16, 64], static=True)}
        >>> suggestions = fnn.from_optuna(optuna.create_study(), space, batch=8)
        >>> sorted(suggestions.ask(0, 1)[0])
        ['learning_rate', 'width']
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    dimensions = dimensions_of(space)
    for name, dimension in dimensions.items():
        _distribution(name, dimension)
    return Suggestions(study, dimensions, batch)


def _distribution(name: str, dimension: Dimension) -> Any:
    try:
        from optuna import distributions
    except ImportError as error:
        raise ImportError("from_optuna needs Optuna: python -m pip install optuna") from error
    settings = dimension.settings
    if dimension.kind in ("uniform", "log_uniform"):
        is_log = dimension.kind == "log_uniform"
        return distributions.FloatDistribution(settings["low"], settings["high"], log=is_log)
    if dimension.kind == "integer":
        return distributions.IntDistribution(settings["low"], settings["high"])
    if dimension.kind == "choice":
        return distributions.CategoricalDistribution([_name(dimension, value) for value in settings["values"]])
    raise ValueError(f"{name} is {dimension.kind}, which Optuna does not support; use fnn.uniform")


def _name(dimension: Dimension, value: Any) -> Any:
    """A value as Optuna and JSON hold it."""
    return value if dimension.kind != "choice" or isinstance(value, bool | int | float | str) else show(value)


def _value(dimension: Dimension, name: Any) -> Any:
    if dimension.kind != "choice":
        return name
    return next(value for value in dimension.settings["values"] if _name(dimension, value) == name)
