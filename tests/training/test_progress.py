"""What a person sees of a training: on terminals of any width, in notebooks, in files."""

import io
import sys
import types
from typing import Any

import numpy as np
import pytest

import fnn
from fnn.training import progress
from fnn.training.progress import Progress, steps_per_epoch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_whose_rate_leaves_compilation_out(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    bar = Progress(2, 10, shown=True)
    began = bar._bar.start_t
    bar._bar.start_t -= 1000  # compiling takes long
    bar.update(1, {"accuracy": [0.25], "loss": [2.0]})
    assert (bar._bar.initial, bar._bar.n) == (1, 1)
    assert bar._bar.start_t >= began
    bar.update(4, {"accuracy": [0.5, 1.0], "loss": [1.0, 3.0]})
    bar._bar.refresh()
    bar.close()
    shown = terminal.getvalue()
    assert "| " in shown
    assert "left, loss" in shown
    assert "epoch 1/2, compiling" in shown
    assert "epoch 1/2 |" in shown
    assert "? steps/s" not in shown
    assert "loss 2.0000, accuracy 0.7500" in shown


def test_elsewhere_there_are_plain_rows(capsys: pytest.CaptureFixture[str]) -> None:
    table = Progress(2, 10, shown=True)
    table.update(10, {"loss": [1.0]})
    table.epoch({"loss": 0.25, "validation/confusion": [[1, 0], [0, 1]]})
    table.epoch({"loss": 1.5e-7})
    table.close()
    printed = capsys.readouterr()
    assert printed.err == ""
    assert [line.split()[:2] for line in printed.out.splitlines()] == [
        ["epoch", "loss"],
        ["1", "0.2500"],
        ["2", "1.5e-07"],
    ]


def test_what_is_not_shown_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = Progress(1, 10, shown=False)
    quiet.update(10, {"loss": [1.0]})
    quiet.epoch({"loss": 0.25})
    quiet.say("stopped early")
    quiet.close()
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def rows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, count: int) -> list[str]:
    """What two epochs of so many metrics, in training and validation, print at a width."""
    monkeypatch.setenv("COLUMNS", str(width))
    names = ["loss", "accuracy", "top 5", "f1", "precision", "recall", "calibration", "r2"][:count]
    table = Progress(2, 10, shown=True)
    for number in range(2):
        values = {name: number + place / 100 for place, name in enumerate(names)}
        table.epoch(values | {f"validation/{name}": value + 5 for name, value in values.items()})
    table.close()
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [30, 60, 80, 120, 200])
@pytest.mark.parametrize("count", [1, 4, 8])
def test_rows_fit_the_width_and_hold_every_value(
    width: int, count: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From four metrics on the table was wider than 100 columns and wrapped."""
    lines = rows(capsys, monkeypatch, width, count)
    assert max(map(len, lines)) <= width
    text = " ".join(lines)
    for number in range(2):
        for place in range(count):
            for value in (number + place / 100, 5 + number + place / 100):
                assert f"{value:.4f}" in text
    assert ("val/" in text) or ("validation/" in text) or (" val " in text)


def test_a_table_takes_the_longest_titles_that_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rows(capsys, monkeypatch, 80, 2) == [
        "epoch      loss  accuracy  validation/loss  validation/accuracy   seconds",
        "    1    0.0000    0.0100           5.0000               5.0100       0.0",
        "    2    1.0000    1.0100           6.0000               6.0100       0.0",
    ]
    assert rows(capsys, monkeypatch, 60, 2)[0] == "epoch      loss  accuracy  val/loss  val/accuracy   seconds"
    assert rows(capsys, monkeypatch, 50, 2)[:3] == [
        "epoch             loss  accuracy   seconds",
        "    1  train    0.0000    0.0100       0.0",
        "         val    5.0000    5.0100",
    ]
    assert rows(capsys, monkeypatch, 36, 2)[:3] == [
        "epoch 1, loss 0.0000,",
        "  accuracy 0.0100, val/loss 5.0000,",
        "  val/accuracy 5.0100, seconds 0.0",
    ]


def test_epochs_that_are_not_shown_are_announced_and_the_last_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Every second epoch was left out without a word, and so was the last one of a training that stopped early."""
    table = Progress(40, 10, shown=True)
    for _ in range(7):
        table.epoch({"loss": 1.0})
    table.say("stopped early")
    table.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "one epoch in 2 is shown"
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "4", "6", "7", "stopped"]


def live(monkeypatch: pytest.MonkeyPatch, total: int | None, width: int = 100) -> tuple[Progress, io.StringIO]:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    return Progress(3, total, shown=True), terminal


def shown(bar: Progress, terminal: io.StringIO) -> str:
    terminal.seek(0)
    terminal.truncate()
    bar._bar.refresh()
    return terminal.getvalue()


def test_without_a_length_steps_are_counted_and_the_first_epoch_tells_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bar stood at 0 %, with 00:00 left, for the whole of an epoch."""
    bar, terminal = live(monkeypatch, None)
    for _ in range(5):
        bar.update(4, {"loss": [1.0]})
    text = shown(bar, terminal)
    assert "epoch 1/3: 20 steps" in text
    assert "left" not in text
    assert "%" not in text
    bar.epoch({"loss": 1.0})
    bar.update(4, {"loss": [1.0]})
    assert "epoch 2/3 |" in (text := shown(bar, terminal))
    assert "40%" in text  # 24 of 60 steps
    bar.close()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_metrics_beside_the_bar_are_whole_or_left_out(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bar, terminal = live(monkeypatch, 100, width)
    for _ in range(3):
        bar.update(20, {name: [0.5] for name in ("accuracy", "loss", "precision", "recall", "top 5")})
    text = shown(bar, terminal).rpartition("\r")[2].rstrip()
    bar.close()
    assert "left, loss 0.5000" in text
    assert all(part.endswith("0.5000") for part in text.split(", ")[3:])
    assert len(text) <= width


def test_a_notebook_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of a notebook is no terminal, and an epoch of 20 minutes showed nothing."""
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))  # pyright: ignore
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    bar = Progress(2, 10, shown=True)
    bar.update(1, {"loss": [2.0]})
    bar.update(4, {"loss": [1.0]})
    bar._bar.refresh()
    bar.close()
    assert "epoch 1/2 |" in output.getvalue()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))  # pyright: ignore
    assert not progress.is_live()  # IPython is imported, in a program


def test_without_a_bar_a_long_epoch_prints_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a clock of the test's own, a second for each report."""
    now = 0.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    bar = Progress(1, 6000, shown=True)
    for _ in range(6000):
        now += 1
        bar.update(1, {"loss": [0.5]})
    bar.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "epoch 1/1, step 60 of 6000, 01:00, loss 0.5000"
    assert 40 <= len(lines) <= 60
    quick = Progress(1, None, shown=True)
    quick.update(10, {"loss": [0.5]})
    now += 61
    quick.update(10, {"loss": [0.5]})
    quick.close()
    assert capsys.readouterr().out == "epoch 1/1, step 20, 01:01, loss 0.5000\n"


def test_the_steps_of_an_epoch_are_known_where_data_has_a_length() -> None:
    class Unsized:
        def __iter__(self) -> Any:
            return iter([1, 2])

    assert steps_per_epoch(fnn.batches(np.zeros((10, 1)), 4, epochs=3)) == 2
    assert steps_per_epoch([1, 2, 3]) == 3
    assert steps_per_epoch(Unsized()) is None
