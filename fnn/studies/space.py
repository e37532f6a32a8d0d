"""Spaces of hyperparameters, and the configurations that are drawn from them."""

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
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
        ValueError: when there are no values, or some are no numbers and ``static`` is False.

    Example:
        >>> import fnn
        >>> fnn.choice([16, 64], static=True).at(0.7)
        64
    """
    values = tuple(values)
    if not values:
        raise ValueError("choice has nothing to choose from; give at least one value")
    if not static and (odd := [value for value in values if not is_number(value)]):
        raise ValueError(f"{show(odd[0])} is no number, which can not be traced; write choice(..., static=True)")
    at = lambda u: values[min(int(u * len(values)), len(values) - 1)]
    return Dimension("choice", {"values": values, "static": static}, at, static)


@dataclass(frozen=True)
class Space:
    """Configurations to come: how many there are, and which is which; made by `sobol`, `grid` and `table`.

    Attributes:
        dimensions: By name.
        rule: What decides the points: ``"random"``, ``"sobol"``, ``"grid"`` or ``"table"``.
        rows: The configurations, where they are known from the start.
    """

    dimensions: Mapping[str, Dimension]
    rule: str = "random"
    rows: tuple[Configuration, ...] | None = None

    @property
    def static(self) -> tuple[str, ...]:
        """Names of the hyperparameters that change shapes or code."""
        return tuple(name for name, dimension in self.dimensions.items() if dimension.static)

    def draw(self, seed: Sequence[int], count: int) -> list[Configuration]:
        """The first ``count`` configurations: each depends on the seed and its own number alone."""
        if self.rows is not None:
            return list(self.rows[:count])
        names = list(self.dimensions)
        points = _sobol(seed, names, count) if self.rule == "sobol" else _random(seed, names, count)
        return [{name: self.dimensions[name].at(u) for name, u in zip(names, point)} for point in points]


def sobol(space: Mapping[str, Dimension]) -> Space:
    """Draw configurations from a scrambled Sobol sequence: they fill the space more evenly than random ones.

    Args:
        space: Dimensions by name.

    Returns:
        A space for `fnn.study`; powers of two are good numbers of trials.

    Raises:
        ValueError: when there is no dimension.

    Example:
        >>> import fnn
        >>> space = fnn.sobol({"learning_rate": fnn.log_uniform(1e-4, 1e-1), "rate": fnn.uniform(0, 0.5)})
        >>> len(space.draw([0], 8))
        8

    References:
        Bergstra and Bengio, Random search for hyper-parameter optimization, JMLR 13, 2012.
    """
    return Space(_dimensions(space), "sobol")


def grid(space: Mapping[str, Any]) -> Space:
    """Take every combination of values, the last name varying fastest.

    Args:
        space: By name a list of values, or a `choice`. Values that are no numbers are static.

    Returns:
        A space for `fnn.study`.

    Raises:
        ValueError: when there is no name, or a name has no values.

    Example:
        >>> import fnn
        >>> space = fnn.grid({"learning_rate": [1e-3, 1e-2], "width": fnn.choice([16, 64], static=True)})
        >>> [tuple(row.values()) for row in space.rows]
        [(0.001, 16), (0.001, 64), (0.01, 16), (0.01, 64)]
    """
    dimensions = {name: _as_choice(name, values) for name, values in space.items()}
    _check_names(dimensions)
    columns = [dimension.settings["values"] for dimension in dimensions.values()]
    rows = tuple(dict(zip(dimensions, values)) for values in product(*columns))
    return Space(dimensions, "grid", rows)


def table(rows: Iterable[Mapping[str, Any]], *, static: Sequence[str] = ()) -> Space:
    """Take configurations as they are written down.

    Args:
        rows: One mapping of names to values for each; all have the same names.
        static: Names of hyperparameters that change shapes or code. Those whose values are no numbers are so anyway.

    Returns:
        A space for `fnn.study`.

    Raises:
        ValueError: when there is no row, the rows differ in their names, or a static name is in none.

    Example:
        >>> import fnn
        >>> space = fnn.table([{"learning_rate": 0.1, "width": 8}, {"learning_rate": 0.01, "width": 16}], static=["width"])
        >>> space.static
        ('width',)
    """
    found = [dict(row) for row in rows]
    if not found:
        raise ValueError("the table has no row; give at least one configuration")
    for number, row in enumerate(found):
        if set(row) != set(found[0]):
            raise ValueError(f"row {number} of the table has names {sorted(row)}, row 0 has {sorted(found[0])}")
    if missing := set(static) - set(found[0]):
        raise ValueError(f"static names {', '.join(sorted(missing))}, which are not in the table: {sorted(found[0])}")
    dimensions = {}
    for name in found[0]:
        values = [row[name] for row in found]
        distinct = [value for number, value in enumerate(values) if not _has(values[:number], value)]
        dimensions[name] = choice(distinct, static=name in static or not all(map(is_number, distinct)))
    return Space(dimensions, "table", tuple(found))


def as_space(space: Any) -> Space:
    """What a caller may write as a space, as a `Space`."""
    if space is None:
        return Space({}, "table", ({},))
    if isinstance(space, Space):
        return space
    if isinstance(space, Mapping):
        return Space(_dimensions(space))
    if isinstance(space, Iterable):
        return table(space)
    raise TypeError(f"space is a dict of dimensions or a list of configurations, got {type(space).__name__}")


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


def _dimensions(space: Mapping[str, Any]) -> dict[str, Dimension]:
    _check_names(space)
    for name, value in space.items():
        if not isinstance(value, Dimension):
            raise ValueError(
                f"space[{name!r}] is {show(value)}, wanted a dimension such as fnn.uniform(0, 1) or "
                f"fnn.choice([{show(value)}]); values that stay the same belong into the trial"
            )
    return dict(space)


def _check_names(space: Mapping[str, Any]) -> None:
    if not space:
        raise ValueError("the space is empty; give it a hyperparameter, or leave it out to train one configuration")


def _check_bounds(kind: str, low: float, high: float) -> None:
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{kind} needs finite bounds, the smaller first, got low={low}, high={high}")


def _as_choice(name: str, values: Any) -> Dimension:
    if isinstance(values, Dimension):
        if values.kind != "choice":
            raise ValueError(f"{name} of a grid is {values}, which has no list of values; write them out, or a choice")
        return values
    values = list(values)
    if not values:
        raise ValueError(f"{name} of the grid has no values; give at least one")
    return choice(values, static=not all(map(is_number, values)))


def _has(values: list[Any], value: Any) -> bool:
    return any(other is value or (type(other) is type(value) and other == value) for other in values)


def _random(seed: Sequence[int], names: list[str], count: int) -> np.ndarray:
    """One number for each trial and name, whatever other names there are."""
    points = np.empty((count, len(names)))
    for column, name in enumerate(names):
        points[:, column] = np.random.default_rng([*seed, zlib.crc32(name.encode())]).random(count)
    return points


def _sobol(seed: Sequence[int], names: list[str], count: int) -> np.ndarray:
    from scipy.stats import qmc

    sampler = qmc.Sobol(len(names), scramble=True, rng=np.random.default_rng(seed))
    return sampler.random_base2(max(0, math.ceil(math.log2(max(count, 1)))))[:count]
