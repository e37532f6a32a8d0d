import io
import sys

import pytest

from fnn.training import progress
from fnn.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_whose_rate_leaves_compilation_out(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    clock = iter([100.0, 200.0, 200.0, 200.0])
    bar = Progress(2, 10, shown=True)
    monkeypatch.setattr(progress.time, "time", lambda: next(clock))
    bar.update(1, {"accuracy": [0.25], "loss": [2.0]})
    assert (bar._bar.initial, bar._bar.n, bar._bar.start_t) == (1, 1, 100.0)
    bar.update(4, {"accuracy": [0.5, 1.0], "loss": [1.0, 3.0]})
    bar._bar.refresh()
    bar.close()
    shown = terminal.getvalue()
    assert "epoch 1/2, compiling" in shown
    assert "epoch 1/2 |" in shown
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
