"""Tables are read strictly, and a row is never in training and test rows."""

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

files = importlib.import_module("files")
tables = importlib.import_module("tables")

CARS = """\
18.0   8   307.0      130.0      3504.      12.0   70  1\t"chevrolet chevelle malibu"
25.0   4   98.00      ?          2046.      19.0   71  1\t"ford pinto"
24.0   4   113.0      95.00      2372.      15.0   70  3\t"toyota corona mark ii"
26.0   4   97.00      46.00      1835.      20.5   70  2\t"volkswagen 1131 deluxe sedan"
"""
HEADER = ";".join(f'"{name}"' for name in (*tables._WINE_COLUMNS, "quality"))
WINES = (
    f"{HEADER}\n7.4;0.7;0;1.9;0.076;11;34;0.9978;3.51;0.56;9.4;5\n7;0.27;0.36;20.7;0.045;45;170;1.001;3;0.45;8.8;6\n"
)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


def test_cars_are_read_and_one_without_horsepower_is_left_out(tmp_path: Path) -> None:
    table = tables.read_auto_mpg(write(tmp_path, "auto-mpg.data", CARS))
    np.testing.assert_array_equal(table.target, np.array([[18], [24], [26]], np.float32))
    np.testing.assert_array_equal(table.category, [0, 2, 1])
    np.testing.assert_array_equal(table.numbers[0], np.array([8, 307, 130, 3504, 12, 70], np.float32))
    assert [part.dtype for part in table] == [np.float32, np.int32, np.float32]


def test_wines_are_read(tmp_path: Path) -> None:
    rows = tables.read_wine(write(tmp_path, "winequality-red.csv", WINES))
    assert rows.shape == (2, 12)
    np.testing.assert_array_equal(rows[:, [0, 3, 11]], [[7.4, 1.9, 5], [7, 20.7, 6]])


@pytest.mark.parametrize(
    ("reader", "content", "complaint"),
    [
        (tables.read_auto_mpg, "", "0 rows"),
        (tables.read_auto_mpg, CARS[:-70], "line 4 has . numbers, wanted 8, a tab and a name"),
        (tables.read_auto_mpg, CARS.replace("\t", " "), "line 1 has .* numbers"),
        (tables.read_auto_mpg, CARS.replace("2372.", "heavy"), "line 3 cannot be read .*heavy"),
        (tables.read_auto_mpg, CARS.replace("2372.", "nan"), "not finite"),
        (tables.read_auto_mpg, CARS.replace("70  2", "70  4"), "origins from 1 to 4, wanted 1, 2 or 3"),
        (tables.read_auto_mpg, b"\xff\xfe", "text in ASCII"),
        (tables.read_wine, "", "its first line is ''"),
        (tables.read_wine, "<html>", "its first line is '<html>', wanted the names"),
        (tables.read_wine, HEADER, "0 rows"),
        (tables.read_wine, WINES[:-4], "line 3 has 11 cells, wanted 12"),
        (tables.read_wine, WINES.replace(";", ","), "its first line is"),
        (tables.read_wine, WINES.replace("20.7", ""), "line 3 cannot be read"),
    ],
)
def test_a_damaged_table_is_named_with_what_is_wrong(
    tmp_path: Path, reader: Callable[[Path], object], content: str | bytes, complaint: str
) -> None:
    path = write(tmp_path, "table.csv", content)
    with pytest.raises(files.DatasetError, match=rf"table\.csv: .*{complaint}.*delete the file"):
        reader(path)


def test_a_wine_that_is_there_twice_is_taken_once(given: Path) -> None:
    draw = np.random.default_rng(0)
    for name in ("red", "white"):
        wines = [";".join(f"{value:.3f}" for value in draw.random(11)) + ";6" for _ in range(20)]
        write(given / "wine-quality", f"winequality-{name}.csv", "\n".join([HEADER, *wines, *wines[:9]]))
    data = tables.load("wine")
    assert [len(part.target) for part in (data.train, data.test)] == [32, 8]
    both = np.concatenate([data.train.numbers, data.test.numbers])
    assert len(np.unique(both, axis=0)) == 40
    assert sorted(np.concatenate([data.train.category, data.test.category])) == [0] * 20 + [1] * 20


def test_an_unknown_table_is_an_error_that_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match="there are auto-mpg, wine, california"):
        tables.load("iris")


@pytest.mark.parametrize(
    ("name", "sizes", "mean"),
    # 398 cars less 6 without horsepower; the known mean of the 392
    [("auto-mpg", (313, 79), 23.446), ("wine", (4256, 1064), 5.796), ("california", (16512, 4128), 2.0686)],
)
def test_the_published_files_hold_what_they_should(
    data_folder: Path, name: str, sizes: tuple[int, int], mean: float
) -> None:
    data = tables.load(name)
    assert (len(data.train.target), len(data.test.target)) == sizes
    assert data.train.numbers.shape[1] == len(data.columns)
    targets = np.concatenate([data.train.target, data.test.target])
    np.testing.assert_allclose(targets.mean(), mean, atol=2e-3)
    assert set(data.train.category) == set(range(len(data.categories)))
