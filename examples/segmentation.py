"""Find cell nuclei in microscope pictures: which pixels belong to a nucleus?

A U-Net answers for every pixel at once. Its way down halves the picture again and again, so that each number sees more
of the surroundings: is this a nucleus or a speck? Its way up doubles the size again, and at each size it is handed what
the way down knew there: where exactly is the edge? Those hand-overs are its skip connections.

Nuclei cover a small part of most pictures, so that "no nucleus anywhere" is right about most pixels. The loss is
therefore the sum of two: the cross-entropy of each pixel, and one minus the Dice coefficient, which compares the area
that was found with the true one and does not care about the background.

The rival needs no training. Otsu's method takes, for each picture, the brightness that best splits its pixels into two
groups, a dark and a bright one. Nuclei are bright in these pictures, so that it is hard to beat where they are all
alike, and fails where a few outshine the others: after 15 epochs the U-Net is no better on average, and far better on
the pictures that Otsu's method does worst on.

Both are measured by the IoU (intersection over union): the area that is nucleus in truth and in the answer, divided by
the area that is nucleus in one of the two. 1 is perfect. `nuclei` says where the data comes from.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import files
import jax
import jax.numpy as jnp
import matplotlib
import nuclei
import numpy as np
import optax
from matplotlib.figure import Figure
from matplotlib.patches import Patch

import fnn
import fnn.plot

COLOURS = {"found": "#9ecae1", "missed": "#e31a1c", "false alarm": "#ff9f1c"}


def double_conv(features: int) -> fnn.Layer:
    """Two convolutions of 3 x 3, each normalised."""
    one = (fnn.conv(features, (3, 3), bias=False), fnn.batch_norm(), jax.nn.relu)
    return fnn.serial(*one, *one)


def u_net(widths: tuple[int, ...]) -> fnn.Layer:
    """A level of the U and, within its skip connection, the smaller U of the levels below.

    Args:
        widths: Channels of each level, from the full size down.

    Returns:
        A layer from ``(batch, height, width, channels)`` to ``(batch, height, width, widths[0])``; both sizes are
        multiples of ``2 ** (len(widths) - 1)``.
    """
    width, *below = widths
    if not below:
        return double_conv(width)
    deep = fnn.serial(fnn.max_pool((2, 2)), u_net(tuple(below)), fnn.conv_transpose(width, (2, 2), strides=2))
    join = lambda *ys: jnp.concatenate(ys, axis=-1)
    return fnn.serial(
        down=double_conv(width), skip=fnn.parallel(same=lambda x: x, deep=deep, join=join), up=double_conv(width)
    )


def network(widths: tuple[int, ...]) -> fnn.Layer:
    """The U, and a score for each pixel; above 0 it says nucleus. The axis of the one channel is left out."""
    return fnn.serial(unet=u_net(widths), score=fnn.conv(1, (1, 1)), pixels=partial(jnp.squeeze, axis=-1))


def loss(scores: jax.Array, masks: jax.Array) -> jax.Array:
    """Cross-entropy of the pixels plus one minus the soft Dice coefficient, for each picture."""
    entropy = optax.losses.sigmoid_binary_cross_entropy(scores, masks).mean(axis=(1, 2))
    found = jax.nn.sigmoid(scores)
    overlap, areas = (found * masks).sum(axis=(1, 2)), (found + masks).sum(axis=(1, 2))
    return entropy + 1 - (2 * overlap + 1) / (areas + 1)  # + 1: pictures without a nucleus divide by no zero


def iou(found: Any, masks: Any) -> Any:
    """Intersection over union of the areas of each picture; 1 where both are empty."""
    both, either = (found & masks).sum(axis=(1, 2)), (found | masks).sum(axis=(1, 2))
    return (both + 1e-9) / (either + 1e-9)


def augment(key: jax.Array, batch: Any, *, size: int) -> Any:
    """Cut a random square out of each picture, turn it over at random, and make it lighter or darker.

    A picture of nuclei has neither up nor down: all eight orientations are as good.
    """
    both = ("x", "target")
    crop, flip = fnn.augment.random_crop(size, parts=both), fnn.augment.random_flip((1, 2), parts=both)
    return fnn.augment.chain(crop, flip, transpose_and_light)(key, batch)


def transpose_and_light(key: jax.Array, batch: Any) -> Any:
    """Exchange height and width of every other picture and its mask, and change how light it is."""
    x, mask = batch
    transposed = jax.random.bernoulli(fnn.fold(key, "transpose"), shape=(len(x), 1, 1))
    light = jnp.exp(0.2 * jax.random.normal(fnn.fold(key, "light"), (len(x), 1, 1, 1)))
    x = jnp.where(transposed[..., None], x.swapaxes(1, 2), x)
    return x * light, jnp.where(transposed, mask.swapaxes(1, 2), mask)


def stretch(images: np.ndarray) -> np.ndarray:
    """Give each picture the same range of brightness: its 1st percentile becomes 0 and its 99.8th 1."""
    low, high = np.percentile(images, (1, 99.8), axis=(1, 2, 3), keepdims=True)
    return ((images - low) / np.maximum(high - low, 1e-3)).astype(np.float32)


def overlay(image: np.ndarray, mask: np.ndarray, found: np.ndarray) -> np.ndarray:
    """A dimmed picture with what was found, missed and wrongly called a nucleus in colours."""
    shown = 0.6 * np.clip(image, 0, 1) ** 0.5 * np.ones(3)
    areas = (mask & found, mask & ~found, ~mask & found)
    for area, colour in zip(areas, COLOURS.values()):
        shown[area] = 0.35 * shown[area] + 0.65 * np.array(matplotlib.colors.to_rgb(colour))
    return shown


def draw_overlays(images: np.ndarray, masks: np.ndarray, found: dict[str, np.ndarray], which: Any) -> Figure:
    """A row for each picture: the picture, the truth, and each method's answer with its IoU."""
    figure = Figure(figsize=(2.4 * (2 + len(found)), 2.6 * len(which) + 0.5), layout="constrained")
    grid = figure.subplots(len(which), 2 + len(found), squeeze=False)
    for row, number in zip(grid, which):
        image, mask = images[number], masks[number]
        row[0].imshow(np.clip(image[..., 0], 0, 1) ** 0.5, cmap="gray", vmin=0, vmax=1)
        row[1].imshow(mask, cmap="gray")
        for panel, (name, masks_found) in zip(row[2:], found.items()):
            panel.imshow(overlay(image, mask, masks_found[number]))
            panel.set_title(f"{name}: IoU {iou(masks_found[number : number + 1], masks[number : number + 1])[0]:.2f}")
        for panel, title in zip(row, ("test picture", "nuclei by experts")):
            panel.set_title(title)
        for panel in row:
            panel.set_axis_off()
    handles = [Patch(color=colour, label=label) for label, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_scores(scores: dict[str, np.ndarray]) -> Figure:
    """The IoU of every test picture by the two methods, one against the other."""
    (x_name, x), (y_name, y) = scores.items()
    figure = Figure(figsize=(4.8, 5.0), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linewidth=1, linestyle=":", label="equally good")
    axes.scatter(x, y, s=22, alpha=0.7, label="a test picture")
    axes.set(xlabel=f"IoU, {x_name}", ylabel=f"IoU, {y_name}", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title(f"{y_name} is better above the line")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    axes.grid(alpha=0.3)
    return figure


def main(
    *,
    widths: tuple[int, ...] = (8, 16, 32, 64),
    crop: int = 128,
    epochs: int = 15,
    batch_size: int = 8,
    learning_rate: float = 3e-3,
    seed: int = 0,
    output: str | Path = "outputs/segmentation",
    examples: int | None = None,
) -> dict[str, float]:
    """Train the U-Net, test it beside Otsu's method, and save three pictures.

    Args:
        widths: Channels of each level of the U.
        crop: Height and width of the squares it is trained on; a multiple of 2 for each level but the first.
        epochs: Passes over the training pictures. The weights of the epoch with the best IoU on the validation
            pictures are taken.
        batch_size: Squares for each step.
        learning_rate: The highest of a cosine schedule.
        seed: Decides all that is random.
        output: Folder of the pictures.
        examples: Use only so many pictures in all, for a quick look.

    Returns:
        The mean IoU of the test pictures, by method.
    """
    from skimage.filters import threshold_otsu

    data = nuclei.load()
    raw, masks = data.images[:examples], data.masks[:examples]
    images = stretch(raw)
    # The names are random, so that the first pictures of a sorted list are a random part of it.
    test, validation = len(images) // 5, len(images) // 10
    parts = {"validation": slice(validation), "test": slice(validation, validation + test)}
    x, y = images[validation + test :], masks[validation + test :]
    print(f"nuclei: {len(x)} pictures to train on, {validation} to choose by, {test} to test, {images.shape[1:3]} each")
    print(f"{masks.mean():.1%} of all pixels are nucleus")

    net = network(widths)
    objective = fnn.supervised(net, loss, metrics={"iou": lambda scores, masks: iou(scores > 0, masks)})
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, epochs * (len(x) // batch_size)))
    run = fnn.train_init(net, optimizer, jax.random.key(seed), x[:1, :crop, :crop])
    print(f"{fnn.count(run.params)} parameters")
    run, history = fnn.fit(
        objective, optimizer, run, (x, y), batch_size=batch_size, epochs=epochs, augment=partial(augment, size=crop),
        validation=tuple(part[parts["validation"]] for part in (images, masks)),
        early_stopping=fnn.early_stopping(epochs, maximize="validation/iou"),
    )  # fmt: skip

    held_out, truth = images[parts["test"]], masks[parts["test"]]
    found = {
        "Otsu": np.stack([image[..., 0] > threshold_otsu(image) for image in raw[parts["test"]]]),
        "U-Net": np.asarray(fnn.predict(net, run.params, run.state, held_out, batch_size=8) > 0),
    }
    scores = {name: iou(masks_found, truth) for name, masks_found in found.items()}
    print(f"test pictures  {'mean IoU':>9}{'median':>8}{'worst':>8}{'mean Dice':>11}")
    for name, values in scores.items():
        dice = 2 * values / (1 + values)
        print(f"{name:15}{values.mean():9.4f}{np.median(values):8.4f}{values.min():8.4f}{dice.mean():11.4f}")
    ahead = fnn.compare(scores["U-Net"], scores["Otsu"])
    print(
        f"U-Net minus Otsu: {ahead.difference:.4f}, 95% interval {ahead.low:.4f} to {ahead.high:.4f}; "
        f"the U-Net is ahead on {(scores['U-Net'] > scores['Otsu']).sum()} of {test} pictures"
    )

    order = np.argsort(scores["U-Net"] - scores["Otsu"])
    which = dict.fromkeys(
        int(order[int(place * (test - 1))]) for place in (0, 0.5, 0.9, 1)
    )  # from worst to best for it
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in {
        "overlays": draw_overlays(held_out, truth, found, which),
        "scores": draw_scores(scores),
        "learning_curves": fnn.plot.learning_curves(history),
    }.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
    print(f"pictures: {folder}/overlays.png, scores.png, learning_curves.png")
    return {name: float(values.mean()) for name, values in scores.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[8, 16, 32, 64], help="channels of each level of the U"
    )
    parser.add_argument("--crop", type=int, default=128, help="height and width of the training squares (default: 128)")
    parser.add_argument("--epochs", type=int, default=15, help="passes over the training pictures (default: 15)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/segmentation", help="folder of the pictures")
    parser.add_argument("--examples", type=int, help="use only so many pictures in all, for a quick look")
    arguments = vars(parser.parse_args())
    try:
        main(widths=tuple(arguments.pop("widths")), **arguments)
    except files.DatasetError as error:
        sys.exit(str(error))
