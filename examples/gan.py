"""Two networks in a contest, of which one learns to draw: a generative adversarial network.

The generator makes an image of random numbers; the discriminator scores images, high if they look real. In each step
the discriminator learns to tell real images from drawn ones, and the generator learns to get high scores. There is no
other loss: whether a drawing is good is what the discriminator has learned so far (Goodfellow et al., Generative
adversarial networks, 2014, arXiv:1406.2661).

That is two optimizers in one step, each with its own parameters, so the step is written here: a pure function that
calls two steps of ``fnn.train_step``, one after the other. ``fnn.training`` runs it as any other, many steps in one
compiled call. A discriminator that is too steep makes the contest explode: ``fnn.spectral_norm`` divides each of its
kernels by the largest factor by which it can lengthen a vector (Miyato et al., 2018, arXiv:1802.05957).

The drawings look right soon, which says little. They are measured beside those of a Gaussian and of a Gaussian mixture
in the space of PCA: by the Fréchet distance to test images among the features of a classifier, by how sure that
classifier is and whether all classes appear, and by how far they are from the nearest training image, since a
generator could also just repeat what it saw.

By default this reads the UCI digits that scikit-learn brings along; ``--data`` reads MNIST or Fashion-MNIST.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import examiner
import files
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from mosaic import in_rows, side_by_side
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import fnn

CODE = 32  # random numbers for each image
SNAPSHOTS = 8  # of the drawings, while training


def generator_network(size: int) -> fnn.Layer:
    """Random numbers to an image; a larger one grows by convolutions from a quarter of its size."""
    if size < 16:
        return fnn.serial(
            fnn.dense(256), jax.nn.relu, fnn.dense(256), jax.nn.relu,
            fnn.dense(size * size), jax.nn.sigmoid, fnn.reshape(size, size, 1),
        )  # fmt: skip
    return fnn.serial(
        fnn.dense(size * size * 2), jax.nn.relu, fnn.reshape(size // 4, size // 4, 32),
        fnn.conv_transpose(16, (4, 4), strides=2), fnn.group_norm(4), jax.nn.relu,
        fnn.conv_transpose(1, (4, 4), strides=2), jax.nn.sigmoid,
    )  # fmt: skip


def discriminator_network(size: int) -> fnn.Layer:
    """An image to a score."""
    leaky = lambda x: jax.nn.leaky_relu(x, 0.1)
    dense = lambda features: fnn.spectral_norm(fnn.dense(features))
    conv = lambda features: fnn.spectral_norm(fnn.conv(features, (4, 4), strides=2))
    last = (dense(1), lambda score: score[:, 0])
    if size < 16:
        return fnn.serial(fnn.flatten(), dense(256), leaky, dense(256), leaky, *last)
    return fnn.serial(conv(16), leaky, conv(32), leaky, fnn.flatten(), *last)


class Contest(NamedTuple):
    """All that changes while the two networks are trained.

    Attributes:
        generator: The state of its training.
        discriminator: Likewise.
        average: A running mean of the generator's parameters, which draws better than they do.
    """

    generator: fnn.TrainState
    discriminator: fnn.TrainState
    average: Any


def contest(
    generator: fnn.Layer, discriminator: fnn.Layer, optimizer: optax.GradientTransformation, batch_size: int
) -> Callable[[Contest, jax.Array], tuple[Contest, dict[str, jax.Array]]]:
    """Make one step of both, ``step(run, real) -> (run, metrics)``: pure, and not compiled."""

    def judge(params: Any, state: Any, batch: Any, *, key: jax.Array, train: bool) -> Any:
        """The discriminator's hinge loss: real images want a score over 1, drawn ones under -1."""
        real, drawn = batch
        scores, state = discriminator.apply(params, state, jnp.concatenate([real, drawn]), train=train)
        for_real, for_drawn = jnp.split(scores, 2)
        loss = jax.nn.relu(1 - for_real).mean() + jax.nn.relu(1 + for_drawn).mean()
        right = jnp.concatenate([for_real > 0, for_drawn <= 0]).mean()
        return loss, (state, {"told apart": right})

    def please(params: Any, state: Any, judging: Any, *, key: jax.Array, train: bool) -> Any:
        """The generator's loss: the score of what it draws, with the sign turned."""
        code = jax.random.normal(key, (batch_size, CODE))
        drawn, state = generator.apply(params, state, code, train=train)
        scores, _ = discriminator.apply(*judging, drawn)
        return -scores.mean(), (state, {})

    judge_step, please_step = fnn.train_step(judge, optimizer), fnn.train_step(please, optimizer)

    def step(run: Contest, real: jax.Array) -> tuple[Contest, dict[str, jax.Array]]:
        key = jax.random.fold_in(fnn.fold(run.generator.key, "drawn"), run.generator.step)
        code = jax.random.normal(key, (batch_size, CODE))
        drawn, _ = generator.apply(run.generator.params, run.generator.state, code, train=True)
        judging, judged = judge_step(run.discriminator, (real, drawn))
        drawing, pleased = please_step(run.generator, (judging.params, judging.state))
        average = optax.incremental_update(drawing.params, run.average, 0.005)
        metrics = {"generator": pleased["loss"], "discriminator": judged["loss"], "told apart": judged["told apart"]}
        return Contest(drawing, judging, average), metrics

    return step


