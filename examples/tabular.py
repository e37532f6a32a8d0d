"""Predict a number from a table, and say how sure the prediction is.

Most data of the world is tables: some columns of numbers, some of categories. A category, such as the country where a
car was made, has no order, so the network looks up a vector for it, an embedding, which is learned like all weights.
The numbers and this vector go through a residual MLP: blocks of two dense layers that each add something to what comes
in.

The network answers with two numbers, a mean and a standard deviation, and learns both by making the true value
probable. An answer is worth something if its intervals can be trusted: of intervals that should hold 90 % of the true
values, 90 % must. That is calibration, and it is measured here on rows that were held out.

The hyperparameters are chosen by cross-validation on the training rows. The five networks of the best configuration,
one for each fold, then answer together. Linear regression and gradient boosting, the usual choice for tables, get the
same rows and the same folds.

``--data auto-mpg`` (the default) are 392 cars, ``wine`` 5320 wines, ``california`` 20640 districts.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import files
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tables
from forecasts import LEVELS, Forecast, draw_calibration, draw_predictions, normal
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.preprocessing import QuantileTransformer
from threadpoolctl import threadpool_limits

import fnn
import fnn.plot

FOLDS = KFold(5, shuffle=True, random_state=0)
BOOSTING = [
    {"learning_rate": [0.03, 0.1], "max_leaf_nodes": [8], "min_samples_leaf": [5]},
    {"learning_rate": [0.03, 0.1], "max_leaf_nodes": [31], "min_samples_leaf": [20]},
]
TREES = 300


class Setting(NamedTuple):
    """How one data set is learned: the sizes of the network and of the study."""

    width: int
    blocks: int
    batch_size: int
    steps: int
    trials: int


SETTINGS = {
    "auto-mpg": Setting(64, 2, 32, 1000, 32),
    "wine": Setting(64, 2, 64, 2000, 16),
    "california": Setting(64, 2, 128, 4000, 9),
}
SPACE = {
    "learning_rate": fnn.log_uniform(3e-4, 1e-2),
    "dropout": fnn.uniform(0.0, 0.5),
    "weight_decay": fnn.log_uniform(1e-3, 1e0),
    "beta": fnn.uniform(0.0, 1.0),
}


def network(categories: int, setting: Setting, dropout: Any) -> fnn.Layer:
    """A residual MLP of numbers and the vector of a category; two numbers out: the mean, and how sure it is."""
    block = fnn.residual(
        fnn.serial(
            fnn.layer_norm(), fnn.dense(2 * setting.width), jax.nn.relu, fnn.dropout(dropout), fnn.dense(setting.width)
        )
    )

    def forward(f: Any, numbers: jax.Array, category: jax.Array) -> jax.Array:
        row = jnp.concatenate([numbers, f.category(category)], -1)
        return f.head(f.blocks(f.stem(row)))

    return fnn.wire(
        forward,
        category=fnn.embedding(categories, 4),
        stem=fnn.dense(setting.width),
        blocks=fnn.stack(block, setting.blocks),
        head=fnn.serial(fnn.layer_norm(), jax.nn.relu, fnn.dense(2)),
    )


def mean_and_deviation(y: Any) -> tuple[Any, Any]:
    """What the two outputs say. A deviation is positive, and never so small that one row outweighs all others."""
    return y[..., 0], 0.01 + jax.nn.softplus(y[..., 1])


def negative_log_likelihood(y: jax.Array, target: jax.Array) -> jax.Array:
    """How improbable the true value is, in nats."""
    return -jax.scipy.stats.norm.logpdf(target[..., 0], *mean_and_deviation(y))


def tempered(beta: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The same, weighted by the variance to the power of ``beta``, which is not learned from.

    The gradient of the mean is divided by the variance: rows that seem uncertain early are hardly learned from. Beta
    takes that back, partly, or wholly at 1 (Seitzer et al., On the pitfalls of heteroscedastic uncertainty estimation,
    2022, arXiv:2203.09168).
    """

    def loss(y: jax.Array, target: jax.Array) -> jax.Array:
        variance = jax.lax.stop_gradient(mean_and_deviation(y)[1]) ** 2
        return variance**beta * negative_log_likelihood(y, target)

    return loss


