"""Describe images by a few numbers, and draw new ones: a variational autoencoder beside PCA.

An encoder turns an image into a few numbers, its code; a decoder turns a code into an image. In a variational
autoencoder the encoder gives a mean and a deviation of each number, and the decoder gets a random draw from there. It
is trained to make the evidence lower bound large, which is how well the image is restored, less how far the codes are
from a standard normal distribution. So the decoder makes an image of any standard normal code: that is a sample.

A random draw has no gradient, but ``mean + deviation * noise`` has one in its mean and deviation, the noise being
drawn apart from them: the reparametrisation trick (Kingma and Welling, Auto-encoding variational Bayes, 2013,
arXiv:1312.6114). Here it is a layer of one line that asks for a key.

PCA does the same with straight lines only. Both get the same number of components, and are compared on images that
were held out: by the error of restored pixels, by the probability that they give to an image (PCA is a probabilistic
model too), and by how well its nearest neighbours in code tell the class, which neither was told.

By default this reads the UCI digits that scikit-learn brings along; ``--data`` reads MNIST or Fashion-MNIST.
"""

import argparse
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
from mosaic import in_rows, side_by_side
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

import fnn

PAIRS = ((0, 6), (3, 8), (1, 7))  # classes to go from one to the other


def encoder(components: int, hidden: int) -> fnn.Layer:
    """Image to code: the mean of each number, and the logarithm of its variance."""
    return fnn.serial(
        fnn.flatten(), fnn.dense(hidden), jax.nn.relu, fnn.dense(hidden // 2), jax.nn.relu,
        fnn.dense(2 * components), lambda y: jnp.split(y, 2, axis=-1),
    )  # fmt: skip


def decoder(shape: tuple[int, ...], hidden: int) -> fnn.Layer:
    """Code to image."""
    return fnn.serial(
        fnn.dense(hidden // 2), jax.nn.relu, fnn.dense(hidden), jax.nn.relu,
        fnn.dense(int(np.prod(shape))), jax.nn.sigmoid, fnn.reshape(*shape),
    )  # fmt: skip


def draw(mean: jax.Array, log_variance: jax.Array, *, key: jax.Array) -> jax.Array:
    """A code near its mean: all that is random, with a key of its own."""
    return mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)


def autoencoder(shape: tuple[int, ...], components: int, hidden: int) -> fnn.Layer:
    """Image to everything that the lower bound is made of."""

    def forward(f: Any, x: jax.Array) -> dict[str, jax.Array]:
        mean, log_variance = f.encoder(x)
        code = f.draw(mean, log_variance)
        return {
            "mean": mean, "log_variance": log_variance, "code": code,
            "image": f.decoder(code), "log_deviation": f.log_deviation(),
        }  # fmt: skip

    return fnn.wire(
        forward,
        encoder=encoder(components, hidden),
        draw=fnn.layer(None, draw),
        decoder=decoder(shape, hidden),
        # of a pixel around what the decoder says, the same for all pixels
        log_deviation=fnn.parameter((), jax.nn.initializers.constant(-1.2)),
    )


def log_normal(x: jax.Array, mean: Any, log_deviation: Any) -> jax.Array:
    """The logarithm of a normal density, summed over all numbers of each example, ``(examples,)``."""
    terms = -0.5 * ((x - mean) * jnp.exp(-log_deviation)) ** 2 - log_deviation - 0.5 * np.log(2 * np.pi)
    return terms.reshape(len(x), -1).sum(1)


def evidence_lower_bound(net: fnn.Layer) -> Any:
    """The objective: minus the lower bound, in nats per image. A batch is images, and nothing else."""

    def objective(params: Any, state: Any, x: jax.Array, *, key: jax.Array, train: bool) -> Any:
        y, state = net.apply(params, state, x, key=key, train=train)
        restored = log_normal(x, y["image"], y["log_deviation"]).mean()
        variance = jnp.exp(y["log_variance"])
        divergence = 0.5 * (y["mean"] ** 2 + variance - y["log_variance"] - 1).sum(-1).mean()
        return divergence - restored, (state, {"divergence": divergence})

    return objective


class Model(NamedTuple):
    """What is compared, VAE or PCA: plain functions of arrays.

    Attributes:
        encode: Images to codes ``(images, components)``.
        decode: Codes to images.
        log_likelihood: Of each image, in nats, ``(images,)``; for the VAE at least so much.
    """

    encode: Any
    decode: Any
    log_likelihood: Any


def train_vae(x: np.ndarray, components: int, hidden: int, epochs: int, batch_size: int, key: jax.Array) -> Model:
    """Train until images that are held out no longer gain."""
    net, optimizer = autoencoder(x.shape[1:], components, hidden), optax.adam(1e-3)
    held_out = len(x) // 10
    run = fnn.train_init(net, optimizer, key, x)
    run, history = fnn.fit(
        evidence_lower_bound(net), optimizer, run, x[held_out:], batch_size=batch_size, epochs=epochs,
        validation=x[:held_out], progress=False,
        early_stopping=fnn.early_stopping(max(3, epochs // 10), minimize="validation/loss"),
    )  # fmt: skip
    best = int(history["validation/loss"].argmin())
    losses = f"loss {history['loss'][best]:.1f}, of validation {history['validation/loss'][best]:.1f}"
    print(f"VAE of {components}: {fnn.count(run.params)} parameters, best epoch {best + 1}, {losses}", flush=True)
    params = run.params

    def importance(x: jax.Array, key: jax.Array) -> jax.Array:
        y, _ = net.apply(params, run.state, x, key=key)
        evidence = log_normal(x, y["image"], y["log_deviation"]) + log_normal(y["code"], 0.0, jnp.zeros(()))
        return evidence - log_normal(y["code"], y["mean"], y["log_variance"] / 2)

    @jax.jit
    def log_likelihood(x: jax.Array) -> jax.Array:
        """A closer bound, of the mean over draws (Burda et al., Importance weighted autoencoders, 2015)."""
        draws = jax.lax.map(lambda one: importance(x, one), jax.random.split(fnn.fold(key, "importance"), 64))
        return jax.nn.logsumexp(draws, axis=0) - np.log(len(draws))

    return Model(
        lambda x: fnn.predict(encoder(components, hidden), params["encoder"], {}, x)[0],
        lambda code: fnn.predict(decoder(x.shape[1:], hidden), params["decoder"], {}, code),
        log_likelihood,
    )


def fit_pca(x: np.ndarray, components: int) -> Model:
    """PCA, scaled so that its codes are standard normal (Tipping and Bishop, 1999)."""
    flat = lambda x: np.asarray(x).reshape(len(x), -1)
    pca = PCA(components, svd_solver="full").fit(flat(x))
    scale = np.sqrt(pca.explained_variance_)
    return Model(
        lambda x: pca.transform(flat(x)) / scale,
        lambda code: pca.inverse_transform(np.asarray(code) * scale).reshape(len(code), *x.shape[1:]),
        lambda x: pca.score_samples(flat(x)),
    )


def draw_map(models: dict[str, Model], x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> Figure:
    """Where test images lie in the plane of two components, coloured by class."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    panels = figure.subplots(1, len(models))
    for panel, (title, model) in zip(panels, models.items()):
        code = np.asarray(model.encode(x[:3000]))
        for number, name in enumerate(names):
            chosen = code[y[:3000] == number]
            panel.scatter(*chosen.T, s=60 * len(x[:3000]) ** -0.4, color=f"C{number}", label=name, linewidths=0)
        panel.set(title=title, xlabel="first component", ylabel="second component", aspect="equal")
        panel.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, markerscale=2)
    return figure


def draw_interpolations(models: dict[str, Model], x: np.ndarray, y: np.ndarray) -> Figure:
    """From one test image to another: along a straight line of codes, and of pixels."""
    shares = np.linspace(0, 1, 9)[:, None]
    titles, rows = [], []
    for pair in PAIRS:
        first, last = (x[np.flatnonzero(y == number)[:1]] for number in pair)
        between = lambda a, b: (1 - shares) * a + shares * b
        for name, model in models.items():
            titles.append(name)
            rows.append(model.decode(between(model.encode(first), model.encode(last))))
        titles.append("pixels")
        rows.append(between(first.reshape(1, -1), last.reshape(1, -1)).reshape(-1, *x.shape[1:]))
    return in_rows(titles, rows)


def main(
    data: str = "digits",
    *,
    components: Sequence[int] = (2, 8),
    hidden: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    output: str | Path = "outputs/autoencoder",
    examples: int | None = None,
) -> dict[tuple[str, int], list[float]]:
    """Fit both models for each number of components, print the table, and save four pictures.

    Args:
        data: ``"digits"``, ``"mnist"`` or ``"fashion-mnist"``.
        components: Numbers in a code; the first must be 2, which can be drawn.
        hidden: Width of the widest layer; None: 256 of digits, 512 of the others.
        epochs: Passes over the training images, at most; None: 300 of digits, 30 of the others.
        batch_size: Images for each step; None: 32 of digits, 128 of the others.
        seed: Decides all that is random.
        output: Folder of the pictures.
        examples: Use only so many images for training and for testing, for a quick look.

    Returns:
        By model and components: error of a pixel, log-likelihood, and accuracy of neighbours, of the test images.
    """
    if components[0] != 2:
        raise ValueError(f"the first number of components must be 2, for the map, got {components[0]}")
    images = datasets.load(data)
    x, y, x_test, y_test = (part[:examples] for part in images[:4])
    small = data == "digits"
    hidden, epochs, batch_size = (
        hidden or (256 if small else 512),
        epochs or (300 if small else 30),
        batch_size or (32 if small else 128),
    )
    print(f"{data}: {len(x)} images to train on, a tenth of them to watch, {len(x_test)} to test, {x.shape[1:]} each")

    models, measured = {}, {}
    for count in components:
        models["VAE", count] = train_vae(x, count, hidden, epochs, batch_size, jax.random.key(seed))
        models["PCA", count] = fit_pca(x, count)
    print(f"\n{'model':6}{'components':>11}{'error of a pixel':>18}{'nats per image':>16}{'5 neighbours':>14}")
    for (name, count), model in models.items():
        code, code_test = np.asarray(model.encode(x)), np.asarray(model.encode(x_test))
        neighbours = KNeighborsClassifier(5).fit(code, y).score(code_test, y_test)
        error = float(np.sqrt(np.mean((np.asarray(model.decode(code_test)) - x_test) ** 2)))
        nats = float(np.mean(model.log_likelihood(x_test[:2000])))  # many draws for each
        measured[name, count] = [error, nats, float(neighbours)]
        print(f"{name:6}{count:11}{error:18.4f}{nats:16.2f}{neighbours:14.4f}", flush=True)

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    two = {name: models[name, 2] for name in ("VAE", "PCA")}
    most = {name: models[name, components[-1]] for name in ("VAE", "PCA")}
    chosen = [int(np.flatnonzero(y_test == number)[0]) for number in range(len(images.classes))]
    codes = np.random.default_rng(seed).standard_normal((64, components[-1])).astype(np.float32)
    for name, figure in {
        "map": draw_map(two, x_test, y_test, images.classes),
        "interpolation": draw_interpolations(most, x_test, y_test),
        "restored": in_rows(
            ["test images", *(f"{name} of {count}" for name, count in models)],
            [x_test[chosen], *(model.decode(model.encode(x_test[chosen])) for model in models.values())],
        ),
        "samples": side_by_side(
            ["test images", *(f"{name}: samples" for name in most)],
            [x_test[:64], *(model.decode(codes) for model in most.values())],
            8,
        ),
    }.items():
        figure.savefig(folder / f"{data}_{name}.png", dpi=150)
    print(f"pictures: {folder}/{data}_map.png, {data}_interpolation.png, {data}_restored.png, {data}_samples.png")
    return measured


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", choices=["digits", "mnist", "fashion-mnist"])
    parser.add_argument("--components", type=int, nargs="+", default=[2, 8], help="numbers in a code (default: 2 8)")
    parser.add_argument("--hidden", type=int, help="width of the widest layer (default: 256 of digits, 512 of others)")
    parser.add_argument("--epochs", type=int, help="at most (default: 300 of digits, 30 of others)")
    parser.add_argument("--batch-size", type=int, help="default: 32 of digits, 128 of others")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/autoencoder", help="folder of the pictures")
    parser.add_argument("--examples", type=int, help="use only so many images, for a quick look")
    arguments = vars(parser.parse_args())
    try:
        main(arguments.pop("data"), **arguments)
    except (files.DatasetError, ValueError) as error:
        sys.exit(str(error))
