"""Figures of one or several panels."""

import math
from typing import Any

from matplotlib.figure import Figure

DPI = 150  # small text stays sharp in files and in notebooks


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def panels(count: int, *, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Any]]:
    """A figure with so many panels, of a size in inches each, filled row by row."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = new_figure(size[0] * columns, size[1] * rows)
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]
