"""Learn from few examples what was half learned elsewhere: transfer learning.

A small convolutional network first learns to tell clothes apart, from thousands of labelled pictures (Fashion-MNIST).
Its convolutions then know edges and blobs, which handwritten digits are made of too. So it is given digits, a new last
layer, the head, and few labels: how many are needed? Four ways to go on are compared, on the same digits:

- from scratch: nothing is transferred, every weight begins at random;
- head only: the convolutions are frozen and only the new head learns;
- everything: all weights go on learning from where they were;
- low-rank adapters (LoRA): all old weights are frozen, and to each matrix a product of two thin ones is added, A B,
  that learns together with the head. Few numbers are trained and kept for each new task.

Each is trained with several learning rates, numbers of labels and seeds, side by side in one compiled program. A seed
decides which digits have labels and how the new weights begin. Held-out digits choose the learning rate, by the mean
over the seeds; the test digits are looked at once, by the trainings that were chosen.

Transfer is no rule of nature: after 150 steps on MNIST, learning everything is as good as from scratch and no better,
and what is frozen is missed. Clothes have little in common with digits, and digits are quick to learn.

Pictures are scaled down to 14 x 14 pixels, so that it takes minutes; ``--size 28`` leaves them as they are. ``--target
digits`` takes the digits that come with scikit-learn in place of MNIST.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import files
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import fnn

LOSS = optax.losses.softmax_cross_entropy_with_integer_labels
HELD_OUT = 500  # digits that choose the learning rate
BATCH_SIZE = 32


def network() -> fnn.Layer:
    """A trunk that sees and a head that decides."""
    trunk = fnn.serial(
        fnn.conv(16, (3, 3)), jax.nn.relu, fnn.max_pool((2, 2)),
        fnn.conv(32, (3, 3)), jax.nn.relu, fnn.max_pool((2, 2)),
        fnn.flatten(), fnn.dense(64), jax.nn.relu,
    )  # fmt: skip
    return fnn.serial(trunk=trunk, head=fnn.dense(10))


def low_rank(net: fnn.Layer, rank: int) -> fnn.Layer:
    """Add a matrix of low rank to every kernel of a network without state.

    A kernel with n numbers for each of m features is taken for an n x m matrix W, and used as W + A B, where A is
    n x rank and B rank x m. B begins as 0, so that the network begins as it was.

    Returns:
        A layer from the inputs of ``net`` to its outputs.

        - params: ``base``: those of ``net``; ``adapters``: the tree of its kernels, each a dict of ``a`` and ``b``

    References:
        Hu et al., LoRA: Low-rank adaptation of large language models, 2021, arXiv:2106.09685.
    """

    def init(key: jax.Array, x: Any) -> dict[str, Any]:
        base, _ = net.init(fnn.fold(key, "base"), x)

        def adapter(path: Any, kernel: jax.Array) -> Any:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if kernel.ndim < 2:
                return {}
            a_shape = (kernel.size // kernel.shape[-1], rank)
            a = jax.nn.initializers.lecun_normal()(fnn.fold(fnn.fold(key, "adapters"), name), a_shape)
            return {"a": a, "b": jnp.zeros((rank, kernel.shape[-1]))}

        return {"base": base, "adapters": jax.tree.map_with_path(adapter, base)}

    def apply(params: dict[str, Any], x: jax.Array) -> jax.Array:
        add = lambda kernel, ab: kernel + (ab["a"] @ ab["b"]).reshape(kernel.shape) if ab else kernel
        adapted = jax.tree.map(add, params["base"], params["adapters"])
        return net.apply(adapted, {}, x)[0]

    return fnn.layer(init, apply)


class Method(NamedTuple):
    """A way to go on.

    Attributes:
        net: The network.
        patterns: Paths of the leaves that learn; all others are frozen.
        start: Puts the trunk that was trained before into new parameters.
    """

    net: fnn.Layer
    patterns: tuple[str, ...]
    start: Callable[[Any, Any], Any]


def methods(rank: int) -> dict[str, Method]:
    """What is compared."""
    net = network()
    transfer = lambda params, trunk: params | {"trunk": trunk}
    into_base = lambda params, trunk: params | {"base": transfer(params["base"], trunk)}
    return {
        "from scratch": Method(net, ("*",), lambda params, trunk: params),
        "head only": Method(net, ("head/*",), transfer),
        "everything": Method(net, ("*",), transfer),
        "low-rank adapters": Method(low_rank(net, rank), ("adapters/trunk/*", "base/head/*"), into_base),
    }


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Scale pictures to ``size`` x ``size`` pixels; where they shrink, by the mean over what becomes one."""
    if images.shape[1] == 2 * size:
        return images.reshape(len(images), size, 2, size, 2, -1).mean(axis=(2, 4))
    return np.asarray(jax.image.resize(images, (len(images), size, size, images.shape[-1]), "linear"))


