"""Find good hyperparameters: hundreds of networks, trained side by side by one compiled program.

The learning rate, the dropout rate and the weight decay are drawn 256 times, spread evenly over their ranges, and every
configuration is trained from three seeds: 768 networks, that are compiled once. A fifth of the training rows is held
out and decides which configuration is best. The test set is looked at once, at the end: by the best network, and by all
networks of the five best configurations together, whose mean is usually better than each of them.

The best of many is always partly lucky: its score on the rows that chose it is higher than what it is worth. The test
set says how much, and seeds say which differences are noise.

By default this reads the UCI digits that scikit-learn brings along. ``--data mnist`` takes the big brother; there
``--halving`` saves most of the time, by training only the best third of the configurations to the end of each rung.
``--widths 32 64`` makes the width of the hidden layer a hyperparameter too: it changes shapes, so that there is a
program for each. With ``--folder`` a study that was killed goes on where it was, and can be given more trials later.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import files
import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnn
import fnn.plot

MEMBERS = 5  # configurations of the ensemble


def space(widths: Sequence[int]) -> dict[str, Any]:
    """What is varied, and how far: rates over powers of ten, the width only where there are several."""
    dimensions = {
        "learning_rate": fnn.log_uniform(1e-4, 1e-1),
        "dropout": fnn.uniform(0.0, 0.6),
        "weight_decay": fnn.log_uniform(1e-5, 1e0),
    }
    return dimensions | ({"width": fnn.choice(widths, static=True)} if len(widths) > 1 else {})


def main(
    data: str = "digits",
    *,
    trials: int = 256,
    seeds: int = 3,
    steps: int | None = None,
    widths: Sequence[int] = (64,),
    halving: bool = False,
    folder: str | Path | None = None,
    seed: int = 0,
    output: str | Path = "outputs/hyperparameter_study",
    examples: int | None = None,
) -> float:
    """Run the study, print what it found, test the winners once, and save three pictures.

    Args:
        data: ``"digits"``, ``"mnist"`` or ``"fashion-mnist"``.
        trials: How many configurations; powers of two fill the space best.
        seeds: How many trainings of each.
        steps: Steps of a training, of 64 images each; None: 500 of digits, 2000 of the others.
        widths: Of the hidden layer; several are a hyperparameter.
        halving: Whether only the best third of the configurations goes on after a ninth and a third of the steps.
        folder: Where the study is kept, so that it can go on; None: nowhere.
        seed: Decides all that is random.
        output: Folder of the pictures.
        examples: Use only so many images for training and for testing, for a quick look.

    Returns:
        The accuracy of the ensemble on the test set.
    """
    images = datasets.load(data)
    x, y, x_test, y_test = (part[:examples] for part in images[:4])
    x, x_test = (part.reshape(len(part), -1) for part in (x, x_test))
    steps = steps or (500 if data == "digits" else 2000)
    ninth = -(-steps // 9)
    print(f"{data}: {len(x)} images to train on and to choose by, {len(x_test)} to test, {x.shape[1]} pixels each")

    loss = optax.losses.softmax_cross_entropy_with_integer_labels

    def trial(hp: dict[str, Any]) -> Any:
        width = hp.get("width", widths[0])
        net = fnn.serial(
            fnn.dense(width), jax.nn.relu, fnn.dropout(hp["dropout"]), fnn.dense(len(images.classes))
        )  # fmt: skip
        objective = fnn.supervised(net, loss, metrics={"accuracy": fnn.accuracy})
        return net, objective, optax.adamw(hp["learning_rate"], weight_decay=hp["weight_decay"])

    result = fnn.study(
        trial, fnn.sobol(space(widths)), trials=trials, seeds=seeds,
        data=(x, y), folds=fnn.shuffle_split(held_out=0.2), batch_size=64, steps=steps,
        evaluate_every=ninth, maximize="validation/accuracy", halving=fnn.halving(3, first=ninth) if halving else None,
        keep=MEMBERS, folder=folder, key=jax.random.key(seed),
    )  # fmt: skip

    print(result)
    if np.isfinite(result.scores()).sum() >= 8:
        shares = [f"{name} {share:.0%}" for name, share in result.importance().items()]
        print(f"importance: {', '.join(shares)}")
    members = result.top(min(MEMBERS, trials))
    if len(members) > 1 and seeds > 1:
        ahead = result.compare(members[0].trial, members[1].trial)
        print(
            f"trial {members[0].trial} is ahead of trial {members[1].trial} by {ahead.difference:.4f}, "
            f"95% interval {ahead.low:.4f} to {ahead.high:.4f} of {ahead.size} pairs"
        )

    pictures = Path(output)
    pictures.mkdir(parents=True, exist_ok=True)
    for name, figure in {
        "curves": fnn.plot.study_curves(result, "validation/accuracy"),
        "slices": fnn.plot.slices(result),
        "parallel_coordinates": fnn.plot.parallel_coordinates(result),
    }.items():
        figure.savefig(pictures / f"{name}.png", dpi=150)
    print(f"pictures: {pictures}/curves.png, slices.png, parallel_coordinates.png")

    def tested(network: Any) -> float:
        return float(fnn.accuracy(fnn.predict(*network, x_test), jnp.asarray(y_test)).mean())

    print(f"validation accuracy of the best configuration: {members[0].score:.4f}")
    print(f"test accuracy of its first network: {tested(result.network()):.4f}")
    accuracy = tested(result.ensemble(len(members)))
    print(f"test accuracy of {len(members) * seeds} networks together: {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", choices=["digits", "mnist", "fashion-mnist"])
    parser.add_argument("--trials", type=int, default=256, help="configurations (default: 256)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (default: 3)")
    parser.add_argument("--steps", type=int, help="of 64 images each (default: 500 of digits, 2000 of the others)")
    parser.add_argument("--widths", type=int, nargs="+", default=[64], help="of the hidden layer (default: 64)")
    parser.add_argument("--halving", action="store_true", help="train only the best configurations to the end")
    parser.add_argument("--folder", help="where the study is kept, to go on later")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/hyperparameter_study", help="folder of the pictures")
    parser.add_argument("--examples", type=int, help="use only so many images, for a quick look")
    arguments = vars(parser.parse_args())
    try:
        main(arguments.pop("data"), **arguments)
    except files.DatasetError as error:
        sys.exit(str(error))
