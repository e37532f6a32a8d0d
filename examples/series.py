"""Time series for the forecasting example: one number for each month or hour."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from files import File, damaged, fetch


class Series(NamedTuple):
    """A quantity, measured at equal distances.

    Attributes:
        values: What was measured ``(time,)``, float64; none is missing.
        times: When, ``(time,)``, ``datetime64`` of months or hours.
        season: After how many steps the seasons come back: 12 months of a year, 24 hours of a day.
        quantity: What it is, with its unit.
    """

    values: np.ndarray
    times: np.ndarray
    season: int
    quantity: str


class _Source(NamedTuple):
    """Where a series comes from, and which of the columns it is."""

    folder: str
    file: File
    columns: tuple[int, int]  # of the time and of the value
    header: str  # how the first line begins, without quotes
    unit: str  # of time, as NumPy calls it
    season: int
    quantity: str


# Addresses name a revision: the newest file of a series that goes on has another checksum each month.
_GITHUB = "https://raw.githubusercontent.com/"
_SOURCES = {
    # Rows have a field more than the header names: uncertainty. Month and average are where both agree.
    "co2": _Source(
        "co2-mauna-loa",
        File(
            "co2-mm-mlo.csv",
            "46c07e9423aa6ca0723bf6e892ba0ade1488ca6f7d3f14aa0cddd10272fbe59b",
            (_GITHUB + "datasets/co2-ppm/146bdc608e1078d3e28e7a5d4755fdc316ffed2d/data/co2-mm-mlo.csv",),
        ),
        (0, 2), "Date,Decimal Date,Average", "M", 12, "CO2 at Mauna Loa in ppm",
    ),
    "etth1": _Source(
        "ett",
        File(
            "ETTh1.csv",
            "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
            (_GITHUB + "zhouhaoyi/ETDataset/1d16c8f4f943005d613b5bc962e9eeb06058cf07/ETT-small/ETTh1.csv",),
        ),
        (0, 7), "date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT", "h", 24, "oil temperature of a transformer in °C",
    ),
    "airline": _Source(
        "airline-passengers",
        File(
            "airline-passengers.csv",
            "8cb51be753a718d9be5d76d7e238cc224792754676adc21faa59e954b0201621",
            (_GITHUB + "jbrownlee/Datasets/d20fcb6402ae34e653d4513b00f39257bb37ed7f/airline-passengers.csv",),
        ),
        (0, 1), "Month,Passengers", "M", 12, "airline passengers in thousands",
    ),
}  # fmt: skip
NAMES = tuple(_SOURCES)
_MISSING = -99.99  # what NOAA writes for a month without measurements


def load(name: str) -> Series:
    """Load a time series, downloading it first where that is needed.

    Args:
        name: ``"co2"``: monthly means at Mauna Loa since 1958; ``"etth1"``: the oil temperature of an electricity
            transformer, hour by hour for two years; ``"airline"``: the passengers of 144 months from 1949 on.

    Raises:
        DatasetError: when the file is neither on this machine nor reachable, or does not hold what it should.
    """
    source = _SOURCES[name]
    (path,) = fetch(source.folder, [source.file])
    times, values = read_columns(path, source.columns, source.header, source.unit)
    return Series(values, times, source.season, source.quantity)


def read_columns(path: Path, columns: tuple[int, int], header: str, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the times and the values of a CSV file, one row for each step of time."""
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="ascii").splitlines()) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise damaged(path, f"it cannot be read as text ({error})", "a CSV file") from error
    found = ",".join(rows[0]) if rows else "nothing"
    if not found.startswith(header):
        raise damaged(path, f"it begins with {found[:60]!r}", repr(header))
    times = _column(path, rows, columns[0], lambda text: np.datetime64(text).astype(f"datetime64[{unit}]"))
    values = _column(path, rows, columns[1], np.float64)
    if len(times) < 2:
        raise damaged(path, f"it holds {len(times)} rows", "at least two")
    if (gaps := np.flatnonzero(np.diff(times) != np.timedelta64(1, unit))).size:
        place = gaps[0]
        raise damaged(path, f"after {times[place]} comes {times[place + 1]}", "one row for each step of time")
    if (missing := np.flatnonzero(~np.isfinite(values) | (values == _MISSING))).size:
        raise damaged(path, f"the value of {times[missing[0]]} is missing", "a number")
    return times, values


def _column(path: Path, rows: list[list[str]], column: int, read: Callable[[str], np.generic]) -> np.ndarray:
    values = []
    for number, row in enumerate(rows[1:], start=2):
        try:
            values.append(read(row[column]))
        except (IndexError, ValueError) as error:
            raise damaged(path, f"row {number} cannot be read ({error})", "a time and a number") from error
    return np.array(values)


class Windows(NamedTuple):
    """Windows of the past and what came after, as differences from the last value seen.

    Attributes:
        x: ``(windows, window, 1)``.
        target: ``(windows, horizon)``.
        last: The last values, ``(windows, 1)``, in the units of the series or its logarithm.
    """

    x: np.ndarray
    target: np.ndarray
    last: np.ndarray

    def __getitem__(self, rows: Any) -> "Windows":  # type: ignore[override]
        return Windows(self.x[rows], self.target[rows], self.last[rows])


def windows(values: np.ndarray, window: int, horizon: int) -> Windows:
    """Cut a window, and the horizon after it, at each step of a series."""
    if len(values) < window + horizon:
        raise ValueError(f"{len(values)} values are fewer than a window of {window} and a horizon of {horizon}")
    pieces = np.lib.stride_tricks.sliding_window_view(values, window + horizon)
    last = pieces[:, window - 1 : window]
    moved = pieces - last
    return Windows(moved[:, :window, None], moved[:, window:], last)


def seasonal_naive(x: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """The values of the last season, moved by the change over the season before the last value."""
    steps = np.arange(horizon) % season - season
    drift = x[:, -1:, 0] - x[:, -1 - season : -season, 0]
    return x[:, steps, 0] + drift * (1 + np.arange(horizon) // season)
