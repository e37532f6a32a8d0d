"""Predict a number: what goes wrong with too small and too large networks, and what helps.

A network that is too small cannot follow the data: it is about as wrong on the rows that it learns from as on new ones
(underfitting). One that is too large learns its rows by heart, noise and all: the error on them keeps falling while the
error on new rows rises (overfitting). Four remedies let the large network keep its freedom and lose its bad habits:

- L1 adds the absolute values of the weights to the loss, which drives many of them to zero;
- L2 adds their squares, which keeps all of them small;
- dropout switches off a random part of the units in each step, so that no unit can rely on another;
- early stopping ends training when the validation error no longer falls, and takes the weights of the best epoch.

The validation rows decide everything; the test rows are looked at once, at the end. Two rivals that are no networks
stand in the table too: linear regression, and always answering the mean. On diabetes, which is close to linear, linear
regression beats the large network by far, and the best remedies are ahead of it by a few percent, on 89 patients.
California has thousands of rows and shows it all clearly.

By default this reads scikit-learn's diabetes data, 442 patients, and takes less than a minute. ``--data california``,
20640 districts, takes about two. ``--data random`` is the smoke run of other libraries, one layer of 64 units on 1000
random points: inputs and targets have nothing to do with each other, so that all there is to learn is the mean, and the
loss falls towards the variance of the targets, 0.083.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import files
import jax
import numpy as np
import optax
from sklearn.linear_model import LinearRegression

import fnn
import fnn.plot


class Variant(NamedTuple):
    """A network and what is done against overfitting: nothing by default."""

    hidden: tuple[int, ...]
    l1: float = 0.0
    l2: float = 0.0
    dropout: float = 0.0
    patience: int | None = None


class Setting(NamedTuple):
    """What suits one data set."""

    target: str
    batch_size: int
    learning_rate: float
    variants: Mapping[str, Variant]


# The strengths of the remedies had the lowest validation errors of the three or four that were tried.
SETTINGS = {
    "diabetes": Setting(
        "progression of diabetes", 32, 1e-3,
        {
            "small": Variant((1,)),
            "large": Variant((64, 64)),
            "large, L1": Variant((64, 64), l1=3e-2),
            "large, L2": Variant((64, 64), l2=1e-1),
            "large, dropout": Variant((64, 64), dropout=0.5),
            "large, early stopping": Variant((64, 64), patience=20),
        },
    ),
    "california": Setting(
        "house value in 100 000 dollars", 256, 3e-3,
        {
            "small": Variant((1,)),
            "large": Variant((128, 128)),
            "large, L1": Variant((128, 128), l1=3e-4),
            "large, L2": Variant((128, 128), l2=3e-4),
            "large, dropout": Variant((128, 128), dropout=0.2),
            "large, early stopping": Variant((128, 128), patience=20),
        },
    ),
}  # fmt: skip


def network(hidden: tuple[int, ...], dropout: float = 0.0) -> fnn.Layer:
    """Hidden layers with ReLU, followed by dropout where that is wanted, and one number out."""
    layers = []
    for features in hidden:
        layers += [fnn.dense(features), jax.nn.relu] + ([fnn.dropout(dropout)] if dropout else [])
    return fnn.serial(*layers, fnn.dense(1))


def penalty(variant: Variant) -> Callable[[Any], jax.Array] | None:
    """What the weights cost beside their errors. Biases cost nothing."""
    if variant.l1:
        return lambda params: variant.l1 * fnn.l1(params, "*kernel")
    if variant.l2:
        return lambda params: variant.l2 * fnn.l2(params, "*kernel")
    return None


class Rows(NamedTuple):
    """Pairs of inputs and targets; each column has mean 0 and variance 1 over the training rows.

    Attributes:
        train: What is learned from.
        validation: What decides.
        test: What is looked at once.
        center: Mean of the targets of the training rows, before.
        scale: Their standard deviation.
    """

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    center: float
    scale: float

    def errors(self, predict: Callable[[np.ndarray], Any]) -> list[float]:
        """Roots of the mean squared errors on training, validation and test rows, in the units of the target."""
        return [self.scale * float(np.sqrt(np.mean((np.asarray(predict(x)) - y) ** 2))) for x, y in self[:3]]


def split(table: datasets.Dataset, examples: int | None = None) -> Rows:
    """Hold out a quarter of the training rows for validation, as many as there are test rows, and standardize."""
    x, y, x_test, y_test = (part[:examples] for part in table[:4])
    held_out = len(x) // 4
    x_train, y_train = x[held_out:], y[held_out:]
    center, scale = float(y_train.mean()), float(y_train.std())
    pairs = ((x_train, y_train), (x[:held_out], y[:held_out]), (x_test, y_test))
    scaled = [((x - x_train.mean(0)) / x_train.std(0), (y - center) / scale) for x, y in pairs]
    return Rows(*scaled, center=center, scale=scale)


def train(
    variant: Variant, setting: Setting, rows: Rows, epochs: int, key: jax.Array
) -> tuple[fnn.Layer, fnn.TrainState, dict[str, np.ndarray]]:
    """Train one variant; the history it returns is in the units of the target."""
    net, optimizer = network(variant.hidden, variant.dropout), optax.adam(setting.learning_rate)
    objective = fnn.supervised(net, optax.losses.squared_error, penalty=penalty(variant))
    rule = fnn.early_stopping(variant.patience, minimize="validation/loss") if variant.patience else None
    run, history = fnn.fit(
        objective, optimizer, fnn.train_init(net, optimizer, key, rows.train[0]), rows.train,
        batch_size=min(setting.batch_size, len(rows.train[0])), epochs=epochs, validation=rows.validation,
        early_stopping=rule, progress=False,
    )  # fmt: skip
    in_units = {name: rows.scale * np.sqrt(history[f"{name}loss"]) for name in ("", "validation/")}
    return net, run, {f"{name}error": values for name, values in in_units.items()}


def fit_random_points(epochs: int, seed: int) -> float:
    """The smoke run: a loss for each epoch, of which the last is returned."""
    draw = np.random.default_rng(seed)
    x, y = draw.random((1000, 10), np.float32), draw.random((1000, 1), np.float32)
    net, optimizer = network((64,)), optax.adam(1e-3)
    objective = fnn.supervised(net, optax.losses.squared_error)
    run = fnn.train_init(net, optimizer, jax.random.key(seed), x)
    run, history = fnn.fit(objective, optimizer, run, (x, y), batch_size=32, epochs=epochs)
    return float(history["loss"][-1])


def main(
    data: str = "diabetes",
    *,
    epochs: int | None = None,
    seed: int = 0,
    output: str | Path = "outputs/regression",
    examples: int | None = None,
) -> float:
    """Train every variant, print the table, and save two pictures.

    The errors of the table are those at the end of training; with early stopping, those of the best epoch. The training
    curves in the picture are measured while it trains, so that dropout makes them higher than they would be without.

    Args:
        data: ``"diabetes"``, ``"california"`` or ``"random"``.
        epochs: Passes over the training rows; None: 200, of random points 10.
        seed: Decides all that is random.
        output: Folder of the pictures.
        examples: Use only so many rows for training and for testing, for a quick look.

    Returns:
        The test error, a root mean square, of the variant that validation chose; of random points the last loss.
    """
    if data == "random":
        return fit_random_points(epochs or 10, seed)

    setting, rows = SETTINGS[data], split(datasets.load(data), examples)
    x, y = rows.train
    sizes = [len(part[0]) for part in rows[:3]]
    print(f"{data}: {sizes[0]} rows to train on, {sizes[1]} to choose by, {sizes[2]} to test, {x.shape[1]} columns")
    print(f"root mean squared errors, {setting.target}:")
    print(f"{'variant':22}{'parameters':>11}{'best epoch':>13}{'train':>9}{'validation':>12}{'test':>9}")

    def show(name: str, parameters: int, best: str, errors: list[float]) -> None:
        numbers = [f"{error:.4g}" for error in errors]
        print(f"{name:22}{parameters:11}{best:>13}{numbers[0]:>9}{numbers[1]:>12}{numbers[2]:>9}", flush=True)

    linear = LinearRegression().fit(x, y)
    show("mean", 1, "", rows.errors(lambda x: 0.0))
    show("linear regression", x.shape[1] + 1, "", rows.errors(linear.predict))
    errors, histories, predictors = {}, {}, {}
    for name, variant in setting.variants.items():
        net, run, histories[name] = train(variant, setting, rows, epochs or 200, jax.random.key(seed))
        predictors[name] = partial(fnn.predict, net, run.params, run.state)
        errors[name] = rows.errors(predictors[name])
        watched = histories[name]["validation/error"]
        show(name, fnn.count(run.params), f"{watched.argmin() + 1} of {len(watched)}", errors[name])
    chosen = min(errors, key=lambda name: errors[name][1])

    curves = fnn.plot.comparison(histories, "error")
    for panel, history in zip(curves.axes, histories.values()):
        panel.axvline(history["validation/error"].argmin() + 1, color="gray", linestyle=":", label="best epoch")
    curves.axes[0].legend(frameon=False)
    x_test, y_test = rows.test[0], rows.scale * rows.test[1] + rows.center
    answers = rows.scale * np.asarray(predictors[chosen](x_test)) + rows.center
    scatter = fnn.plot.predictions(y_test, answers, name=setting.target)
    scatter.axes[0].set_title(f"{chosen}, test rows")
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    curves.savefig(folder / f"{data}_curves.png", dpi=150)
    scatter.savefig(folder / f"{data}_predictions.png", dpi=150)
    print(f"pictures: {folder}/{data}_curves.png, {data}_predictions.png")

    print(f"chosen by validation: {chosen}, test error {errors[chosen][2]:.4g}")
    return errors[chosen][2]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="diabetes", choices=[*SETTINGS, "random"])
    parser.add_argument("--epochs", type=int, help="passes over the training rows (default: 200, of random points 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/regression", help="folder of the pictures")
    parser.add_argument("--examples", type=int, help="use only so many rows, for a quick look")
    arguments = vars(parser.parse_args())
    try:
        main(arguments.pop("data"), **arguments)
    except files.DatasetError as error:
        sys.exit(str(error))
