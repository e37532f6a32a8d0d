"""What a person sees while a study runs."""

import io
import re
import sys

import numpy as np
import pytest

import fnn
from tests.studies.small import RATES, SPACE, study


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "changes",
    [
        {"halving": fnn.halving(3, first=4)},
        {"early_stopping": fnn.early_stopping(1, maximize="validation/loss")},
        {"space": [*RATES, {"learning_rate": 1e4}]},
    ],
    ids=["halving", "early stopping", "divergence"],
)
def test_the_bar_ends_at_its_end_where_runs_end_early(changes, monkeypatch):
    """It stood at 18 % when 216 of 240 runs were done: steps that halving leaves out counted as ahead."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    study(**{"space": SPACE, "trials": None if "space" in changes else 9, "progress": True, **changes})
    shown = [int(percent) for percent in re.findall(r"(\d+)%", terminal.getvalue())]
    assert shown[-1] == 100
    assert len(set(shown)) > 3
    assert (np.diff(shown) >= 0).all()
    assert re.search(r"left, best \S+ \S+ \(trial \d\)", terminal.getvalue())  # a narrow terminal cuts the end


def test_no_line_is_printed_twice(capsys):
    """Without a terminal a study printed one line up to 6 times."""
    study(SPACE, trials=3, steps=40, evaluate_every=1, progress=True)
    lines = [re.sub(r", \d+ s$", "", line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(set(lines)) > 3
    assert lines[-1].startswith("6 of 6 runs, best validation/loss ")


def test_a_study_that_is_finished_has_nothing_to_compile(tmp_path, capsys):
    study(folder=tmp_path)
    again = study(folder=tmp_path, progress=True)
    assert again.remarks == [
        "3 trials x 2 folds: 6 runs", f"resuming from {tmp_path}: 6 runs are finished, 0 in the middle"
    ]  # fmt: skip
