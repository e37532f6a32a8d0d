"""Cross-validation is honest: a network is measured on rows that had no part in it, its rival on the same folds."""

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

import fnn

cross_validation = importlib.import_module("cross_validation")


def test_the_script_prints_what_each_way_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--data iris --folds 3 --leave-one-out 40 --trials 0 --hidden 4 --epochs 2 --seed 1 --output"
    monkeypatch.setattr(sys, "argv", ["cross_validation.py", *options.split(), str(tmp_path)])
    runpy.run_path(str(cross_validation.__file__), run_name="__main__")
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0] == "iris: 150 rows, 4 columns, 3 classes"
    for name in ("3 folds, fnn", "3 folds, scikit-learn", "difference in the same folds", "leave one of 40 out"):
        assert any(line.startswith(name) for line in lines), name
    assert "1 trial x 40 folds: 40 runs, one program to compile" in printed
    assert (tmp_path / "iris_confusion.png").stat().st_size > 5_000


def test_fnn_and_scikit_learn_agree_within_noise_on_the_same_folds() -> None:
    table = cross_validation.load("digits")
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    result = cross_validation.k_fold(table, folds, 32, 6, jax.random.key(0))
    ours, theirs = result.values(), cross_validation.scikit_learn(table, folds, 32, 6, 0)
    np.testing.assert_allclose(ours.mean(), theirs.mean(), atol=0.02)
    matrix = cross_validation.confusion(table, result)
    np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(table.y))
    sizes = np.array([len(held_out) for _, held_out in folds.split(table.x, table.y)])
    np.testing.assert_allclose(np.trace(matrix), np.sum(ours * sizes), rtol=1e-5)


def test_inner_folds_see_no_row_that_their_outer_fold_holds_out() -> None:
    y = cross_validation.load("wine").y
    pairs = cross_validation.nested_folds(y, seed=0)
    outer, inner = cross_validation.OUTER, cross_validation.INNER
    assert len(pairs) == outer * (1 + inner)
    for first in range(0, len(pairs), 1 + inner):
        train, held_out = pairs[first]
        assert sorted([*train, *held_out]) == list(range(len(y)))
        inside = pairs[first + 1 : first + 1 + inner]
        assert all(sorted([*rows, *held]) == sorted(train) for rows, held in inside)
        assert sorted(np.concatenate([held for _, held in inside])) == sorted(train)


def test_nested_measures_what_each_outer_fold_chose(capsys: pytest.CaptureFixture[str]) -> None:
    found = cross_validation.nested(cross_validation.load("iris"), 4, 4, 5, 0)
    assert "4 trials x 25 folds: 100 runs, one program to compile" in capsys.readouterr().out
    assert len(found.chosen) == len(found.inside) == len(found.held_out) == len(found.peeked) == cross_validation.OUTER
    sizes = 150 // cross_validation.OUTER
    right = sizes * np.stack([found.held_out, found.peeked])  # whole numbers of rows
    np.testing.assert_allclose(right, right.round(), atol=1e-4)


def test_tables_are_scaled_within_the_fold() -> None:
    table = cross_validation.load("wine")
    row = int(np.flatnonzero(table.y == 0)[0])
    x = table.x.copy()
    x[row] += 1e4
    folds = [(np.delete(np.arange(len(x)), row), np.array([row]))]
    trial = cross_validation.trial_of(table, 4)

    def trained(x: np.ndarray) -> Any:
        data, key = (x, table.y), jax.random.key(0)
        return fnn.study(
            trial, [cross_validation.PLAIN], data=data, folds=folds, steps=20, at="last", key=key, progress=False
        ).network()

    first, second = trained(table.x), trained(x)
    jax.tree.map(np.testing.assert_array_equal, (first.params, first.state), (second.params, second.state))