def labelled(y: np.ndarray, number: int, seeds: Sequence[int]) -> np.ndarray:
    """Rows that are given a label, ``(seeds, number)``: any first part has as many of each class as can be."""
    chosen = []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(y))
        place = np.empty(len(y), int)  # how many of its class come before it
        for digit in np.unique(y):
            mine = order[y[order] == digit]
            place[mine] = np.arange(len(mine))
        chosen.append(order[np.argsort(place[order], kind="stable")][:number])
    return np.stack(chosen)


def pretrain(x: np.ndarray, y: np.ndarray, epochs: int, key: jax.Array) -> tuple[Any, float]:
    """Learn the source task; returns the trunk's parameters and the accuracy on a tenth that was held out."""
    net, optimizer, held_out = network(), optax.adam(2e-3), len(x) // 10
    objective = fnn.supervised(net, LOSS, metrics={"accuracy": fnn.accuracy})
    run, history = fnn.fit(
        objective, optimizer, fnn.train_init(net, optimizer, key, x), (x[held_out:], y[held_out:]), batch_size=64,
        epochs=epochs, validation=(x[:held_out], y[:held_out]),
    )  # fmt: skip
    return run.params["trunk"], float(history["validation/accuracy"][-1])


def train(method: Method, trunk: Any, steps: int, x: Any, y: Any, count: Any, rate: Any, key: jax.Array) -> Any:
    """One training on the first ``count`` rows; count, rate and key may be traced. Returns the parameters."""
    labels = lambda params: fnn.mask(params, *method.patterns)
    optimizer = optax.multi_transform({True: optax.adam(rate), False: optax.set_to_zero()}, labels)
    step = fnn.train_step(fnn.supervised(method.net, LOSS), optimizer)
    run = fnn.train_init(method.net, optimizer, fnn.fold(key, "run"), x[:1])
    run = run._replace(params=method.start(run.params, trunk))

    def one(run: fnn.TrainState, number: jax.Array) -> Any:
        batch_key = jax.random.fold_in(fnn.fold(key, "batches"), number)
        rows = jax.random.randint(batch_key, (BATCH_SIZE,), 0, count)
        run, _ = step(run, (x[rows], y[rows]))
        return run, None

    return jax.lax.scan(one, run, jnp.arange(steps))[0].params


def accuracies(net: fnn.Layer, params: Any, x: Any, y: Any) -> np.ndarray:
    """The accuracy of each of many networks, whose parameters are stacked; one after another, to save memory."""
    right = lambda one: fnn.accuracy(net.apply(one, {}, x)[0], y).mean()
    return np.asarray(jax.jit(partial(jax.lax.map, right))(params))


