"""How good is a network on rows that it has not seen? Three ways to ask a small table, each row of it held out once.

- k-fold: the rows are cut into ten parts, and ten networks are trained, each without one part. The mean of their
  accuracies on the parts that they did not see is printed beside that of scikit-learn's ``MLPClassifier``, trained by
  ``cross_val_score`` on the very same folds with the same layers, penalty and number of epochs: it should be the same
  within noise.
- Leave-one-out, with ``--leave-one-out``: as many networks as rows, each trained on all rows but one.
- Nested: who tries many configurations and reports the accuracy of the best has chosen by the rows that the accuracy is
  measured on, and reports too much. So each of five outer folds chooses by a study of its own, on inner folds of the
  rows that it trains on, and its choice is measured on the rows that had no part in it.

What is learned from rows must be learned within the fold, scaling too. Pixels have a known range and are divided by it;
the columns of the tables are brought to mean 0 and variance 1 by `fnn.batch_norm` as the first layer, whose statistics
are those of the rows it is trained on, as scikit-learn's pipeline fits its ``StandardScaler`` in each fold anew.

All networks of a study are trained by one compiled program. By default this reads the UCI digits; ``--data`` reads
iris, wine or breast_cancer, which scikit-learn brings along too.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fnn
import fnn.plot

BATCH_SIZE = 32
OUTER, INNER = 5, 4  # folds of nested cross-validation
PLAIN = {"learning_rate": 1e-3, "alpha": 1e-4}  # the defaults of MLPClassifier


class Table(NamedTuple):
    """Rows to classify.

    Attributes:
        x: ``(rows, columns)``, float32.
        y: Class numbers ``(rows,)``.
        classes: Their names.
        scaled: Whether the columns are on one scale already.
    """

    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    scaled: bool


def load(name: str) -> Table:
    """A table of scikit-learn's; pixels of digits come in 17 shades."""
    found: Any = getattr(datasets, f"load_{name}")()
    digits = name == "digits"
    x = (found.data / (16 if digits else 1)).astype(np.float32)
    return Table(x, found.target.astype(np.int32), tuple(map(str, found.target_names)), digits)


def trial_of(table: Table, hidden: int) -> Callable[[dict[str, Any]], Any]:
    """The trial of all studies here: what MLPClassifier trains, with a learning rate and a penalty that may vary."""
    loss = optax.losses.softmax_cross_entropy_with_integer_labels
    first = [] if table.scaled else [fnn.batch_norm(momentum=0.97, scale=False, bias=False)]

    def trial(hp: dict[str, Any]) -> Any:
        net = fnn.serial(*first, fnn.dense(hidden), jax.nn.relu, fnn.dense(len(table.classes)))
        penalty = lambda params: hp["alpha"] / (2 * BATCH_SIZE) * fnn.l2(params, "*kernel")
        objective = fnn.supervised(net, loss, metrics={"accuracy": fnn.accuracy}, penalty=penalty)
        return net, objective, optax.adam(hp["learning_rate"])

    return trial


