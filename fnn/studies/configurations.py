"""Which configurations of a space a study tries."""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from fnn.studies.space import Configuration, Dimension, as_values, check_names, choice, dimensions_of, is_number
from fnn.studies.suggestions import Suggestions


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
        return [{name: self.dimensions[name].at(float(u)) for name, u in zip(names, point)} for point in points]


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
    return Space(dimensions_of(space), "sobol")


def grid(space: Mapping[str, Any]) -> Space:
    """Take every combination of values, the last name varying fastest.

    Args:
        space: By name a list of values, or a `choice`. Values that are no numbers are static.

    Returns:
        A space for `fnn.study`.

    Raises:
        TypeError: when values are a single value or a text.
        ValueError: when there is no name, or a name has no values.

    Example:
        >>> import fnn
        >>> space = fnn.grid({"learning_rate": [1e-3, 1e-2], "width": fnn.choice([16, 64], static=True)})
        >>> [tuple(row.values()) for row in space.rows]
        [(0.001, 16), (0.001, 64), (0.01, 16), (0.01, 64)]
    """
    dimensions = {name: _as_choice(name, values) for name, values in space.items()}
    check_names(dimensions)
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
        >>> space = fnn.table([{"rate": 0.1, "width": 8}, {"rate": 0.5, "width": 16}], static=["width"])
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


def as_space(space: Any) -> Space | Suggestions:
    """What a caller may write as a space, as a `Space`."""
    if space is None:
        return Space({}, "table", ({},))
    if isinstance(space, Space | Suggestions):
        return space
    if isinstance(space, Mapping):
        return Space(dimensions_of(space))
    if isinstance(space, Iterable):
        return table(space)
    raise TypeError(f"space is a dict of dimensions or a list of configurations, got {type(space).__name__}")


def _as_choice(name: str, values: Any) -> Dimension:
    if isinstance(values, Dimension):
        if values.kind != "choice":
            raise ValueError(f"{name} of a grid is {values}, which has no list of values; write them out, or a choice")
        return values
    values = as_values(f"{name} of the grid", values)
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