def rivals(x: np.ndarray, count: int, seed: int) -> dict[str, np.ndarray]:
    """As many drawings of a Gaussian and of a Gaussian mixture, fitted to at most 5000 images in the space of PCA.

    A fifth of these images chooses how many parts the mixture has.
    """
    flat = x[:5000].reshape(len(x[:5000]), -1)
    pca = PCA(min(CODE, *flat.shape), random_state=seed).fit(flat)
    codes = pca.transform(flat).astype(np.float64)  # in float32, scikit-learn finds the covariances not quite symmetric
    held_out = len(codes) // 5
    fit = lambda parts, codes: GaussianMixture(parts, reg_covar=1e-3, random_state=seed).fit(codes)
    parts = max((5, 10, 20), key=lambda parts: fit(parts, codes[held_out:]).score(codes[:held_out]))
    found = {}
    for name, number in ((f"mixture of {parts}", parts), ("Gaussian", 1)):
        drawn = pca.inverse_transform(fit(number, codes).sample(count)[0]).clip(0, 1)
        shuffled = np.random.default_rng(seed).permutation(drawn)  # they come part after part
        found[name] = shuffled.reshape(count, *x.shape[1:]).astype(np.float32)
    return found


def draw_training(history: dict[str, np.ndarray], steps: list[int], distances: list[float]) -> Figure:
    """Losses, how often real and drawn images are told apart, and the distance of the drawings to real images."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    losses, apart, distance = figure.subplots(1, 3)
    width = max(1, len(history["generator"]) // 100)
    smooth = lambda values: np.convolve(values, np.ones(width) / width, "valid")
    for name in ("generator", "discriminator"):
        losses.plot(np.arange(width, len(history[name]) + 1), smooth(history[name]), label=name)
    losses.set(title="hinge losses")
    figure.legend(*losses.get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False)
    apart.plot(np.arange(width, len(history["told apart"]) + 1), smooth(history["told apart"]), color="C2")
    apart.axhline(0.5, color="gray", linestyle=":")
    apart.set(title="share of images judged right", ylim=(0, 1))
    distance.plot(steps, distances, marker="o", color="C3")
    distance.set(title="Fréchet distance, validation images", yscale="log")
    for which in ("major", "minor"):
        distance.tick_params(axis="y", which=which, labelsize="small")
        getattr(distance.yaxis, f"set_{which}_formatter")("{x:g}")
    for panel in (losses, apart, distance):
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
    return figure


def main(
    data: str = "digits",
    *,
    steps: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 3e-4,
    seed: int = 0,
    output: str | Path = "outputs/gan",
    examples: int | None = None,
) -> dict[str, list[float]]:
    """Train, print the table of what was drawn, and save four pictures.

    Args:
        data: ``"digits"``, ``"mnist"`` or ``"fashion-mnist"``.
        steps: Of training, about; None: 10000 of digits, 5000 of the others.
        batch_size: Images for each step.
        learning_rate: Adam's step size, of both networks.
        seed: Decides all that is random.
        output: Folder of the pictures.
        examples: Use only so many images for training and for testing, for a quick look.

    Returns:
        For each kind of images: Fréchet distance, certainty, share of the rarest class, distance to training images.
    """
    images = datasets.load(data)
    x, y, x_test, y_test = (part[:examples] for part in images[:4])
    held_out = len(x) // 4
    (x, validation), (y, _) = ((part[held_out:], part[:held_out]) for part in (x, y))
    count = min(held_out, 2000)  # of drawings that are measured, and of real images beside them
    x_test, y_test, validation = x_test[:2000], y_test[:2000], validation[:count]
    steps, batch_size = steps or (10000 if data == "digits" else 5000), min(batch_size, len(x))
    epochs = -(-steps // (len(x) // batch_size))
    print(f"{data}: {len(x)} images to train on, {len(validation)} to watch, {len(x_test)} to test, {x.shape[1:]} each")

    checked = examiner.train(x, y, len(images.classes), 20 if data == "digits" else 2, seed)
    right = np.mean(checked.probabilities(x_test).argmax(1) == y_test)
    print(f"the classifier that measures: accuracy {right:.4f} on test images")

    key = jax.random.key(seed)
    optimizer = optax.adam(learning_rate, b1=0.5, b2=0.99)
    generator, discriminator = generator_network(x.shape[1]), discriminator_network(x.shape[1])
    code = jax.random.normal(fnn.fold(key, "code"), (count, CODE))
    drawing = fnn.train_init(generator, optimizer, fnn.fold(key, "generator"), code)
    judging = fnn.train_init(discriminator, optimizer, fnn.fold(key, "discriminator"), x)
    print(f"{fnn.count(drawing.params)} parameters of the generator, {fnn.count(judging.params)} of the discriminator")
    run = Contest(drawing, judging, drawing.params)
    drawn = lambda run: np.asarray(fnn.predict(generator, run.average, run.generator.state, code))

    step = contest(generator, discriminator, optimizer, batch_size)
    batches = fnn.batches(x, batch_size, key=fnn.fold(key, "order"), epochs=epochs)
    done, measured, snapshots, distances = 0, [], {}, []
    for report in fnn.training(step, run, batches):
        run = report.run
        measured.append(report.metrics)
        done += report.steps
        if done * SNAPSHOTS >= len(batches) * (len(snapshots) + 1):
            snapshots[done] = drawn(run)
            distances.append(checked.distance(snapshots[done], validation))
            told = report.metrics["told apart"].mean()
            print(f"step {done:6}: Fréchet distance {distances[-1]:.2f}, {told:.0%} judged right", flush=True)
    history = {name: np.concatenate([part[name] for part in measured]) for name in measured[0]}

    with threadpool_limits(1):  # on a busy machine threads mostly wait for each other
        kinds = {"GAN": drawn(run)} | rivals(x, count, seed)
    kinds = {"validation images": validation} | kinds
    table = {name: checked.measure(part, x_test, x) for name, part in kinds.items()}
    print(f"\n{'images':18}{'Fréchet distance':>18}{'certainty':>11}{'rarest class':>14}{'nearest':>9}")
    for name, (distance, sure, share, near) in table.items():
        print(f"{name:18}{distance:18.2f}{sure:11.4f}{share:14.4f}{near:9.3f}")

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    some = kinds["GAN"][:12]
    for name, figure in {
        "training": draw_training(history, list(snapshots), distances),
        "progress": in_rows([f"step {at}" for at in snapshots], [part[:12] for part in snapshots.values()]),
        "nearest": in_rows(["drawn", "nearest in training"], [some, x[examiner.nearest(some, x)[0]]]),
        "samples": side_by_side(list(kinds), [part[:64] for part in kinds.values()], 8),
    }.items():
        figure.savefig(folder / f"{data}_{name}.png", dpi=150)
    print(f"pictures: {folder}/{data}_training.png, {data}_progress.png, {data}_nearest.png, {data}_samples.png")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", choices=["digits", "mnist", "fashion-mnist"])
    parser.add_argument("--steps", type=int, help="of training, about (default: 10000 of digits, 5000 of others)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/gan", help="folder of the pictures")
    parser.add_argument("--examples", type=int, help="use only so many images, for a quick look")
    arguments = vars(parser.parse_args())
    try:
        main(arguments.pop("data"), **arguments)
    except files.DatasetError as error:
        sys.exit(str(error))