class Rows(NamedTuple):
    """Rows as the network wants them: every column near a normal distribution, by the training rows."""

    x: tuple[np.ndarray, np.ndarray]
    x_test: tuple[np.ndarray, np.ndarray]
    y: np.ndarray
    center: float
    scale: float


def prepare(data: tables.Tables) -> Rows:
    """Spread every column like a normal distribution, which leaves no outliers, and standardize the target."""
    spread = QuantileTransformer(
        n_quantiles=min(1000, len(data.train.numbers)), output_distribution="normal", random_state=0
    ).fit(data.train.numbers)
    inputs = lambda part: (spread.transform(part.numbers).astype(np.float32), part.category)
    center, scale = float(data.train.target.mean()), float(data.train.target.std())
    return Rows(inputs(data.train), inputs(data.test), (data.train.target - center) / scale, center, scale)


def search(data: tables.Tables, rows: Rows, setting: Setting, seed: int) -> fnn.StudyResult:
    """Cross-validate configurations of the network; the least negative log-likelihood is best."""

    def trial(hp: dict[str, Any]) -> Any:
        net = network(len(data.categories), setting, hp["dropout"])
        objective = fnn.supervised(
            net, tempered(hp["beta"]), metrics={"nll": negative_log_likelihood}, inputs=lambda x: x
        )
        rate = optax.cosine_decay_schedule(hp["learning_rate"], setting.steps)
        return net, objective, optax.adamw(rate, weight_decay=hp["weight_decay"])

    return fnn.study(
        trial, fnn.sobol(SPACE), trials=setting.trials, data=(rows.x, rows.y), folds=FOLDS, steps=setting.steps,
        batch_size=setting.batch_size, minimize="validation/nll", predictions=True, key=jax.random.key(seed),
    )  # fmt: skip


