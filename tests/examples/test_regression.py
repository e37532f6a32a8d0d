"""The comparison of networks is fair: scaled by training rows, chosen by validation rows, rivals printed."""

import importlib
import runpy
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import root_mean_squared_error

import fnn

datasets = importlib.import_module("datasets")
regression = importlib.import_module("regression")

NETWORKS = ("small", "large", "large, L1", "large, L2", "large, dropout", "large, early stopping")


def read_table(printed: str) -> dict[str, list[float]]:
    """The last three columns, training, validation and test error, by variant."""
    lines = [line for line in printed.splitlines() if line.startswith(("mean", "linear", "small", "large"))]
    return {line[:22].strip(): [float(cell) for cell in line.split()[-3:]] for line in lines}


def test_validation_chooses_and_the_rivals_are_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = regression.main("diabetes", epochs=2, examples=80, output=tmp_path)
    printed = capsys.readouterr().out
    table = read_table(printed)
    assert tuple(table) == ("mean", "linear regression", *NETWORKS)
    chosen = min(NETWORKS, key=lambda name: table[name][1])
    assert printed.splitlines()[-1] == f"chosen by validation: {chosen}, test error {found:.4g}"
    assert table[chosen][2] == float(f"{found:.4g}")
    assert "60 rows to train on, 20 to choose by, 80 to test, 10 columns" in printed
    for name in ("diabetes_curves.png", "diabetes_predictions.png"):
        assert (tmp_path / name).stat().st_size > 5_000

    x, y, x_test, y_test = (part[:80].astype(np.float64) for part in datasets.load("diabetes")[:4])
    parts = [(x[20:], y[20:]), (x[:20], y[:20]), (x_test, y_test)]
    linear = LinearRegression().fit(*parts[0])
    mean = [root_mean_squared_error(y, np.full_like(y, parts[0][1].mean())) for _, y in parts]
    np.testing.assert_allclose(table["mean"], mean, rtol=1e-3)
    wanted = [root_mean_squared_error(y, linear.predict(x)) for x, y in parts]
    np.testing.assert_allclose(table["linear regression"], wanted, rtol=1e-3)


def test_rows_are_scaled_by_the_training_rows_alone() -> None:
    table = datasets.load("diabetes")
    rows = regression.split(table)
    assert [len(x) for x, _ in rows[:3]] == [265, 88, 89]
    for column in rows.train:
        np.testing.assert_allclose(column.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(column.std(0), 1, rtol=1e-4)
    for (_, y), raw in zip(rows[:3], (table.y_train[88:], table.y_train[:88], table.y_test)):
        np.testing.assert_allclose(rows.scale * y + rows.center, raw, rtol=1e-5)
    x_train = table.x_train.copy()
    x_train[:88] += 1000  # the validation rows
    other = regression.split(table._replace(x_train=x_train, x_test=table.x_test + 1000))
    np.testing.assert_array_equal(other.train[0], rows.train[0])
    assert (other.validation[0] > rows.validation[0] + 1).all()


def test_the_large_network_overfits_and_a_penalty_prevents_it() -> None:
    setting, rows = regression.SETTINGS["diabetes"], regression.split(datasets.load("diabetes"))
    found = {}
    for name in ("large", "large, L2"):
        net, run, history = regression.train(setting.variants[name], setting, rows, 100, jax.random.key(0))
        found[name] = rows.errors(partial(fnn.predict, net, run.params, run.state))
        np.testing.assert_allclose(history["validation/error"][-1], found[name][1], rtol=1e-4)
    assert found["large"][0] < 0.5 * found["large"][1]
    assert found["large, L2"][0] > 0.9 * found["large, L2"][1]
    assert found["large, L2"][1] < found["large"][1]


def test_early_stopping_goes_back_to_its_best_epoch() -> None:
    setting, rows = regression.SETTINGS["diabetes"], regression.split(datasets.load("diabetes"))
    variant = regression.Variant((64, 64), patience=2)
    net, run, history = regression.train(variant, setting, rows, 50, jax.random.key(0))
    watched = history["validation/error"]
    assert len(watched) == watched.argmin() + 3
    _, validation, _ = rows.errors(partial(fnn.predict, net, run.params, run.state))
    np.testing.assert_allclose(validation, watched.min(), rtol=1e-4)


def test_a_penalty_leaves_the_biases_alone() -> None:
    params = {"kernel": np.array([[1.0, -3.0]]), "bias": np.array([5.0])}
    assert regression.penalty(regression.Variant((1,), l1=0.5))(params) == 2.0
    assert regression.penalty(regression.Variant((1,), l2=0.5))(params) == 5.0
    assert regression.penalty(regression.Variant((1,), dropout=0.5)) is None


def test_random_points_print_a_loss_for_each_epoch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["regression.py", "--data", "random"])
    runpy.run_path(str(regression.__file__), run_name="__main__")
    remark, *lines = capsys.readouterr().out.splitlines()
    assert remark.startswith("each epoch leaves out")
    assert lines[0].split()[:2] == ["epoch", "loss"]
    losses = [float(line.split()[1]) for line in lines[1:]]
    assert len(losses) == 10
    # the targets are uniform in [0, 1]: there is nothing to learn beyond their mean, which leaves 1 / 12
    assert 0.07 < losses[-1] < 0.1 < losses[0]


def test_on_california_a_few_epochs_are_better_than_linear_regression(data_folder: Path) -> None:
    setting, rows = regression.SETTINGS["california"], regression.split(datasets.load("california"))
    linear = LinearRegression().fit(*rows.train)
    # it explains about 0.6 of the variance: 1.15 * sqrt(1 - 0.6) = 0.73
    np.testing.assert_allclose(rows.errors(linear.predict), 0.73, atol=0.02)
    net, run, _ = regression.train(setting.variants["large, dropout"], setting, rows, 5, jax.random.key(0))
    _, validation, _ = rows.errors(partial(fnn.predict, net, run.params, run.state))
    assert validation < 0.68
