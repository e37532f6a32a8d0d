"""Forecasts are made of the past alone, and a network is judged beside its rivals on the same windows."""

import importlib
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.metrics import mean_pinball_loss

series = importlib.import_module("series")
forecasting = importlib.import_module("forecasting")
files = importlib.import_module("files")

HEADERS = {
    "co2": "Date,Decimal Date,Average,Interpolated,Trend,Number of Days",
    "airline": '"Month","Passengers"',
    "etth1": "date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT",
}
PLACES = {
    "co2": "co2-mauna-loa/co2-mm-mlo.csv",
    "airline": "airline-passengers/airline-passengers.csv",
    "etth1": "ett/ETTh1.csv",
}
ROWS = {
    "co2": lambda time, value: f"{time},{1958.2:.4f},{value:.2f},314.44,-01,-9.99,-0.99",
    "airline": lambda time, value: f'"{time}",{value:.0f}',
    "etth1": lambda time, value: f"{str(time).replace('T', ' ')}:00:00,5.8,2.0,1.6,0.4,4.2,1.3,{value}",
}


def write(given: Path, name: str, count: int) -> np.ndarray:
    """A series of rising seasons, in the published format."""
    step = np.arange(count)
    values = 300 + 0.1 * step + 5 * np.sin(2 * np.pi * step / 12) + np.random.default_rng(0).normal(0, 0.3, count)
    unit = "h" if name == "etth1" else "M"
    times = np.datetime64("1958-03", unit) + step
    lines = [HEADERS[name], *(ROWS[name](time, value) for time, value in zip(times, values))]
    path = given / PLACES[name]
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n")
    return values


@pytest.mark.parametrize("name", HEADERS)
def test_a_series_is_read_with_its_times(given: Path, name: str) -> None:
    values = write(given, name, 30)
    found = series.load(name)
    np.testing.assert_allclose(found.values, values, atol=0.5)
    assert str(found.times[0]) == ("1958-03-01T00" if name == "etth1" else "1958-03")
    assert found.season == (24 if name == "etth1" else 12)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("Date,Decimal Date,Average", "Date,Average", "begins with 'Date,Average"),
        ("1958-05", "1958-07", "after 1958-04 comes 1958-07"),
        ("1958-05,1958.2000,30", "1958-05,1958.2000,x", "row 4 cannot be read"),
        ("1958-05,1958.2000,", "1958-05,1958.2000,-99.99,", "value of 1958-05 is missing"),
        ("1958-05,1958.2000,", "1958-05,1958.2000,nan,", "value of 1958-05 is missing"),
        ("1958-05", "May", "row 4 cannot be read"),
        ("Trend", "Tr\xe9nd", "cannot be read as text"),
    ],
)
def test_a_damaged_series_is_named_with_what_is_wrong(given: Path, old: str, new: str, complaint: str) -> None:
    write(given, "co2", 5)
    path = given / PLACES["co2"]
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))
    with pytest.raises(files.DatasetError, match=rf"co2-mm-mlo\.csv: .*{complaint}"):
        series.load("co2")


@pytest.mark.parametrize(("lines", "complaint"), [(0, "begins with 'nothing'"), (2, "holds 1 rows")])
def test_a_series_that_is_too_short_is_refused(given: Path, lines: int, complaint: str) -> None:
    write(given, "co2", 5)
    path = given / PLACES["co2"]
    path.write_text("\n".join(path.read_text().splitlines()[:lines]))
    with pytest.raises(files.DatasetError, match=complaint):
        series.load("co2")


def test_the_real_series_are_whole(data_folder: Path) -> None:
    lengths = {name: len(series.load(name).values) for name in series.NAMES}
    assert lengths == {"co2": 820, "etth1": 17420, "airline": 144}
    assert series.load("co2").values[0] == 315.71
    assert series.load("airline").values[-1] == 432


def test_windows_are_differences_from_the_last_value_that_was_seen() -> None:
    rows = series.windows(np.arange(10.0) ** 2, 3, 2)
    assert rows.x[1, :, 0].tolist() == [1 - 9, 4 - 9, 0]
    assert rows.target[1].tolist() == [16 - 9, 25 - 9]
    assert rows.last[1].tolist() == [9]
    assert len(rows.x) == 6
    with pytest.raises(ValueError, match="4 values are fewer"):
        series.windows(np.arange(4.0), 3, 2)


def test_the_naive_forecast_repeats_the_season_and_its_rise() -> None:
    step = np.arange(60)
    rows = series.windows(0.5 * step + np.sin(2 * np.pi * step / 12), 24, 15)
    np.testing.assert_allclose(series.seasonal_naive(rows.x, 15, 12), rows.target, atol=1e-9)


def test_the_pinball_loss_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    target, found = draw.normal(size=(20, 4)), draw.normal(size=(20, 4, 3))
    wanted = [mean_pinball_loss(target, found[..., n], alpha=alpha) for n, alpha in enumerate((0.1, 0.5, 0.9))]
    np.testing.assert_allclose(forecasting.pinball(found, target).mean(), np.mean(wanted), rtol=1e-5)


@pytest.mark.parametrize("name", forecasting.NETWORKS)
def test_a_network_reads_the_whole_window(name: str) -> None:
    net = forecasting.NETWORKS[name](12, 5, features=8)
    x = np.random.default_rng(0).normal(size=(16, 12, 1)).astype(np.float32)
    params, state = jax.jit(net.init)(jax.random.key(0), x)
    # Without its line, so that what is seen is seen by the network itself.
    params = params | {"line": jax.tree.map(np.zeros_like, params["line"])}
    forecast = lambda x: net.apply(params, state, x)[0]
    slopes = jax.jit(jax.grad(lambda x: forecast(x).sum()))(x)
    assert jax.eval_shape(forecast, x).shape == (16, 5, 3)
    assert (np.abs(slopes).max(axis=0) > 0).all()


def test_the_network_is_better_than_no_change_and_stands_beside_its_rivals(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = write(given, "co2", 320)
    errors = forecasting.main("co2", models=["lstm", "tcn"], folds=1, epochs=60, features=8, output=tmp_path)
    assert set(errors) == {"seasonal naive", "linear regression", "lstm", "tcn", "chosen"}
    rows = series.windows(values, 36, 12)
    no_change = np.abs(rows.target[-60:]).mean()
    assert errors["linear regression"] < 0.5 < no_change
    assert errors["chosen"] in (errors["lstm"], errors["tcn"])
    assert errors["chosen"] < 0.5 * no_change
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("fold 1: 131 windows to train on, 60 to choose by, 60 to forecast 1978-12 to 1984-10")
    assert sum(line.startswith(tuple(errors)) for line in lines) == 5
    assert all((tmp_path / f"co2_{name}.png").stat().st_size > 5_000 for name in ("errors", "forecasts"))


def test_no_test_target_is_in_a_training_window(given: Path) -> None:
    setting = forecasting.SETTINGS["co2"]
    rule = importlib.import_module("fnn").time_series(2, held_out=setting.held_out, gap=setting.horizon - 1)
    for before, test in rule.split(300, None, np.random.default_rng(0)):
        # Row r forecasts the steps r + window to r + window + horizon - 1.
        assert before.max() + setting.horizon - 1 < test.min()
