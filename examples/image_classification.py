"""Classify images with a convolutional network: the main job of a newcomer.

Two convolutions, each with a max pooling that halves the picture, find strokes and then shapes; two dense layers turn
them into a score for each class. Training makes the cross-entropy between the scores and the right class small.

By default this reads the UCI digits that scikit-learn brings along, 8 x 8 pixels each, and takes seconds. ``--data``
reads MNIST, Fashion-MNIST or CIFAR-10 from ``$FNN_DATA``, the cache folder, or their official address.
"""

import argparse
import sys
from pathlib import Path

import datasets
import files
import jax
import jax.numpy as jnp
import optax

import fnn
import fnn.plot


def network(classes: int, *, hidden: int = 128) -> fnn.Layer:
    """Two convolutions for features, two dense layers for the decision."""
    return fnn.serial(
        fnn.conv(32, (3, 3)), jax.nn.relu, fnn.max_pool((2, 2)),
        fnn.conv(64, (3, 3)), jax.nn.relu, fnn.max_pool((2, 2)),
        fnn.flatten(), fnn.dense(hidden), jax.nn.relu, fnn.dense(classes),
    )  # fmt: skip


def main(
    data: str = "digits",
    *,
    epochs: int | None = None,
    batch_size: int = 32,
    hidden: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    output: str | Path = "outputs/image_classification",
    examples: int | None = None,
) -> float:
    """Train, evaluate on the test set, and save three pictures.

    Args:
        data: ``"digits"``, ``"mnist"``, ``"fashion-mnist"`` or ``"cifar10"``.
        epochs: Passes over the training set; None: 40 of digits, 10 of the others.
        batch_size: Images for each step.
        hidden: Width of the dense layer.
        learning_rate: Adam's step size.
        seed: Decides all that is random.
        output: Folder of the pictures.
        examples: Use only so many images for training and for testing, for a quick look.

    Returns:
        The accuracy on the test set.
    """
    images = datasets.load(data)
    x, y, x_test, y_test = (part[:examples] for part in images[:4])
    held_out = len(x) // 10  # watched while training; the test set is looked at once, at the end
    (x, x_validation), (y, y_validation) = ((part[held_out:], part[:held_out]) for part in (x, y))
    epochs = epochs or (40 if data == "digits" else 10)
    print(f"{data}: {len(x)} images to train on, {held_out} to watch, {len(x_test)} to test, {x.shape[1:]} each")

    net = network(len(images.classes), hidden=hidden)
    loss = optax.losses.softmax_cross_entropy_with_integer_labels
    objective = fnn.supervised(net, loss, metrics={"accuracy": fnn.accuracy})
    optimizer = optax.adam(learning_rate)

    run = fnn.train_init(net, optimizer, jax.random.key(seed), x)
    print(f"{fnn.count(run.params)} parameters")
    run, history = fnn.fit(
        objective, optimizer, run, (x, y), batch_size=batch_size, epochs=epochs, validation=(x_validation, y_validation)
    )

    logits = fnn.predict(net, run.params, run.state, x_test)
    counts = fnn.confusion_matrix(len(images.classes))(logits, y_test)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in {
        "learning_curves": fnn.plot.learning_curves(history),
        "confusion": fnn.plot.confusion(counts, images.classes),
        "filters": fnn.plot.filters(run.params["conv_0"]["kernel"]),
    }.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
    print(f"pictures: {folder}/learning_curves.png, confusion.png, filters.png")

    accuracy = float(fnn.accuracy(logits, jnp.asarray(y_test)).mean())
    print(f"test accuracy: {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", choices=["digits", "mnist", "fashion-mnist", "cifar10"])
    parser.add_argument("--epochs", type=int, help="passes over the training set (default: 40 of digits, 10 of others)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=128, help="width of the dense layer (default: 128)")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/image_classification", help="folder of the pictures")
    parser.add_argument("--examples", type=int, help="use only so many images, for a quick look")
    arguments = vars(parser.parse_args())
    try:
        main(arguments.pop("data"), **arguments)
    except files.DatasetError as error:
        sys.exit(str(error))
