"""Figures of several panels."""

import math
from typing import Any

from matplotlib.figure import Figure


def panels(count: int, *, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Any]]:
    """A figure with so many panels, of a size in inches each, filled row by row."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]
