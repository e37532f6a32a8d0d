"""Spaces of hyperparameters, and the configurations that are drawn from them."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Configuration = dict[str, Any]


@dataclass(frozen=True)
class Dimension:
    """One hyperparameter: the values it may take, as a function of a number between 0 and 1.

    Attributes:
        kind: Name of the function that made it, such as ``"log_uniform"``.
        settings: Its arguments by name.
        at: ``at(u)``, the value at ``0 <= u < 1``; a uniform ``u`` gives a value of the distribution.
        static: Whether values may change shapes or code: there is one executable for each.
    """

    kind: str
    settings: Mapping[str, Any]
    at: Callable[[float], Any] = field(repr=False, compare=False)
    static: bool = False

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}={show(value)}' for name, value in self.settings.items())})"


def uniform(low: float, high: float) -> Dimension:
    """A number between two bounds.

    Args:
        low: The smallest value.
        high: The bound above.

    Returns:
        A dimension for the ``space`` of `fnn.study`.

    Raises:
        ValueError: when low is not below high, or one of them is not finite.

    Example:
        >>> import fnn
        >>> fnn.uniform(0.0, 0.5).at(0.5)
        0.25
    """
    _check_bounds("uniform", low, high)
    return Dimension("uniform", {"low": low, "high": high}, lambda u: low + u * (high - low))


def log_uniform(low: float, high: float) -> Dimension:
    """A positive number whose logarithm is uniform: for learning rates and penalties.

    Args:
        low: The smallest value, positive.
        high: The bound above.

    Returns:
        A dimension for the ``space`` of `fnn.study`.

    Raises:
        ValueError: when low is not positive or not below high.

    Example:
        >>> import fnn
        >>> round(fnn.log_uniform(1e-4, 1e-2).at(0.5), 6)
        0.001
    """
    _check_bounds("log_uniform", low, high)
    if low <= 0:
        raise ValueError(f"log_uniform needs positive bounds, got low={low}; use fnn.uniform where 0 is allowed")
    start, end = math.log(low), math.log(high)
    return Dimension("log_uniform", {"low": low, "high": high}, lambda u: math.exp(start + u * (end - start)))


def normal(mean: float, std: float) -> Dimension:
    """A number of a normal distribution.

    Args:
        mean: Its mean.
        std: Its standard deviation, positive.

    Returns:
        A dimension for the ``space`` of `fnn.study`.

    Raises:
        ValueError: when std is not positive.

    Example:
        >>> import fnn
        >>> float(fnn.normal(2.0, 0.1).at(0.5))
        2.0
    """
    if not (std > 0 and math.isfinite(std) and math.isfinite(mean)):
        raise ValueError(f"normal needs a finite mean and a positive std, got mean={mean}, std={std}")
    tiny = 2.0**-53  # u is at least 0, where the quantile is infinite

    def at(u: float) -> float:
        from scipy.special import ndtri  # SciPy comes with JAX, and its import would delay that of fnn

        return mean + std * float(ndtri(max(u, tiny)))

    return Dimension("normal", {"mean": mean, "std": std}, at)


def integer(low: int, high: int) -> Dimension:
    """A whole number, both bounds included.

    It is traced, so that all values share one executable; for a width or a depth take `fnn.choice` with
    ``static=True``.

    Args:
        low: The smallest value.
        high: The largest value.

    Returns:
        A dimension for the ``space`` of `fnn.study`.

    Raises:
        ValueError: when a bound is no int, or low is above high.

    Example:
        >>> import fnn
        >>> [fnn.integer(1, 3).at(u) for u in (0.0, 0.5, 0.99)]
        [1, 2, 3]
    """
    if not all(isinstance(bound, int | np.integer) for bound in (low, high)) or low > high:
        raise ValueError(f"integer needs two ints, the smaller first, got low={low!r}, high={high!r}")
    count = int(high) - int(low) + 1
    return Dimension("integer", {"low": low, "high": high}, lambda u: int(low) + min(int(u * count), count - 1))


def choice(values: Iterable[Any], *, static: bool = False) -> Dimension:
    """One of several values.

    Args:
        values: What to choose from. Numbers are traced, so that all of them share one executable, unless ``static``.
        static: Whether they change shapes or code (a width, an activation, an optimizer): then trials of the same
            choice share one executable, and anything may be chosen.

    Returns:
        A dimension for the ``space`` of `fnn.study`.

    Raises:
        TypeError: when ``values`` is a single value or a text.
        ValueError: when there are no values, or some are no numbers and ``static`` is False.

    Example:
        >>> import fnn
        >>> fnn.choice([16, 64], static=True).at(0.7)
        64
    """
    values = tuple(as_values("choice", values))
    if not values:
        raise ValueError("choice has nothing to choose from; give at least one value")
    if not static and (odd := [value for value in values if not is_number(value)]):
        raise ValueError(f"{show(odd[0])} is no number and cannot be traced; write choice(..., static=True)")
    at = lambda u: values[min(int(u * len(values)), len(values) - 1)]
    return Dimension("choice", {"values": values, "static": static}, at, static)


def dimensions_of(space: Mapping[str, Any]) -> dict[str, Dimension]:
    """A space that is written as a dict, checked."""
    check_names(space)
    for name, value in space.items():
        if not isinstance(value, Dimension):
            values = show(list(value) if isinstance(value, list | tuple) else [value])
            raise ValueError(
                f"space[{name!r}] is {show(value)}, wanted a dimension such as fnn.uniform(0, 1) or "
                f"fnn.choice({values}); values that stay the same belong in the trial"
            )
    return dict(space)


def check_names(space: Mapping[str, Any]) -> None:
    """Raise where there is no hyperparameter."""
    if not space:
        raise ValueError("the space is empty; give it a hyperparameter, or leave it out to train one configuration")


def as_values(name: str, values: Any) -> list[Any]:
    """Values to choose from as a list; a text is one value, and not its letters."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} is {show(values)}, wanted a list of values: [{show(values)}]")
    return list(values)


def is_number(value: Any) -> bool:
    """Whether a value can be a traced scalar."""
    return isinstance(value, bool | int | float | np.number | np.bool_) or (
        hasattr(value, "dtype") and getattr(value, "shape", None) == () and np.issubdtype(value.dtype, np.number)
    )


def show(value: Any) -> str:
    """A value as a person writes it: functions by their names."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(show, value))}]"
    return getattr(value, "__name__", None) or (f"{value:.4g}" if isinstance(value, float) else repr(value))


def _check_bounds(kind: str, low: float, high: float) -> None:
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{kind} needs finite bounds, the smaller first, got low={low}, high={high}")
