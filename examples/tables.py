"""Tables of numbers with a category beside them: cars, wines, and districts of California.

``load("auto-mpg")`` returns what is learned from and what is held out. `files` says where the published files are
looked for. Every reader checks what it reads: a damaged file is an error that names it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from files import File, damaged, fetch


class Table(NamedTuple):
    """Rows of numbers, one category each, and the quantity to predict.

    Attributes:
        numbers: ``(rows, columns)`` float32.
        category: Number of the category of each row, ``(rows,)`` int32.
        target: ``(rows, 1)`` float32.
    """

    numbers: np.ndarray
    category: np.ndarray
    target: np.ndarray


class Tables(NamedTuple):
    """One data set, split into what is learned from and what is held out.

    Attributes:
        train: Four fifths of the rows, chosen by a fixed seed.
        test: The others.
        columns: Name of each column of numbers.
        categories: Name of each category.
        target: What is predicted, with its unit.
    """

    train: Table
    test: Table
    columns: tuple[str, ...]
    categories: tuple[str, ...]
    target: str


_AUTO_MPG = File(
    "auto-mpg.data",
    "48b830e11feee5572525f8f1691ddb9d38d3d7b7063edcd8fca672c2a5e17d8d",
    ("https://archive.ics.uci.edu/ml/machine-learning-databases/auto-mpg/auto-mpg.data",),
)
_AUTO_MPG_COLUMNS = ("cylinders", "displacement", "horsepower", "weight", "acceleration", "model year")
_WINES = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality/"
_WINE = (
    File(
        "winequality-red.csv",
        "4a402cf041b025d4566d954c3b9ba8635a3a8a01e039005d97d6a710278cf05e",
        (f"{_WINES}winequality-red.csv",),
    ),
    File(
        "winequality-white.csv",
        "76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836",
        (f"{_WINES}winequality-white.csv",),
    ),
)
_WINE_COLUMNS = (
    *("fixed acidity", "volatile acidity", "citric acid", "residual sugar", "chlorides", "free sulfur dioxide"),
    *("total sulfur dioxide", "density", "pH", "sulphates", "alcohol"),
)


def load(name: str) -> Tables:
    """Load a data set, downloading it first where that is needed.

    Args:
        name: One of ``NAMES``: "auto-mpg", "wine", "california".

    Returns:
        Its rows. A row with a missing number is left out, and one that repeats another.

    Raises:
        DatasetError: when a file is neither on this machine nor reachable, or does not hold what it should.
        ValueError: when there is no data set of that name.
    """
    if name not in _LOADERS:
        raise ValueError(f"there is no data set {name!r}; there are {', '.join(NAMES)}")
    return _LOADERS[name]()


def read_auto_mpg(path: Path) -> Table:
    """Read cars: eight numbers with spaces between them, a tab, the car's name in quotes. "?" is a missing number."""
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        cells = line.split("\t")[0].split()
        if len(cells) != 8 or "\t" not in line:
            raise damaged(path, f"line {number} has {len(cells)} numbers", "8, a tab and a name")
        if "?" not in cells:
            rows.append(_numbers(path, number, cells))
    table = _array(path, rows)
    if not np.isin(table[:, 7], (1, 2, 3)).all():
        raise damaged(path, f"it has origins from {table[:, 7].min():g} to {table[:, 7].max():g}", "1, 2 or 3")
    return Table(
        table[:, 1:7].astype(np.float32), table[:, 7].astype(np.int32) - 1, table[:, :1].astype(np.float32)
    )  # fmt: skip


def read_wine(path: Path) -> np.ndarray:
    """Read wines, eleven measurements and the quality in each row, ``(wines, 12)`` float64."""
    header, *lines = _lines(path) or [""]
    names = tuple(cell.strip('"') for cell in header.split(";"))
    if names != (*_WINE_COLUMNS, "quality"):
        raise damaged(path, f"its first line is {header[:80]!r}", "the names of 11 measurements and quality")
    rows = []
    for number, line in enumerate(lines, start=2):
        cells = line.split(";")
        if len(cells) != 12:
            raise damaged(path, f"line {number} has {len(cells)} cells", "12 with semicolons between them")
        rows.append(_numbers(path, number, cells))
    return _array(path, rows)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise damaged(path, f"it cannot be read ({error})", "a text in ASCII") from error


def _numbers(path: Path, number: int, cells: Sequence[str]) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError as error:
        raise damaged(path, f"line {number} cannot be read ({error})", "numbers") from error


def _array(path: Path, rows: Sequence[Sequence[float]]) -> np.ndarray:
    table = np.array(rows, np.float64)
    if not len(table) or not np.isfinite(table).all():
        raise damaged(path, f"it has {len(table)} rows, or numbers that are not finite", "at least one, all finite")
    return table


def _hold_out(table: Table) -> tuple[Table, Table]:
    from sklearn.model_selection import train_test_split

    parts: Any = train_test_split(*table, test_size=0.2, random_state=0)
    return Table(*parts[::2]), Table(*parts[1::2])


def _auto_mpg() -> Tables:
    """Fuel consumption of 392 cars of 1970 to 1982; six more have no horsepower and are left out."""
    (path,) = fetch("auto-mpg", [_AUTO_MPG])
    train, test = _hold_out(read_auto_mpg(path))
    return Tables(train, test, _AUTO_MPG_COLUMNS, ("USA", "Europe", "Japan"), "miles per gallon")


def _wine() -> Tables:
    """Quality, 0 to 10, of 5320 Portuguese wines, red and white.

    The files have 6497 rows. Many are there several times; both in training and test rows, they would be known
    already.
    """
    colours = [read_wine(path) for path in fetch("wine-quality", _WINE)]
    category = np.repeat(np.arange(len(colours), dtype=np.int32), [len(rows) for rows in colours])
    rows = np.concatenate(colours)
    _, first = np.unique(np.column_stack([category, rows[:, :-1]]), axis=0, return_index=True)
    first.sort()
    rows, category = rows[first].astype(np.float32), category[first]
    train, test = _hold_out(Table(rows[:, :-1], category, rows[:, -1:]))
    return Tables(train, test, _WINE_COLUMNS, ("red", "white"), "quality")


def _california() -> Tables:
    """Median house value in 20640 districts of California; they have no category, that is, one for all."""
    data = datasets.load("california")
    of = lambda x, y: Table(x, np.zeros(len(x), np.int32), y)
    train, test = of(data.x_train, data.y_train), of(data.x_test, data.y_test)
    return Tables(train, test, data.columns, ("all",), "house value in 100 000 dollars")


_LOADERS: dict[str, Callable[[], Tables]] = {"auto-mpg": _auto_mpg, "wine": _wine, "california": _california}
NAMES = tuple(_LOADERS)
