"""Say what a text is about: spam or not, or which of 77 things a customer wants from the bank.

A text is cut into pieces of words, each piece is a number, and each number has a vector that is learned. What reads the
vectors must know their order: "not good but cheap" is not "good but not cheap". For text messages that is an LSTM,
which runs over them once from each end; for BANKING77 a small transformer, in which every piece looks at all others.
What was found at all pieces is joined (the largest value of the LSTM, the mean of the transformer), and a dense layer
gives a score for each class. Texts differ in length: shorter ones are filled up with padding, and the lengths, which
are a second input, keep the padding out of all that is computed.

Beside it stands the method to beat: how often each word and pair of words occurs, weighted by how rare it is (TF-IDF),
and logistic regression on that, which knows nothing of order. Both learn from the same texts, both make their choices
on the same validation texts, and the test set is looked at once, at the end.

By default this reads the SMS Spam Collection; ``--data banking77`` reads the bank's. ``--text "Free entry!"`` says what
a text of your own is taken for.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import files
import jax
import jax.numpy as jnp
import numpy as np
import optax
import sentences
from matplotlib.figure import Figure
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.pipeline import make_pipeline

import fnn
import fnn.plot

BASELINE = "TF-IDF + logistic regression"
SHOWN = 5  # test texts that are printed, and errors
PAIRS = 12  # pairs of classes that are taken for each other most often


class Setting(NamedTuple):
    """What is usual for a data set: the size of the vocabulary, the longest text, width, dropout, rate, epochs."""

    vocabulary: int
    length: int
    features: int
    rate: float
    learning_rate: float
    epochs: int


SETTINGS = {
    "sms": Setting(2000, 64, 48, 0.3, 3e-3, 10),
    "banking77": Setting(2000, 32, 96, 0.2, 2e-3, 20),
}


def lstm(vocabulary: int, classes: int, features: int, rate: float) -> fnn.Layer:
    """An LSTM from each end, and the largest value of each feature over the real pieces."""

    def forward(f: Any, ids: jax.Array, lengths: jax.Array) -> jax.Array:
        h = f.both_ways(f.drop(f.embedding(ids)), lengths)
        real = jnp.arange(ids.shape[1]) < lengths[:, None]
        return f.head(f.drop(jnp.where(real[..., None], h, -jnp.inf).max(axis=1)))

    return fnn.wire(
        forward, embedding=fnn.embedding(vocabulary, features), both_ways=fnn.bidirectional(fnn.lstm_cell(features)),
        drop=fnn.dropout(rate), head=fnn.dense(classes),
    )  # fmt: skip


def transformer(vocabulary: int, classes: int, features: int, rate: float) -> fnn.Layer:
    """Two blocks of attention, and the mean of each feature over the real pieces."""

    def forward(f: Any, ids: jax.Array, lengths: jax.Array) -> jax.Array:
        h = f.encoder(f.drop(f.positions(f.embedding(ids))), lengths)
        real = jnp.arange(ids.shape[1]) < lengths[:, None]
        return f.head(f.drop((h * real[..., None]).sum(axis=1) / lengths[:, None]))

    return fnn.wire(
        forward, embedding=fnn.embedding(vocabulary, features), positions=fnn.learned_positions(64),
        encoder=fnn.encoder(blocks=2, heads=4, hidden=2 * features, rate=rate), drop=fnn.dropout(rate),
        head=fnn.dense(classes),
    )  # fmt: skip


NETWORKS = {"sms": lstm, "banking77": transformer}


def train(
    data: sentences.Labelled, tokens: sentences.Tokens, net: fnn.Layer, setting: Setting, epochs: int, seed: int
) -> tuple[fnn.TrainState, Any]:
    """Train with Adam, and keep the epoch with the best F1 on the validation texts."""
    rows = [encoded(tokens, part.texts, setting.length) for part in data[:2]]
    loss = optax.losses.softmax_cross_entropy_with_integer_labels
    objective = fnn.supervised(
        net, loss, metrics={"accuracy": fnn.accuracy, "f1": fnn.f1(len(data.classes))}, inputs=lambda x: x
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(setting.learning_rate))
    run = fnn.train_init(net, optimizer, jax.random.key(seed), *rows[0])
    return fnn.fit(
        objective, optimizer, run, (rows[0], data.train.labels), epochs=epochs,
        batch_size=min(64, len(data.train.texts)), validation=(rows[1], data.validation.labels),
        early_stopping=fnn.early_stopping(patience=epochs, maximize="validation/f1"),
    )  # fmt: skip


def encoded(tokens: sentences.Tokens, texts: list[str], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and lengths, the network's two inputs."""
    return sentences.padded(tokens.encode(texts), length)