def draw_accuracies(counts: Sequence[int], found: dict[str, np.ndarray], target: str) -> Figure:
    """The mean over the seeds against the number of labels, in a band from the worst seed to the best."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for name, values in found.items():  # (counts, seeds)
        (line,) = axes.plot(counts, values.mean(axis=1), marker="o", markersize=4, label=name)
        axes.fill_between(counts, values.min(axis=1), values.max(axis=1), color=line.get_color(), alpha=0.15, lw=0)
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set(
        xlabel="labelled examples",
        ylabel="test accuracy",
        title=f"{target} after Fashion-MNIST: mean and range of seeds",
    )
    figure.legend(frameon=False, loc="outside lower center", ncols=len(found))
    axes.grid(alpha=0.3)
    return figure


def draw_tasks(sets: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """A picture of each class of the two tasks, as the network sees them."""
    figure = Figure(figsize=(8, 2.1), layout="constrained")
    grid = figure.subplots(len(sets), 10)
    for row, (name, (x, y)) in zip(grid, sets.items()):
        for number, panel in enumerate(row):
            panel.imshow(x[np.argmax(y == number), ..., 0], cmap="gray_r")
            panel.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    return figure


def main(
    target: str = "mnist",
    *,
    counts: Sequence[int] = (50, 100, 300, 1000),
    seeds: int = 4,
    rates: Sequence[float] = (1e-3, 5e-3),
    steps: int = 150,
    rank: int = 4,
    epochs: int = 3,
    source_examples: int = 12000,
    test_examples: int = 2000,
    size: int = 14,
    seed: int = 0,
    output: str | Path = "outputs/transfer",
) -> dict[str, np.ndarray]:
    """Learn clothes, go on with digits in four ways, print the table, and save two pictures.

    Args:
        target: ``"mnist"`` or ``"digits"``, those of scikit-learn, which are enlarged.
        counts: Numbers of labelled digits.
        seeds: Trainings of each, with other labelled digits.
        rates: Learning rates to choose from.
        steps: Of each training, with 32 digits each.
        rank: Of the adapters.
        epochs: Passes over the clothes.
        source_examples: How many clothes to learn from.
        test_examples: How many digits to test with, at most.
        size: Height and width that pictures are scaled to.
        seed: Decides all that is random.
        output: Folder of the pictures.

    Returns:
        Test accuracies by method, ``(counts, seeds)``.
    """
    source, digits = datasets.load("fashion-mnist"), datasets.load(target)
    x_source, y_source = resize(source.x_train[:source_examples], size), source.y_train[:source_examples]
    x_test, y_test = resize(digits.x_test[:test_examples], size), digits.y_test[:test_examples]
    validation = resize(digits.x_train[:HELD_OUT], size), digits.y_train[:HELD_OUT]
    x_rest, y_rest = digits.x_train[HELD_OUT:], digits.y_train[HELD_OUT:]
    if max(counts) > len(x_rest):
        raise ValueError(f"{target} has {len(x_rest)} digits to give labels to; take smaller --counts")
    rows = labelled(y_rest, max(counts), range(seed, seed + seeds))
    x, y = np.stack([resize(x_rest[mine], size) for mine in rows]), y_rest[rows]
    print(f"fashion-mnist: {len(x_source)} clothes to learn from, {size} x {size} pixels")
    print(f"{target}: up to {max(counts)} labelled digits, {HELD_OUT} to choose by, {len(x_test)} to test")

    trunk, accuracy = pretrain(x_source, y_source, epochs, jax.random.key(seed))
    print(f"accuracy on held-out clothes: {accuracy:.4f}\n")

    keys = jax.vmap(partial(jax.random.fold_in, fnn.fold(jax.random.key(seed), "digits")))(jnp.arange(seeds))
    places = np.array([(c, s, r) for c in range(len(counts)) for s in range(seeds) for r in range(len(rates))]).T
    each = (x[places[1]], y[places[1]], jnp.array(counts)[places[0]], jnp.array(rates)[places[2]], keys[places[1]])
    print(f"test accuracy, mean over {seeds} seeds, of {places.shape[1]} trainings of each method")
    print(f"{'':19}{'trained':>8}", *(f"{count:>15}" for count in counts), sep="")
    found = {}
    for name, method in methods(rank).items():
        params = jax.jit(jax.vmap(partial(train, method, trunk, steps)))(*each)
        validated = accuracies(method.net, params, *validation).reshape(len(counts), seeds, len(rates))
        best = validated.mean(axis=1).argmax(axis=1)  # a rate for each number of labels
        chosen = jax.tree.map(lambda leaf, best=best: leaf[places[2] == best[places[0]]], params)
        values = found[name] = accuracies(method.net, chosen, x_test, y_test).reshape(len(counts), seeds)
        trained = sum(
            leaf[0].size for leaf, on in zip(*map(jax.tree.leaves, (params, fnn.mask(params, *method.patterns)))) if on
        )
        cells = [f"{mean:.3f} ({rates[n]:g})" for mean, n in zip(values.mean(axis=1), best)]
        print(f"{name:19}{trained:8}", *(f"{cell:>15}" for cell in cells), sep="", flush=True)
    print("in brackets: the learning rate that held-out digits chose")
    if seeds > 1:
        for name in list(found)[1:]:
            ahead = fnn.compare(found[name][0], found["from scratch"][0])
            print(
                f"{name} minus from scratch at {counts[0]} labels: {ahead.difference:+.3f}, "
                f"95% interval {ahead.low:+.3f} to {ahead.high:+.3f}"
            )

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    draw_accuracies(counts, found, target).savefig(folder / "accuracies.png", dpi=150)
    draw_tasks({"source": (x_source, y_source), "target": (x[0], y[0])}).savefig(folder / "tasks.png", dpi=150)
    print(f"pictures: {folder}/accuracies.png, tasks.png")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="mnist", choices=["mnist", "digits"])
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[50, 100, 300, 1000], help="numbers of labelled digits"
    )
    parser.add_argument("--seeds", type=int, default=4, help="trainings of each (default: 4)")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 5e-3], help="learning rates to choose from")
    parser.add_argument("--steps", type=int, default=150, help="of each training, with 32 digits each (default: 150)")
    parser.add_argument("--rank", type=int, default=4, help="of the adapters (default: 4)")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the clothes (default: 3)")
    parser.add_argument("--source-examples", type=int, default=12000, help="clothes to learn from (default: 12000)")
    parser.add_argument("--test-examples", type=int, default=2000, help="digits to test with (default: 2000)")
    parser.add_argument("--size", type=int, default=14, help="pictures are scaled to this (default: 14)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/transfer", help="folder of the pictures")
    arguments = vars(parser.parse_args())
    try:
        main(arguments.pop("target"), **arguments)
    except (files.DatasetError, ValueError) as error:
        sys.exit(str(error))
