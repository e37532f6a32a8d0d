"""Train a residual network on CIFAR-10 the way it is usually done, and beside PyTorch where that is wanted.

ResNet-20 is twenty layers deep. So deep a network learns because every pair of convolutions only adds to what came in
(`fnn.residual`), and because batch norm keeps the numbers in range. What else is usual:

- augmentation: each picture is shifted by up to four pixels and mirrored at random, within the compiled step;
- a learning rate that warms up and then falls to zero along a cosine;
- weight decay on kernels alone;
- an average of the weights over about the last epoch (`fnn.ema`), which is better than the last weights as long as
  the learning rate is large. Batch norm's statistics belong to other weights, and are measured anew for the average;
- ``--bfloat16``: half the memory and, on GPUs and TPUs, much faster. A CPU gains nothing.

``--compare`` trains PyTorch's twin of it (`cifar_torch`): the same pictures, network, schedule and average.

All of CIFAR-10 for 30 epochs is the default: minutes on a GPU, hours on two cores of a CPU. ``--examples 2000 --epochs
6`` is a shortened setting that shows that everything works, with an accuracy that is far from what the network can do.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
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
import fnn.plot

CHANNELS = (16, 32, 64)
augment = fnn.augment.chain(fnn.augment.random_crop(padding=4), fnn.augment.random_flip())


class Setting(NamedTuple):
    """What fnn and PyTorch have in common.

    Attributes:
        blocks: Residual blocks for each size of the picture; 3 make ResNet-20.
        epochs: Passes over the training pictures.
        batch_size: Pictures for each step.
        learning_rate: The highest.
        warm_up: Share of the steps in which it rises from zero.
        decay: Weight decay.
        bfloat16: Whether to compute in half precision.
        seed: Decides all that is random.
    """

    blocks: int = 3
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.1
    warm_up: float = 0.1
    decay: float = 5e-4
    bfloat16: bool = False
    seed: int = 0


def block(channels: int, stride: int) -> fnn.Layer:
    """Two convolutions around which the input is passed; a convolution of 1 x 1 where its shape must change."""
    conv = lambda window, stride: fnn.conv(
        channels, (window, window), strides=stride, bias=False, kernel_init=jax.nn.initializers.he_normal()
    )
    body = fnn.serial(conv(3, stride), fnn.batch_norm(), jax.nn.relu, conv(3, 1), fnn.batch_norm())
    shortcut = None if stride == 1 else fnn.serial(conv(1, stride), fnn.batch_norm())
    return fnn.serial(fnn.residual(body, shortcut), jax.nn.relu)


def resnet(blocks: int) -> fnn.Layer:
    """A residual network with ``6 * blocks + 2`` layers."""
    places = [(channels, number) for channels in CHANNELS for number in range(blocks)]
    return fnn.serial(
        fnn.conv(CHANNELS[0], (3, 3), bias=False, kernel_init=jax.nn.initializers.he_normal()),
        fnn.batch_norm(), jax.nn.relu,
        *(block(channels, 2 if number == 0 and channels != CHANNELS[0] else 1) for channels, number in places),
        fnn.global_mean_pool(), fnn.dense(10),
    )  # fmt: skip


def statistics(net: fnn.Layer, params: Any, state: Any, x: np.ndarray, batch_size: int) -> Any:
    """Measure batch norm's statistics for these weights, on up to 60 batches of training pictures."""
    apply = jax.jit(lambda state, x: net.apply(params, state, x, train=True)[1])
    for start in range(0, min(len(x) // batch_size, 60) * batch_size, batch_size):
        state = apply(state, x[start : start + batch_size])
    return state


def train(setting: Setting, data: Any, validation: Any) -> tuple[fnn.Layer, dict[str, tuple[Any, Any]], Any]:
    """Train; returns the network, its last and its averaged weights, each with their state, and the history."""
    net = resnet(setting.blocks)
    if setting.bfloat16:
        net = fnn.mixed_precision(net)
    per_epoch = len(data[0]) // setting.batch_size
    steps = setting.epochs * per_epoch
    schedule = optax.warmup_cosine_decay_schedule(0.0, setting.learning_rate, int(setting.warm_up * steps), steps)
    optimizer = optax.chain(
        optax.add_decayed_weights(setting.decay, mask=lambda params: fnn.mask(params, "*kernel")),
        optax.sgd(schedule, momentum=0.9, nesterov=True),
    )
    optimizer = fnn.ema(optimizer, decay=1 - 1 / per_epoch)
    loss = optax.losses.softmax_cross_entropy_with_integer_labels
    objective = fnn.supervised(net, loss, metrics={"accuracy": fnn.accuracy})
    run = fnn.train_init(net, optimizer, jax.random.key(setting.seed), data[0])
    print(f"ResNet-{6 * setting.blocks + 2}: {fnn.count(run.params)} parameters, {steps} steps")
    run, history = fnn.fit(
        objective, optimizer, run, data, batch_size=setting.batch_size, epochs=setting.epochs, augment=augment,
        validation=validation,
    )  # fmt: skip
    average = fnn.ema_params(run)
    state = statistics(net, average, run.state, data[0], setting.batch_size)
    return net, {"last weights": (run.params, run.state), "averaged weights": (average, state)}, history


def draw_mistakes(images: np.ndarray, logits: np.ndarray, y: np.ndarray, classes: Sequence[str]) -> Figure:
    """The mistakes that the network was surest of: what it says, how sure it is, and what is true."""
    shares = np.asarray(jax.nn.softmax(logits))
    answers, sureness = shares.argmax(axis=1), shares.max(axis=1)
    wrong = np.flatnonzero(answers != y)
    wrong = wrong[np.argsort(-sureness[wrong])][:24]
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    for panel in figure.subplots(4, 6).flat:
        panel.set_axis_off()
    for panel, number in zip(figure.axes, wrong):
        panel.imshow(images[number])
        said = f"{classes[answers[number]]} {sureness[number]:.0%}"
        panel.set_title(f"{said}\nis: {classes[y[number]]}", fontsize=9)
    figure.suptitle("The surest of the wrong answers on test pictures")
    return figure


def show(found: dict[str, float], size: int) -> None:
    """Print accuracies, each with its interval for so many pictures."""
    for name, accuracy in found.items():
        low, high = fnn.interval(np.arange(size) < round(accuracy * size))[1:3]
        print(f"{name:26}{accuracy:.4f}, 95% interval {low:.4f} to {high:.4f}", flush=True)


def main(
    *,
    examples: int | None = None,
    compare: bool = False,
    output: str | Path = "outputs/cifar",
    **options: Any,
) -> dict[str, float]:
    """Train, test once, and save three pictures.

    Args:
        examples: Use only so many training pictures, and as many of the test pictures.
        compare: Whether to train PyTorch's twin too.
        output: Folder of the pictures.
        **options: Of `Setting`.

    Returns:
        Accuracies on the test pictures by what was tested.
    """
    train_twin = importlib.import_module("cifar_torch").train if compare else None  # an error now, and not in hours
    setting, images = Setting(**options), datasets.load("cifar10")
    raw, y, raw_test, y_test = (part[:examples] for part in images[:4])
    mean, deviation = raw.mean(axis=(0, 1, 2)), raw.std(axis=(0, 1, 2))
    x, x_test = ((part - mean) / deviation for part in (raw, raw_test))
    watched = len(x) // 10  # nothing is chosen by them
    data, validation = (x[watched:], y[watched:]), (x[:watched], y[:watched])
    print(f"cifar10: {len(data[0])} pictures to train on, {watched} to watch, {len(x_test)} to test")

    net, weights, history = train(setting, data, validation)
    logits = {name: fnn.predict(net, *trees, x_test) for name, trees in weights.items()}
    found = {f"fnn, {name}": float(fnn.accuracy(values, jnp.asarray(y_test)).mean()) for name, values in logits.items()}
    print("accuracy on test pictures")
    show(found, len(y_test))
    if train_twin is not None:
        accuracies = train_twin(setting, CHANNELS, data, (x_test, y_test))
        twin = {f"PyTorch, {name}": accuracy for name, accuracy in accuracies.items()}
        show(twin, len(y_test))
        found |= twin

    answers = logits["averaged weights"]
    counts = fnn.confusion_matrix(10)(answers, y_test)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in {
        "learning_curves": fnn.plot.learning_curves(history),
        "mistakes": draw_mistakes(raw_test, np.asarray(answers), y_test, images.classes),
        "confusion": fnn.plot.confusion(counts, images.classes),
    }.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
    print(f"pictures: {folder}/learning_curves.png, mistakes.png, confusion.png")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, help="use only so many pictures")
    parser.add_argument("--blocks", type=int, default=3, help="for each size of the picture (default: 3, ResNet-20)")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.1, help="the highest (default: 0.1)")
    parser.add_argument("--warm-up", type=float, default=0.1, help="share of the steps (default: 0.1)")
    parser.add_argument("--decay", type=float, default=5e-4, help="weight decay (default: 5e-4)")
    parser.add_argument("--bfloat16", action="store_true", help="compute in half precision")
    parser.add_argument("--compare", action="store_true", help="train PyTorch's twin too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/cifar", help="folder of the pictures")
    try:
        main(**vars(parser.parse_args()))
    except (files.DatasetError, ImportError) as error:
        sys.exit(str(error))