def steps_of(rows: int, epochs: int) -> int:
    """Steps of so many passes over the rows; a batch that is not full counts, as it does in scikit-learn."""
    return epochs * -(-rows // BATCH_SIZE)


def k_fold(table: Table, folds: Any, hidden: int, epochs: int, key: jax.Array) -> fnn.StudyResult:
    """One network for each fold, measured at the end: its best step would be chosen by the rows that are held out."""
    rows = len(table.y) * (folds.n_splits - 1) // folds.n_splits
    return fnn.study(
        trial_of(table, hidden), [PLAIN], data=(table.x, table.y), folds=folds, steps=steps_of(rows, epochs),
        batch_size=BATCH_SIZE, maximize="validation/accuracy", at="last", keep=0, predictions=True, key=key,
    )  # fmt: skip


def scikit_learn(table: Table, folds: Any, hidden: int, epochs: int, seed: int) -> np.ndarray:
    """The accuracy in each fold of scikit-learn's network."""
    network = MLPClassifier(
        (hidden,), learning_rate_init=PLAIN["learning_rate"], alpha=PLAIN["alpha"], batch_size=BATCH_SIZE,
        max_iter=epochs, n_iter_no_change=epochs, random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it trains for as many epochs as ours, and then stops
        model = network if table.scaled else make_pipeline(StandardScaler(), network)
        return cross_val_score(model, table.x, table.y, cv=folds)


def leave_one_out(table: Table, hidden: int, epochs: int, key: jax.Array) -> fnn.StudyResult:
    """As many networks as rows; each is right or wrong on the one row that it has not seen."""
    return fnn.study(
        trial_of(table, hidden), [PLAIN], data=(table.x, table.y), folds=fnn.leave_one_out(),
        steps=steps_of(len(table.y) - 1, epochs), batch_size=BATCH_SIZE,
        maximize="validation/accuracy", at="last", keep=0, predictions=True, key=key,
    )  # fmt: skip


class Nested(NamedTuple):
    """What nested cross-validation found.

    Attributes:
        chosen: The configuration that each outer fold chose.
        inside: Its accuracy on the inner folds that it was chosen by, ``(outer folds,)``.
        held_out: Its accuracy on the rows that the outer fold holds out, likewise.
        peeked: Accuracies on the outer folds of the one configuration that is the best on them.
    """

    chosen: list[dict[str, float]]
    inside: np.ndarray
    held_out: np.ndarray
    peeked: np.ndarray


def nested_folds(y: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each outer fold, followed by the inner folds of the rows that it trains on."""
    split = lambda folds, y: StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y)
    pairs = []
    for train, held_out in split(OUTER, y):
        pairs.append((train, held_out))
        pairs += [(train[inner], train[inner_held_out]) for inner, inner_held_out in split(INNER, y[train])]
    return pairs


def nested(table: Table, trials: int, hidden: int, epochs: int, seed: int) -> Nested:
    """Choose among configurations in each outer fold, and measure the choice on the rows that it holds out.

    All configurations are trained on all outer and inner folds, as one study: inner folds choose, and what was chosen
    has then been trained on the rows of its outer fold already.
    """
    result = fnn.study(
        trial_of(table, hidden),
        fnn.sobol({"learning_rate": fnn.log_uniform(1e-4, 3e-2), "alpha": fnn.log_uniform(1e-4, 1e1)}),
        trials=trials, data=(table.x, table.y), folds=nested_folds(table.y, seed),
        steps=steps_of(len(table.y) * (OUTER - 1) // OUTER, epochs), batch_size=BATCH_SIZE,
        maximize="validation/accuracy", at="last", keep=0, key=jax.random.key(seed),
    )  # fmt: skip
    accuracies = result.values().reshape(trials, OUTER, 1 + INNER)
    outer, inner = accuracies[:, :, 0], accuracies[:, :, 1:].mean(axis=2)
    chosen, every = inner.argmax(axis=0), np.arange(OUTER)
    best = outer.mean(axis=1).argmax()
    return Nested([result.configurations[n] for n in chosen], inner[chosen, every], outer[chosen, every], outer[best])


def confusion(table: Table, result: fnn.StudyResult) -> np.ndarray:
    """How often each class was taken for each other, by networks that had not seen the row."""
    assert result.predictions is not None
    logits, target = jnp.asarray(result.predictions[0, 0]), jnp.asarray(table.y)
    return np.asarray(fnn.confusion_matrix(len(table.classes))(logits, target))


def show(name: str, found: fnn.Interval, note: str = "") -> None:
    """A row of the table. Accuracies of folds are not independent, so that the intervals are a little too narrow."""
    print(f"{name:34}{found.mean:>9.4f}{found.low:>11.4f} to {found.high:.4f}  {note}", flush=True)


def main(
    data: str = "digits",
    *,
    folds: int = 10,
    leave_one_out_rows: int | None = None,
    trials: int = 16,
    hidden: int = 64,
    epochs: int | None = None,
    seed: int = 0,
    output: str | Path = "outputs/cross_validation",
) -> dict[str, float]:
    """Run the three, print what they found, and save the confusion matrix.

    Args:
        data: ``"digits"``, ``"iris"``, ``"wine"`` or ``"breast_cancer"``.
        folds: How many for the comparison with scikit-learn.
        leave_one_out_rows: Of how many rows each is left out once; 0: all of them; None: skip this.
        trials: Configurations that nested cross-validation chooses from; 0: skip this.
        hidden: Width of the hidden layer.
        epochs: Passes over the rows that a network is trained on; None: 30 of digits, 200 of the others.
        seed: Decides all that is random.
        output: Folder of the picture.

    Returns:
        The accuracies by name.
    """
    table, key = load(data), jax.random.key(seed)
    epochs = epochs or (30 if data == "digits" else 200)
    print(f"{data}: {len(table.y)} rows, {table.x.shape[1]} columns, {len(table.classes)} classes")
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    began = time.perf_counter()
    result = k_fold(table, splitter, hidden, epochs, key)
    between = time.perf_counter()
    theirs = scikit_learn(table, splitter, hidden, epochs, seed)
    taken = time.perf_counter()
    print(f"{'':34}{'accuracy':>9}{'95% interval':>19}")
    ours = result.values()
    show(f"{folds} folds, fnn", fnn.interval(ours), f"{between - began:.1f} s with compilation")
    show(f"{folds} folds, scikit-learn", fnn.interval(theirs), f"{taken - between:.1f} s")
    ahead = fnn.compare(ours, theirs)
    note = f"p = {ahead.p_value:.2f}"
    show("difference in the same folds", fnn.Interval(ahead.difference, ahead.low, ahead.high, ahead.size), note)
    accuracies = {"fnn": float(ours.mean()), "scikit-learn": float(theirs.mean())}

    if leave_one_out_rows is not None:
        rows = np.random.default_rng(seed).permutation(len(table.y))[: leave_one_out_rows or None]
        began = time.perf_counter()
        some = leave_one_out(table._replace(x=table.x[rows], y=table.y[rows]), hidden, epochs, key)
        show(f"leave one of {len(rows)} out", fnn.interval(some.values()), f"{time.perf_counter() - began:.0f} s")
        accuracies["leave one out"] = float(some.values().mean())

    if trials:
        print(f"nested: {OUTER} outer folds choose among {trials} configurations, each by {INNER} inner folds")
        found = nested(table, trials, hidden, epochs, seed)
        for number, (configuration, inside, held_out) in enumerate(zip(*found[:3])):
            listed = ", ".join(f"{name} {value:.2g}" for name, value in configuration.items())
            print(f"  fold {number} chose {listed}: {inside:.4f} inside, {held_out:.4f} held out")
        show("nested", fnn.interval(found.held_out))
        show("not nested", fnn.interval(found.peeked), "chosen by the rows that it is measured on")
        accuracies |= {"nested": float(found.held_out.mean()), "not nested": float(found.peeked.mean())}

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    fnn.plot.confusion(confusion(table, result), table.classes).savefig(folder / f"{data}_confusion.png", dpi=150)
    print(f"picture: {folder}/{data}_confusion.png, rows that the network had not seen")
    return accuracies


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", choices=["digits", "iris", "wine", "breast_cancer"])
    parser.add_argument("--folds", type=int, default=10, help="for the comparison with scikit-learn (default: 10)")
    parser.add_argument(
        "--leave-one-out", type=int, nargs="?", const=0, metavar="ROWS", dest="leave_one_out_rows",
        help="leave each of so many rows out once; all rows where no number is given",
    )  # fmt: skip
    parser.add_argument("--trials", type=int, default=16, help="of nested cross-validation; 0 skips it (default: 16)")
    parser.add_argument("--hidden", type=int, default=64, help="width of the hidden layer (default: 64)")
    parser.add_argument("--epochs", type=int, help="passes over the rows (default: 30 of digits, 200 of others)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/cross_validation", help="folder of the picture")
    arguments = vars(parser.parse_args())
    main(arguments.pop("data"), **arguments)
