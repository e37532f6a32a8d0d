"""Forecast a time series, with a band that says how sure the forecast is.

A network reads a window of the past and gives the next steps all at once: twelve months of CO2, or a day of
temperatures. It gives three numbers for each of them, the quantiles 0.1, 0.5 and 0.9: the truth should lie below the
first once in ten times, and between the first and the last in eight of ten. The pinball loss teaches that: a quantile
of 0.9 pays nine times as much for being too low as for being too high. The middle one is the forecast.

Three networks: an LSTM reads the window step by step; a temporal CNN looks back through causal convolutions, whose
distance doubles from layer to layer; in a small transformer every step looks at all others. Each stands beside a
linear layer, and adds to it what a line cannot say. All see windows as differences from their last value, so that a
series that rises for ever looks the same each year.

A forecast is judged as it is used: train on what came before a date, forecast what comes after, then move the date
(rolling origin). The end of each training part is held out to choose the epoch, and which network to trust. Two rivals
get the same windows: the value of one season ago, with the drift since then, and linear regression; their bands are the
quantiles of their errors on the held-out part. CO2 is so regular that linear regression beats all three networks.

By default this reads the monthly CO2 of Mauna Loa. ``--data etth1`` has 17420 hourly temperatures, of which the usual
20 months are used; ``--data airline`` has only 144 months, too few for most networks.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import files
import jax
import jax.numpy as jnp
import numpy as np
import optax
import series
from matplotlib.figure import Figure
from sklearn.linear_model import LinearRegression

import fnn

Forecast = Callable[[series.Windows], np.ndarray]
QUANTILES = np.array([0.1, 0.5, 0.9], np.float32)
RIVALS = ("seasonal naive", "linear regression")
COLOURS = {
    "seasonal naive": "0.6",
    "linear regression": "0.2",
    "lstm": "tab:blue",
    "tcn": "tab:orange",
    "transformer": "tab:green",
}


class Setting(NamedTuple):
    """What suits one series.

    Attributes:
        window: Steps of the past that are read.
        horizon: Steps that are forecast.
        folds: How often the date moves on.
        held_out: Forecasts in each test part, and in each validation part.
        steps: Of the series, the first so many; None: all.
        logarithm: Whether seasons grow with the level, so that logarithms have seasons of one size.
        epochs: Passes over the training windows, at most.
        batch_size: Windows for each step of training.
    """

    window: int
    horizon: int
    folds: int
    held_out: int
    steps: int | None
    logarithm: bool
    epochs: int
    batch_size: int


SETTINGS = {
    "co2": Setting(36, 12, 3, 60, None, False, 40, 32),
    "etth1": Setting(96, 24, 1, 2880, 14400, False, 6, 64),  # 12, 4 and 4 months of 30 days, as in the literature
    "airline": Setting(24, 12, 3, 12, None, True, 100, 8),
}


def quantiles_of(body: fnn.Layer, horizon: int) -> fnn.Layer:
    """A linear forecast, and on top of it what the last step of a network says: ``(batch, horizon, quantiles)``."""

    def forward(f: Any, x: jax.Array) -> jax.Array:
        bent = f.head(f.body(x)[:, -1]).reshape(len(x), horizon, len(QUANTILES))
        return f.line(x[..., 0])[..., None] + bent

    return fnn.wire(forward, body=body, head=fnn.dense(horizon * len(QUANTILES)), line=fnn.dense(horizon))


def lstm(window: int, horizon: int, *, features: int) -> fnn.Layer:
    """What was read is remembered in a state of fixed size."""
    return quantiles_of(fnn.lstm(features), horizon)


def tcn(window: int, horizon: int, *, features: int) -> fnn.Layer:
    """Causal convolutions three steps wide, 1, 2, 4, ... steps apart, until the last one sees the whole window."""
    blocks, seen, dilation = [], 1, 1
    while seen < window:
        causal = fnn.conv(features, (3,), dilation=dilation, padding="CAUSAL")
        blocks.append(fnn.residual(fnn.serial(causal, jax.nn.relu)))
        seen, dilation = seen + 2 * dilation, 2 * dilation
    return quantiles_of(fnn.serial(fnn.dense(features), *blocks), horizon)


def transformer(window: int, horizon: int, *, features: int) -> fnn.Layer:
    """Two blocks of attention over the window."""
    body = fnn.serial(fnn.dense(features), fnn.learned_positions(window), fnn.encoder(2, 4, 2 * features))
    return quantiles_of(body, horizon)


NETWORKS: Mapping[str, Callable[..., fnn.Layer]] = {"lstm": lstm, "tcn": tcn, "transformer": transformer}


def pinball(forecast: Any, target: Any) -> jax.Array:
    """The pinball loss, a mean over quantiles: one value for each step of each forecast."""
    error = target[..., None] - forecast
    return jnp.maximum(QUANTILES * error, (QUANTILES - 1) * error).mean(axis=-1)


def train(
    net: fnn.Layer, fit: series.Windows, validation: series.Windows, scale: float, setting: Setting, key: jax.Array
) -> tuple[Forecast, float]:
    """Train one network; returns its forecasts as a function, and its loss on the validation part at its best epoch."""
    epoch = max(1, len(fit.x) // setting.batch_size)
    schedule = optax.cosine_decay_schedule(3e-3, setting.epochs * epoch)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-3))
    scaled = lambda part: tuple((array / scale).astype(np.float32) for array in (part.x, part.target))
    arrays = [scaled(part) for part in (fit, validation)]
    run, history = fnn.fit(
        fnn.supervised(net, pinball), optimizer, fnn.train_init(net, optimizer, key, arrays[0][0]), arrays[0],
        batch_size=min(setting.batch_size, len(fit.x)), epochs=setting.epochs, validation=arrays[1],
        early_stopping=fnn.early_stopping(10, minimize="validation/loss"), progress=False,
    )  # fmt: skip

    def forecast(part: series.Windows) -> np.ndarray:
        found = fnn.predict(net, run.params, run.state, scaled(part)[0])
        # Each quantile is learned by itself, so that they may cross; sorted ones are never worse.
        return scale * np.sort(np.asarray(found, np.float64), axis=-1)

    return forecast, float(history["validation/loss"].min())


def with_band(forecast: Forecast, validation: series.Windows) -> Forecast:
    """Put a band around a forecast without one: quantiles of its validation errors, for each step of the horizon."""
    errors = validation.target - forecast(validation)
    band = np.quantile(errors, QUANTILES, axis=0).T
    band[:, 1] = 0
    return lambda part: forecast(part)[..., None] + band


def scores(found: np.ndarray, truth: np.ndarray) -> tuple[float, float, float, float]:
    """Mean absolute and root mean squared error, pinball loss, and how often the truth is within the band."""
    error = truth - found[..., 1]
    inside = (found[..., 0] <= truth) & (truth <= found[..., 2])
    loss = float(np.mean(pinball(found, truth)))
    return float(np.abs(error).mean()), float(np.sqrt((error**2).mean())), loss, float(inside.mean())


def main(
    data: str = "co2",
    *,
    models: Sequence[str] = tuple(NETWORKS),
    folds: int | None = None,
    epochs: int | None = None,
    features: int = 32,
    seed: int = 0,
    output: str | Path = "outputs/forecasting",
) -> dict[str, float]:
    """Evaluate all methods with a rolling origin, print the table, and save two pictures.

    Args:
        data: ``"co2"``, ``"etth1"`` or ``"airline"``.
        models: Which networks.
        folds: How often the date between training and test moves on; None: as the series has it.
        epochs: Passes over the training windows, at most; None: as the series has it.
        features: Width of the networks.
        seed: Decides all that is random.
        output: Folder of the pictures.

    Returns:
        The mean absolute test error of each method, and of the network that validation chose in each fold, as
        ``"chosen"``.
    """
    table, setting = series.load(data), SETTINGS[data]
    setting = setting._replace(folds=folds or setting.folds, epochs=epochs or setting.epochs)
    values = table.values[: setting.steps]
    units = np.exp if setting.logarithm else np.asarray
    rows = series.windows(np.log(values) if setting.logarithm else values, setting.window, setting.horizon)
    # A row is a forecast. Targets of neighbours overlap; the gap keeps those of one part out of the next.
    rule = fnn.time_series(setting.folds, held_out=setting.held_out, gap=setting.horizon - 1)
    inner = fnn.time_series(1, held_out=setting.held_out, gap=setting.horizon - 1)
    draw = np.random.default_rng(seed)
    naive = lambda part: series.seasonal_naive(part.x, setting.horizon, table.season)
    print(f"{data}: {len(values)} steps, {setting.window} are read to forecast {setting.horizon}: {table.quantity}")

    found: dict[str, list[np.ndarray]] = {name: [] for name in (*RIVALS, *models, "chosen")}
    tested, truth, choices, parameters = [], [], [], {}
    for fold, (before, test) in enumerate(rule.split(len(rows.x), None, draw)):
        ((fit, held),) = inner.split(len(before), None, draw)
        fit, validation = rows[before[fit]], rows[before[held]]
        scale = float(fit.target.std())
        linear = LinearRegression().fit(fit.x[..., 0], fit.target)
        methods = {
            "seasonal naive": with_band(naive, validation),
            "linear regression": with_band(lambda part, linear=linear: linear.predict(part.x[..., 0]), validation),
        }
        losses = {}
        for name in models:
            net = NETWORKS[name](setting.window, setting.horizon, features=features)
            key = fnn.fold(jax.random.key(seed), f"{name}/{fold}")
            methods[name], losses[name] = train(net, fit, validation, scale, setting, key)
            parameters[name] = fnn.count(jax.eval_shape(net.init, key, rows.x[:1].astype(np.float32))[0])
        choices.append(min(losses, key=lambda name: losses[name]))
        methods["chosen"] = methods[choices[-1]]
        part = rows[test]
        for name, forecast in methods.items():
            found[name].append(units(forecast(part) + part.last[..., None]))
        tested.append(test)
        truth.append(units(part.target + part.last))
        begin, end = (table.times[setting.window + place] for place in (test[0], test[-1] + setting.horizon - 1))
        print(f"fold {fold + 1}: {len(fit.x)} windows to train on, {len(held)} to choose by, {len(test)} to forecast "
              f"{begin} to {end}; validation chose {choices[-1]}", flush=True)  # fmt: skip

    answers = {name: np.concatenate(parts) for name, parts in found.items()}
    target = np.concatenate(truth)
    print(f"\n{'method':20}{'parameters':>11}{'mean abs.':>11}{'RMSE':>9}{'pinball':>9}{'in the 80 % band':>18}")
    errors = {}
    for name, forecast in answers.items():
        absolute, squared, loss, inside = scores(forecast, target)
        errors[name] = absolute
        count = f"{parameters[name]}" if name in parameters else ""
        print(f"{name:20}{count:>11}{absolute:11.4g}{squared:9.4g}{loss:9.4g}{inside:18.1%}")

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    by_horizon(answers, target, table).savefig(folder / f"{data}_errors.png", dpi=150)
    first = setting.window + tested[-1][0]
    last_fold = {name: parts[-1] for name, parts in found.items() if name in ("chosen", "linear regression")}
    picture = forecasts(last_fold, choices[-1], table, first, setting)
    picture.savefig(folder / f"{data}_forecasts.png", dpi=150)
    print(f"\npictures: {folder}/{data}_errors.png, {data}_forecasts.png")
    best = min(RIVALS, key=lambda name: errors[name])
    print(f"mean absolute error: chosen networks {errors['chosen']:.4g}, {best} {errors[best]:.4g}")
    return errors


def by_horizon(answers: Mapping[str, np.ndarray], truth: np.ndarray, table: series.Series) -> Figure:
    """How the error grows with the distance of what is forecast."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, truth.shape[1] + 1)
    for name, found in answers.items():
        if name != "chosen":
            style = "--" if name in RIVALS else "-"
            axes.plot(steps, np.abs(found[..., 1] - truth).mean(axis=0), style, color=COLOURS[name], label=name)
    unit = "hours" if table.season == 24 else "months"
    axes.set(xlabel=f"{unit} ahead", ylabel="mean absolute error", title=table.quantity, xlim=(1, steps[-1]))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def forecasts(
    found: Mapping[str, np.ndarray], network: str, table: series.Series, first: int, setting: Setting
) -> Figure:
    """Forecasts of the last fold, one after the other: each begins where the one before ends."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    rows = range(0, len(found["chosen"]), setting.horizon)[:5]
    last = first + rows[-1] + setting.horizon
    shown = slice(max(0, first - setting.window), last)
    axes.plot(table.times[shown], table.values[shown], color="0.2", linewidth=1.2, label="measured")
    for number, row in enumerate(rows):
        times = table.times[first + row : first + row + setting.horizon]
        low, middle, high = found["chosen"][row].T
        label = (lambda text: text) if number == 0 else (lambda text: None)
        axes.fill_between(times, low, high, color=COLOURS[network], alpha=0.25, linewidth=0, label=label("80 % band"))
        axes.plot(times, middle, color=COLOURS[network], label=label(network))
        axes.plot(times, found["linear regression"][row, :, 1], ":", color="tab:red", label=label("linear regression"))
        axes.axvline(times[0], color="0.8", linewidth=0.8, zorder=0)
    axes.set(ylabel=table.quantity, title="each forecast begins at a grey line, and knows what was measured before")
    axes.legend(frameon=False, loc="upper left", ncols=4)
    axes.margins(x=0.01, y=0.15)
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="co2", choices=SETTINGS)
    parser.add_argument("--models", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--folds", type=int, help="how often the date moves on (default: as the series has it)")
    parser.add_argument("--epochs", type=int, help="passes over the training windows (default: as the series has it)")
    parser.add_argument("--features", type=int, default=32, help="width of the networks (default: 32)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/forecasting", help="folder of the pictures")
    arguments = vars(parser.parse_args())
    try:
        main(arguments.pop("data"), **arguments)
    except files.DatasetError as error:
        sys.exit(str(error))