def baseline(data: sentences.Labelled) -> tuple[float, np.ndarray]:
    """TF-IDF and logistic regression: accuracy on the validation texts, and the classes of the test texts.

    How much it is regularized is chosen on the validation texts.
    """
    fitted = []
    for strength in (1.0, 10.0, 100.0):
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        model = make_pipeline(words, LogisticRegression(C=strength, max_iter=1000))
        model.fit(data.train.texts, data.train.labels)
        fitted.append((float(model.score(data.validation.texts, data.validation.labels)), model))
    score, model = max(fitted, key=lambda pair: pair[0])
    return score, model.predict(data.test.texts)


def scores(counts: np.ndarray) -> tuple[float, float]:
    """Accuracy, and F1: of the second class where there are two, else the mean over the classes."""
    hits = np.diag(counts)
    f1 = 2 * hits / np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)
    return float(hits.sum() / counts.sum()), float(f1[1] if len(f1) == 2 else f1.mean())


def most_confused(counts: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of a true class and another that it is taken for most often."""
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    return [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, wrong.shape)) if wrong[row, column]]


def confused_pairs(counts: dict[str, np.ndarray], classes: tuple[str, ...]) -> Figure:
    """Bars of the pairs that the first method confuses most, with what the other one makes of them."""
    pairs = most_confused(next(iter(counts.values())))[::-1]
    figure = Figure(figsize=(8.5, 0.9 + 0.42 * max(len(pairs), 2)), layout="constrained")
    axes = figure.add_subplot()
    places, height = np.arange(len(pairs)), 0.38
    for number, (name, matrix) in enumerate(counts.items()):
        values = [matrix[pair] for pair in pairs]
        axes.barh(places + (0.5 - number) * height, values, height, label=name, color=("tab:blue", "silver")[number])
    axes.set_yticks(places, [f"{classes[true]}\ntaken for {classes[taken]}" for true, taken in pairs], fontsize=7)
    axes.set(xlabel="test texts", title="The pairs of intents that are confused most often")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def main(
    data: str = "sms",
    *,
    epochs: int | None = None,
    text: str | None = None,
    seed: int = 0,
    output: str | Path = "outputs/text_classification",
    examples: int | None = None,
) -> dict[str, tuple[float, float]]:
    """Train, test both methods once, say what a few texts are taken for, and save two pictures.

    Args:
        data: ``"sms"`` or ``"banking77"``.
        epochs: Passes over the training texts; None: 10 of sms, 20 of banking77.
        text: A text to classify at the end.
        seed: Decides all that is random, but for the split.
        output: Folder of the pictures.
        examples: Learn from so many texts only, for a quick look.

    Returns:
        By method accuracy and F1 on the test set: F1 of spam, or the mean of all intents.
    """
    labelled = sentences.LABELLED[data]()
    labelled = labelled._replace(train=sentences.Part(*(part[:examples] for part in labelled.train)))
    setting, classes = SETTINGS[data], labelled.classes
    tokens = sentences.Tokens(labelled.train.texts, setting.vocabulary, lowercase=data == "banking77")
    sizes = [len(part.texts) for part in labelled[:3]]
    print(f"{data}: {sizes[0]} texts to train on, {sizes[1]} to choose by, {sizes[2]} to test, {len(classes)} classes")

    net = NETWORKS[data](len(tokens), len(classes), setting.features, setting.rate)
    run, history = train(labelled, tokens, net, setting, epochs or setting.epochs, seed)
    best = int(np.argmax(history["validation/f1"]))
    logits = fnn.predict(net, run.params, run.state, *encoded(tokens, labelled.test.texts, setting.length))
    probabilities = np.asarray(jax.nn.softmax(logits))
    predicted = probabilities.argmax(axis=-1)

    chosen_by, answers = baseline(labelled)
    score = float(history["validation/accuracy"][best])
    network = f"{NETWORKS[data].__name__} (fnn)"
    counts = {
        method: confusion_matrix(labelled.test.labels, answer, labels=range(len(classes)))
        for method, answer in {network: predicted, BASELINE: answers}.items()
    }
    found = {method: scores(matrix) for method, matrix in counts.items()}
    print(f"\n{fnn.count(run.params)} parameters, {len(tokens)} pieces of words; epoch {best + 1} was the best")
    print(
        f"{'':32}{'validation accuracy':>20}{'test accuracy':>15}{'F1 of spam' if len(classes) == 2 else 'mean F1':>12}"
    )
    for (method, (accuracy, f1)), validated in zip(found.items(), (score, chosen_by)):
        print(f"{method:32}{validated:20.4f}{accuracy:15.4f}{f1:12.4f}")

    print("\nwhat test texts are taken for:")
    wrong = np.flatnonzero(predicted != labelled.test.labels)
    for place in [*spread(np.arange(len(predicted))), *spread(wrong)]:
        say(labelled.test.texts[place], probabilities[place], classes, classes[labelled.test.labels[place]])
    if len(classes) > 2:
        print("\nmost often confused:")
        for true, taken in most_confused(counts[network])[:SHOWN]:
            row = counts[network][true]
            print(f"  {row[taken]:2} of {row.sum()} {classes[true]} -> {classes[taken]}")

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    confusion = confused_pairs(counts, classes) if len(classes) > 2 else fnn.plot.confusion(counts[network], classes)
    fnn.plot.learning_curves(history).savefig(folder / f"{data}_curves.png", dpi=150)
    confusion.savefig(folder / f"{data}_confusion.png", dpi=150)
    print(f"\npictures: {folder}/{data}_curves.png, {data}_confusion.png")
    if text is not None:
        logits = fnn.predict(net, run.params, run.state, *encoded(tokens, [text], setting.length))
        say(text, np.asarray(jax.nn.softmax(logits))[0], classes)
    return found


def spread(places: np.ndarray) -> np.ndarray:
    """A few of the places, evenly spread: texts of one class may stand together."""
    return places[np.linspace(0, len(places) - 1, min(SHOWN, len(places)), dtype=int)]


def say(text: str, probabilities: np.ndarray, classes: tuple[str, ...], true: str | None = None) -> None:
    """Print a text and its most probable class, and the true one where that is another."""
    best = int(probabilities.argmax())
    error = f", but is {true}" if true not in (None, classes[best]) else ""
    line = " ".join(text.split())
    print(
        f"  {line if len(line) <= 100 else line[:97] + '...'}\n    {classes[best]} ({probabilities[best]:.0%}){error}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sms", choices=list(SETTINGS))
    parser.add_argument(
        "--epochs", type=int, help="passes over the training texts (default: 10 of sms, 20 of banking77)"
    )
    parser.add_argument("--text", help="a text to classify at the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/text_classification", help="folder of the pictures")
    parser.add_argument("--examples", type=int, help="learn from so many texts only, for a quick look")
    arguments = vars(parser.parse_args())
    try:
        main(arguments.pop("data"), **arguments)
    except files.DatasetError as error:
        sys.exit(str(error))
