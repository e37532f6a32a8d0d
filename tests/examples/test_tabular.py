"""The network learns, its intervals are measured beside those of its rivals, and test rows decide nothing."""

import importlib
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fnn

forecasts = importlib.import_module("forecasts")
tables = importlib.import_module("tables")
tabular = importlib.import_module("tabular")

METHODS = ["linear regression", "gradient boosting", "boosted quantiles", "five networks"]


def write_cars(folder: Path, count: int = 150) -> None:
    """Cars whose consumption depends on weight and origin, and is less certain for light ones."""
    draw = np.random.default_rng(0)
    lines = []
    for _ in range(count):
        weight, origin = draw.uniform(1500, 5000), draw.integers(1, 4)
        mpg = 45 - weight / 150 + 3 * origin + draw.normal() * (1 if weight > 3000 else 3)
        numbers = [mpg, 4, 100 + 50 * draw.random(), 60 + 50 * draw.random(), weight, 15, 70 + draw.integers(13)]
        lines.append("   ".join(f"{number:.1f}" for number in numbers) + f'  {origin}\t"a car"')
    (folder / "auto-mpg").mkdir(parents=True)
    (folder / "auto-mpg" / "auto-mpg.data").write_text("\n".join(lines) + "\n")


@pytest.fixture
def small_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "BOOSTING", {"learning_rate": [0.1, 0.2], "min_samples_leaf": [5]})
    monkeypatch.setattr(tabular, "TREES", 20)


@pytest.mark.usefixtures("small_rivals")
def test_the_table_has_every_method_and_the_network_has_learned(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cars(given)
    found = tabular.main("auto-mpg", trials=2, steps=150, output=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("auto-mpg: 120 rows to train on and to choose by, 30 to test, 6 numbers")
    assert "2 trials x 5 folds: 10 runs, one program to compile" in lines
    assert list(found) == METHODS
    table = {line[:20].strip(): [float(cell) for cell in line[20:].split()] for line in lines[-5:-1]}
    assert list(table) == METHODS
    for name, (_, *measured) in table.items():
        np.testing.assert_allclose(measured, list(found[name].values()), rtol=1e-3)
    target = tables.load("auto-mpg").test.target
    assert found["five networks"]["RMSE"] < 0.6 * target.std()
    assert table["five networks"][0] < 0.6 * target.std()
    assert 0.5 < found["five networks"]["in 90%"] <= 1
    for name in ("calibration", "predictions", "slices"):
        assert (tmp_path / f"auto-mpg_{name}.png").stat().st_size > 5_000


def test_test_rows_change_nothing_that_is_learned_from(given: Path) -> None:
    write_cars(given)
    data = tables.load("auto-mpg")
    other = data._replace(test=data.test._replace(numbers=data.test.numbers + 7, target=data.test.target + 7))
    first, second = tabular.prepare(data), tabular.prepare(other)
    np.testing.assert_array_equal(first.x[0], second.x[0])
    np.testing.assert_array_equal(first.y, second.y)
    np.testing.assert_allclose([first.y.mean(), first.y.std()], [0, 1], atol=1e-5)
    assert not np.array_equal(first.x_test[0], second.x_test[0])


def test_the_loss_is_that_of_a_normal_distribution_and_beta_weights_it() -> None:
    y, target = jnp.array([[0.3, -1.0], [2.0, 0.5]]), jnp.array([[0.0], [1.0]])
    deviation = 0.01 + np.log1p(np.exp([-1.0, 0.5]))
    wanted = -stats.norm.logpdf([0.0, 1.0], [0.3, 2.0], deviation)
    np.testing.assert_allclose(tabular.negative_log_likelihood(y, target), wanted, rtol=1e-5)
    np.testing.assert_allclose(tabular.tempered(0.0)(y, target), wanted, rtol=1e-5)
    np.testing.assert_allclose(tabular.tempered(0.5)(y, target), deviation * wanted, rtol=1e-5)
    # at 1 the mean learns as from a squared error: the gradient is the error itself
    gradient = jax.grad(lambda y: tabular.tempered(1.0)(y, target).sum())(y)[:, 0]
    np.testing.assert_allclose(gradient, [0.3, 1.0], rtol=1e-5)


def test_intervals_of_the_right_distribution_hold_what_they_promise() -> None:
    draw = np.random.default_rng(0)
    mean, deviation = draw.normal(size=20_000), draw.uniform(1, 3, 20_000)
    target = mean + deviation * draw.normal(size=20_000)
    right, bold = forecasts.normal(mean, deviation), forecasts.normal(mean, deviation / 3)
    np.testing.assert_allclose(right.coverage(target), forecasts.LEVELS, atol=0.015)
    assert (bold.coverage(target) < forecasts.LEVELS - 0.05).all()
    measured = right.measure(target)
    np.testing.assert_allclose(measured["width"], 2 * 1.645 * deviation.mean(), rtol=1e-3)
    np.testing.assert_allclose(measured["RMSE"], np.sqrt((deviation**2).mean()), rtol=0.02)
    assert measured["score"] < bold.measure(target)["score"]


def test_the_category_is_looked_up() -> None:
    net = tabular.network(3, tabular.SETTINGS["auto-mpg"], 0.0)
    numbers, category = jnp.ones((3, 2)), jnp.arange(3)
    params, state = net.init(jax.random.key(0), numbers, category)
    y = fnn.predict(net, params, state, numbers, category)
    assert y.shape == (3, 2)
    assert len(np.unique(np.asarray(y[:, 0]))) == 3


@pytest.mark.usefixtures("small_rivals")
def test_the_script_reads_its_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "fnn" / "auto-mpg").mkdir(parents=True)
    (tmp_path / "cache" / "fnn" / "auto-mpg" / "auto-mpg.data").write_text("not a table of cars")
    monkeypatch.setattr(sys, "argv", ["tabular.py", "--data", "auto-mpg", "--trials", "1", "--rows", "60"])
    with pytest.raises(SystemExit, match=r"auto-mpg\.data: its SHA-256 is"):
        runpy.run_path(str(tabular.__file__), run_name="__main__")