def together(result: fnn.StudyResult, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the five networks' mixture, in the units of the target.

    Its variance is the mean of theirs and, since they disagree, the variance of their means.
    """
    five = result.ensemble(join=lambda *ys: jnp.stack(ys, 1))
    means, deviations = (np.asarray(part) for part in mean_and_deviation(fnn.predict(*five, *rows.x_test)))
    deviation = np.sqrt((deviations**2).mean(1) + means.var(1))
    return rows.scale * means.mean(1) + rows.center, rows.scale * deviation


def rivals(data: tables.Tables) -> tuple[dict[str, float], dict[str, Forecast]]:
    """Root mean squared errors in cross-validation, and forecasts for the test rows, of the methods to compare with.

    Linear regression and gradient boosting get intervals of one width for all rows, as wide as their errors in
    cross-validation are. Boosted quantiles are fitted once for each end of each interval, with the loss whose minimum
    is a quantile, and differ in width.
    """
    y = data.train.target[:, 0]
    one_hot = lambda part: np.hstack([part.numbers, np.eye(len(data.categories))[part.category]])
    with_code = lambda part: np.column_stack([part.numbers, part.category])
    error = lambda predicted: float(np.sqrt(np.mean((predicted - y) ** 2)))

    errors = {"linear regression": error(cross_val_predict(LinearRegression(), one_hot(data.train), y, cv=FOLDS))}
    linear = LinearRegression().fit(one_hot(data.train), y)
    forecasts = {"linear regression": normal(linear.predict(one_hot(data.test)), errors["linear regression"])}

    x, x_test = with_code(data.train), with_code(data.test)
    options = {"categorical_features": [x.shape[1] - 1], "max_iter": TREES, "early_stopping": False, "random_state": 0}
    found = GridSearchCV(
        HistGradientBoostingRegressor(**options), BOOSTING, cv=FOLDS, scoring="neg_mean_squared_error"
    ).fit(x, y)
    errors["gradient boosting"] = float(np.sqrt(-found.best_score_))
    options |= found.best_params_

    def quantiles(shares: np.ndarray) -> np.ndarray:
        fits = (HistGradientBoostingRegressor(loss="quantile", quantile=share, **options) for share in shares)
        return np.stack([fit.fit(x, y).predict(x_test) for fit in fits])

    mean = found.predict(x_test)
    forecasts["gradient boosting"] = normal(mean, errors["gradient boosting"])
    errors["boosted quantiles"] = errors["gradient boosting"]
    forecasts["boosted quantiles"] = Forecast(mean, quantiles(0.5 - LEVELS / 2), quantiles(0.5 + LEVELS / 2))
    return errors, forecasts


def main(
    data: str = "auto-mpg",
    *,
    trials: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    output: str | Path = "outputs/tabular",
    rows: int | None = None,
) -> dict[str, dict[str, float]]:
    """Choose a configuration, test it beside its rivals, print the table, and save three pictures.

    Args:
        data: ``"auto-mpg"``, ``"wine"`` or ``"california"``.
        trials: How many configurations; None: as many as suit the data.
        steps: Steps of a training; None: as many as suit the data.
        seed: Decides all that is random.
        output: Folder of the pictures.
        rows: Use only so many rows for training and for testing, for a quick look.

    Returns:
        For each method its measurements on the test rows.
    """
    split = tables.load(data)
    cut = lambda part: tables.Table(*(column[:rows] for column in part))
    split = split._replace(train=cut(split.train), test=cut(split.test))
    setting = SETTINGS[data]
    setting = setting._replace(trials=trials or setting.trials, steps=steps or setting.steps)
    sizes = f"{len(split.train.target)} rows to train on and to choose by, {len(split.test.target)} to test"
    print(f"{data}: {sizes}, {len(split.columns)} numbers and a category of {len(split.categories)}")

    prepared = prepare(split)
    result = search(split, prepared, setting, seed)
    print(result)
    best = result.best()
    guesses = result.predictions[best.trial, 0, :, 0]
    with threadpool_limits(1):  # on a busy machine the trees' threads mostly wait for each other
        validation, forecasts = rivals(split)
    validation["five networks"] = prepared.scale * float(np.sqrt(np.mean((guesses - prepared.y[:, 0]) ** 2)))
    mean, deviation = together(result, prepared)
    forecasts["five networks"] = normal(mean, deviation)

    target = split.test.target[:, 0]
    measured = {name: forecast.measure(target) for name, forecast in forecasts.items()}
    print(f"\n{split.target}; intervals of 90 %: their width, and their score, where less is better")
    print(f"{'method':20}{'validation':>11}" + "".join(f"{name:>9}" for name in measured["five networks"]))
    for name, values in measured.items():
        print(f"{name:20}{validation[name]:11.4g}" + "".join(f"{value:9.4g}" for value in values.values()))

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in {
        "calibration": draw_calibration(forecasts, "five networks", target, deviation, split.target),
        "predictions": draw_predictions("five networks", forecasts["five networks"], target, split.target),
        "slices": fnn.plot.slices(result),
    }.items():
        figure.savefig(folder / f"{data}_{name}.png", dpi=150)
    print(f"pictures: {folder}/{data}_calibration.png, {data}_predictions.png, {data}_slices.png")
    return measured


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="auto-mpg", choices=tables.NAMES)
    parser.add_argument("--trials", type=int, help="configurations (default: as many as suit the data)")
    parser.add_argument("--steps", type=int, help="of a training (default: as many as suit the data)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/tabular", help="folder of the pictures")
    parser.add_argument("--rows", type=int, help="use only so many rows, for a quick look")
    arguments = vars(parser.parse_args())
    try:
        main(arguments.pop("data"), **arguments)
    except files.DatasetError as error:
        sys.exit(str(error))
