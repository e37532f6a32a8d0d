"""A neural network by hand, next to the library.

Forward pass, back-propagation, gradient descent, convolution and max pooling are spelled out here in plain NumPy. Each
result is printed beside what fnn and ``jax.grad`` give for the same numbers; they agree to rounding, and the script
fails if they do not. Read it from top to bottom: nothing is hidden, and nothing more is needed to train a network.

    python examples/from_scratch.py
    python examples/from_scratch.py --hidden 32 32 32 32 --loss squared_error

The second one is deep and hardly learns. The picture that it saves shows why.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import fnn

Weights = list[tuple[np.ndarray, np.ndarray]]  # of each layer: kernel (features in, features out) and bias

# 1. The network -------------------------------------------------------------------------------------------------------
#
# A layer multiplies by a matrix, adds a bias, and bends the result:
#
#     score_l      = activation_(l-1) @ kernel_l + bias_l
#     activation_l = sigmoid(score_l)
#
# The first activation is the input, a row for each example. The last score says, for each class, how much the network
# believes in it; its sigmoid is a probability.


def sigmoid(score: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-score)): squeezes any number between 0 and 1. Written with tanh, it never overflows."""
    return 0.5 * (1 + np.tanh(0.5 * score))


def forward(weights: Weights, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Run the network. What the layers gave is kept, because the way back needs it."""
    activations = [x]
    score = x
    for kernel, bias in weights:
        score = activations[-1] @ kernel + bias
        activations.append(sigmoid(score))
    return activations, score


# 2. The loss ----------------------------------------------------------------------------------------------------------
#
# One number that says how wrong the network is, averaged over the examples. The target of a class is 1 or 0.


def loss_of(score: np.ndarray, target: np.ndarray, loss: str) -> float:
    """The squared error of the probabilities, or their cross-entropy: minus the log of what the truth was given."""
    if loss == "squared_error":
        return float(((sigmoid(score) - target) ** 2).sum() / 2 / len(target))
    # -target * log(p) - (1 - target) * log(1 - p) with p = sigmoid(score), in a form that never takes log(0)
    return float((np.logaddexp(0, score) - target * score).sum() / len(target))


# 3. Back-propagation --------------------------------------------------------------------------------------------------
#
# The gradient says how the loss changes with each weight. The chain rule gives it layer by layer, from the last to the
# first. `error` is the gradient with respect to the scores of the layer at hand:
#
#     a weight multiplies an activation, so           d loss / d kernel     = activations below, transposed @ error
#     a bias is added for every example, so           d loss / d bias       = sum of the errors
#     activations below came through the kernel, so   d loss / d activation = error @ kernel, transposed
#     each is the sigmoid of a score, so              error below           = d loss / d activation * its slope


def slope(activation: np.ndarray) -> np.ndarray:
    """The derivative of the sigmoid, from its value: 1/4 at most, next to nothing where it is near 0 or 1."""
    return activation * (1 - activation)


def backward(
    weights: Weights, activations: list[np.ndarray], target: np.ndarray, loss: str
) -> tuple[Weights, np.ndarray]:
    """The gradients of the loss: those of the weights, in the shape of the weights, and that of the input."""
    output = activations[-1]
    # Cross-entropy is made for the sigmoid: its slope cancels. With the squared error it stays, and an output that is
    # surely wrong (near 0 where the target is 1) hardly learns.
    error = (output - target) / len(target)
    if loss == "squared_error":
        error = error * slope(output)
    gradients: Weights = []
    input_gradient = error
    for (kernel, _), below in zip(reversed(weights), reversed(activations[:-1])):
        gradients.append((below.T @ error, error.sum(axis=0)))
        input_gradient = error @ kernel.T
        error = input_gradient * slope(below)
    return gradients[::-1], input_gradient


# 4. Gradient descent --------------------------------------------------------------------------------------------------
#
# Walk downhill: move every weight a little against its gradient, and again.


def descend(weights: Weights, gradients: Weights, learning_rate: float) -> Weights:
    """One step."""
    return [
        (kernel - learning_rate * kernel_gradient, bias - learning_rate * bias_gradient)
        for (kernel, bias), (kernel_gradient, bias_gradient) in zip(weights, gradients)
    ]


def train(
    weights: Weights, x: np.ndarray, target: np.ndarray, loss: str, *, steps: int, learning_rate: float
) -> tuple[Weights, list[float], list[list[float]]]:
    """Train on all examples at once. Returns the weights and, for each step, the loss and each layer's gradient."""
    losses, sizes = [], []
    for _ in range(steps):
        activations, score = forward(weights, x)
        gradients, _ = backward(weights, activations, target, loss)
        losses.append(loss_of(score, target, loss))
        sizes.append([float(np.sqrt(np.mean(kernel_gradient**2))) for kernel_gradient, _ in gradients])
        weights = descend(weights, gradients, learning_rate)
    return weights, losses, sizes


# 5. Convolution -------------------------------------------------------------------------------------------------------
#
# A small kernel slides over the picture. At each place it is multiplied with the patch beneath it and summed: one small
# set of weights finds an edge wherever it is. `stride` is how far it moves; `padding` is how many rows and columns are
# added around the picture, so that the kernel can also be centred on its border.


def padding_of(size: int, window: int, stride: int, padding: str | int) -> tuple[int, int]:
    """How many elements to add before and after an axis."""
    if padding == "VALID":  # none: the kernel stays inside
        return 0, 0
    if padding == "SAME":  # as many as it takes for size / stride places, rounded up; an odd one goes to the end
        places = -(-size // stride)
        total = max((places - 1) * stride + window - size, 0)
        return total // 2, total - total // 2
    return int(padding), int(padding)


def pad(x: np.ndarray, window: int, stride: int, padding: str | int, value: float) -> tuple[np.ndarray, Any]:
    """Add a border of ``value`` to pictures (examples, height, width, channels); also the place of ``x`` in it."""
    rows, columns = (padding_of(size, window, stride, padding) for size in x.shape[1:3])
    padded = np.pad(x, ((0, 0), rows, columns, (0, 0)), constant_values=value)
    inside = np.s_[:, rows[0] : rows[0] + x.shape[1], columns[0] : columns[0] + x.shape[2]]
    return padded, inside


def size_of(padded: np.ndarray, window: int, stride: int) -> tuple[int, int]:
    """How many places the window has, down and across."""
    return (padded.shape[1] - window) // stride + 1, (padded.shape[2] - window) // stride + 1


def places(padded: np.ndarray, window: int, stride: int) -> Iterator[tuple[int, int, Any]]:
    """Every place of the window: its row and column in the result, and where the patch beneath it is."""
    rows, columns = size_of(padded, window, stride)
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            yield i, j, np.s_[:, top : top + window, left : left + window]


def conv2d(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int, padding: str | int) -> np.ndarray:
    """Convolve pictures with a kernel (window, window, channels, features)."""
    window, features = len(kernel), kernel.shape[-1]
    padded, _ = pad(x, window, stride, padding, 0)
    y = np.zeros((len(x), *size_of(padded, window, stride), features))
    for i, j, patch in places(padded, window, stride):
        for feature in range(features):
            y[:, i, j, feature] = (padded[patch] * kernel[..., feature]).sum(axis=(1, 2, 3)) + bias[feature]
    return y


def conv2d_backward(
    x: np.ndarray, kernel: np.ndarray, error: np.ndarray, stride: int, padding: str | int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of picture, kernel and bias, from ``error``, the gradient of the result of `conv2d`.

    The rules are those of section 3. A weight is used at every place, so its gradient is the sum over all places; a
    pixel lies beneath several places, so its gradient is a sum too.
    """
    window = len(kernel)
    padded, inside = pad(x, window, stride, padding, 0)
    padded_gradient, kernel_gradient = np.zeros_like(padded), np.zeros_like(kernel)
    for i, j, patch in places(padded, window, stride):
        for feature in range(kernel.shape[-1]):
            here = error[:, i, j, feature].reshape(-1, 1, 1, 1)
            kernel_gradient[..., feature] += (padded[patch] * here).sum(axis=0)
            padded_gradient[patch] += kernel[..., feature] * here
    return padded_gradient[inside], kernel_gradient, error.sum(axis=(0, 1, 2))


# 6. Max pooling -------------------------------------------------------------------------------------------------------
#
# Keeps the largest value beneath a window, each channel by itself: the picture gets smaller, and what was found stays
# found if it moves by a pixel. Only the largest value mattered, so it alone gets the gradient.


def max_pool(x: np.ndarray, window: int, stride: int, padding: str | int) -> np.ndarray:
    """The largest value at each place; the padding never wins."""
    padded, _ = pad(x, window, stride, padding, -np.inf)
    y = np.zeros((len(x), *size_of(padded, window, stride), x.shape[-1]))
    for i, j, patch in places(padded, window, stride):
        y[:, i, j] = padded[patch].max(axis=(1, 2))
    return y


def max_pool_backward(x: np.ndarray, error: np.ndarray, window: int, stride: int, padding: str | int) -> np.ndarray:
    """The gradient of the picture, from ``error``, the gradient of the result of `max_pool`."""
    padded, inside = pad(x, window, stride, padding, -np.inf)
    padded_gradient = np.zeros_like(padded)
    for i, j, patch in places(padded, window, stride):
        largest = padded[patch].max(axis=(1, 2), keepdims=True)
        padded_gradient[patch] += (padded[patch] == largest) * error[:, i : i + 1, j : j + 1]
    return padded_gradient[inside]


# 7. The same with fnn -------------------------------------------------------------------------------------------------
#
# The library does all of the above in a few lines, and jax.grad finds gradients by itself.


def network(hidden: tuple[int, ...], classes: int) -> fnn.Layer:
    """Dense layers with sigmoids between them. The last sigmoid belongs to the loss."""
    layers = [layer for features in hidden for layer in (fnn.dense(features), jax.nn.sigmoid)]
    return fnn.serial(*layers, fnn.dense(classes))


LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cross_entropy": lambda score, target: optax.losses.sigmoid_binary_cross_entropy(score, target).sum(-1),
    "squared_error": lambda score, target: optax.losses.l2_loss(jax.nn.sigmoid(score), target).sum(-1),
}


class Comparison:
    """A table of quantities, by hand and with fnn, and by how much they differ."""

    def __init__(self, tolerance: float):
        self.tolerance = tolerance
        self.differences: dict[str, float] = {}
        print("arrays are shown by their largest magnitude, to which the largest difference of an element is relative")
        print(f"{'quantity':<58} {'by hand':>12} {'fnn':>12} {'largest difference':>20}")

    def add(self, quantity: str, by_hand: Any, with_fnn: Any) -> None:
        """Compare two arrays and print a row."""
        by_hand, with_fnn = np.asarray(by_hand), np.asarray(with_fnn, np.float64)
        if by_hand.shape != with_fnn.shape:
            raise ValueError(f"{quantity} has the shape {by_hand.shape} by hand and {with_fnn.shape} with fnn")
        size = np.abs(by_hand).max()
        self.differences[quantity] = difference = float(np.abs(by_hand - with_fnn).max() / size)
        print(f"{quantity:<58} {size:>12.6g} {np.abs(with_fnn).max():>12.6g} {difference:>20.1e}")

    def check(self) -> None:
        """Raise if something differs by more than rounding."""
        # "not smaller" and not "larger": a difference that is not a number is no agreement
        if wrong := [name for name, size in self.differences.items() if not size < self.tolerance]:
            raise ArithmeticError(f"by hand and with fnn differ by more than rounding: {', '.join(wrong)}")


class Training(NamedTuple):
    """What the picture shows of both trainings."""

    by_hand: list[float]
    with_fnn: np.ndarray
    gradients: list[list[float]]


def compare_training(
    table: Comparison, hidden: tuple[int, ...], loss: str, steps: int, learning_rate: float, seed: int
) -> Training:
    """Train one network by hand and one with fnn on the same digits, from the same weights."""
    data = datasets.load("digits")
    classes = len(data.classes)
    x, x_test = (images.reshape(len(images), -1) for images in (data.x_train, data.x_test))
    target = np.eye(classes, dtype=np.float32)[data.y_train]

    net, optimizer = network(hidden, classes), optax.sgd(learning_rate)
    objective = fnn.supervised(net, LOSSES[loss])
    run = fnn.train_init(net, optimizer, jax.random.key(seed), x)
    weights = weights_of(run.params)

    activations, score = forward(weights, x)
    gradients, input_gradient = backward(weights, activations, target, loss)

    def mean_loss(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        score, _ = net.apply(params, {}, x)
        return LOSSES[loss](score, jnp.asarray(target)).mean(), score

    differentiate = jax.jit(jax.value_and_grad(mean_loss, argnums=(0, 1), has_aux=True))
    (value, its_score), (params_gradient, x_gradient) = differentiate(run.params, x)
    table.add("scores", score, its_score)
    table.add("loss", loss_of(score, target, loss), value)
    for number, (mine, its) in enumerate(zip(gradients, weights_of(params_gradient)), start=1):
        table.add(f"layer {number}, gradient of the kernel", mine[0], its[0])
        table.add(f"layer {number}, gradient of the bias", mine[1], its[1])
    table.add("gradient of the input", input_gradient, x_gradient)

    weights, losses, sizes = train(weights, x, target, loss, steps=steps, learning_rate=learning_rate)
    run, history = fnn.fit(
        objective, optimizer, run, (x, target), batch_size=len(x), epochs=steps, progress=False
    )  # an epoch of one batch is a step
    table.add(f"losses of {steps} steps", losses, history["loss"])
    for number, (mine, its) in enumerate(zip(weights, weights_of(run.params)), start=1):
        table.add(f"layer {number}, kernel after training", mine[0], its[0])
        table.add(f"layer {number}, bias after training", mine[1], its[1])

    scores = forward(weights, x_test)[1], fnn.predict(net, run.params, run.state, x_test)
    right = [np.mean(np.argmax(score, axis=1) == data.y_test) for score in scores]
    print(f"of the digits never seen, {right[0]:.1%} are right by hand and {right[1]:.1%} with fnn")
    return Training(losses, history["loss"], sizes)


def weights_of(params: dict[str, dict[str, jax.Array]]) -> Weights:
    """Copy the parameters of fnn's network, in double precision: what is left to differ is fnn's rounding."""
    layers = [params[f"dense_{number}"] for number in range(len(params))]
    return [(np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64)) for layer in layers]


WINDOW = 3
SETTINGS: tuple[tuple[int, str | int], ...] = ((1, "SAME"), (2, "SAME"), (2, "VALID"), (2, 1))


def with_fnn(layer: fnn.Layer, params: dict[str, np.ndarray], x: np.ndarray, error: np.ndarray) -> tuple[Any, Any, Any]:
    """The layer's result and, from ``error``, the gradient of the result, those of parameters and picture."""

    def through(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, _ = layer.apply(params, {}, x)
        return (y * error).sum(), y

    (params_gradient, picture_gradient), y = jax.jit(jax.grad(through, argnums=(0, 1), has_aux=True))(params, x)
    return y, params_gradient, picture_gradient


def compare_windows(table: Comparison, pictures: np.ndarray, seed: int) -> None:
    """Convolution and max pooling of real digits, with several strides and paddings."""
    generator = np.random.default_rng(seed)
    normal = lambda *shape: generator.standard_normal(shape, np.float32)
    # A little noise, because where two pixels tie for the largest, max pooling has no derivative.
    x = pictures + 0.01 * normal(*pictures.shape)
    kernel, bias = normal(WINDOW, WINDOW, x.shape[-1], 2), normal(2)
    for stride, padding in SETTINGS:
        options = {"strides": stride, "padding": padding}
        y = conv2d(x, kernel, bias, stride, padding)
        error = normal(*y.shape)  # as if it came back from the rest of a network
        layer = fnn.conv(2, (WINDOW, WINDOW), **options)
        its, params_gradient, picture_gradient = with_fnn(layer, {"kernel": kernel, "bias": bias}, x, error)
        gradients = conv2d_backward(x, kernel, error, stride, padding)
        name = f"conv2d, stride {stride}, padding {padding}"
        table.add(name, y, its)
        table.add(f"{name}, gradient of the picture", gradients[0], picture_gradient)
        table.add(f"{name}, gradient of the kernel", gradients[1], params_gradient["kernel"])
        table.add(f"{name}, gradient of the bias", gradients[2], params_gradient["bias"])

        y = max_pool(x, WINDOW, stride, padding)
        error = normal(*y.shape)
        its, _, picture_gradient = with_fnn(fnn.max_pool((WINDOW, WINDOW), **options), {}, x, error)
        name = f"max_pool, stride {stride}, padding {padding}"
        table.add(name, y, its)
        mine = max_pool_backward(x, error, WINDOW, stride, padding)
        table.add(f"{name}, gradient of the picture", mine, picture_gradient)


# 8. A picture ---------------------------------------------------------------------------------------------------------


def draw(training: Training, picture: np.ndarray) -> Figure:
    """Both losses, the gradient in each layer, and what convolution and pooling make of a digit."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(3, 2))
    above, below = parts
    losses, gradients = above.subplots(1, 2)

    steps = np.arange(len(training.by_hand))
    losses.plot(steps, training.by_hand, color="tab:orange", linewidth=5, alpha=0.5, label="by hand")
    losses.plot(steps, training.with_fnn, color="black", linewidth=1.2, label="with fnn")
    losses.set(title="The loss falls, the same by hand and with fnn", xlabel="step", ylabel="loss")

    depth = len(training.gradients[0])
    for number, sizes in enumerate(np.transpose(training.gradients), start=1):
        name = {1: " (first)", depth: " (last)"}.get(number, "")
        gradients.semilogy(steps, sizes, color=f"C{number - 1}", label=f"layer {number}{name}")
    gradients.set(title="The gradient shrinks on its way to the first layer", xlabel="step")
    gradients.set_ylabel("root mean square over the kernel")
    for axes in (losses, gradients):
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)

    edge = np.array([[1, 1, 1], [0, 0, 0], [-1, -1, -1]], np.float64).reshape(3, 3, 1, 1)
    found = conv2d(picture[None], edge, np.zeros(1), 1, "SAME")
    panels = {
        "A digit": picture,
        "A kernel: bright above dark": edge[..., 0],
        "Convolution: lower edges are red": found[0],
        "Max pooling: half the size": max_pool(found, 2, 2, "VALID")[0],
    }
    for axes, (title, pixels) in zip(below.subplots(1, len(panels)), panels.items()):
        if pixels is picture:
            axes.imshow(pixels[..., 0], cmap="gray")
        else:  # blue is negative, white zero, red positive
            limit = np.abs(pixels).max()
            axes.imshow(pixels[..., 0], cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(title, fontsize="medium")
        axes.set(xticks=[], yticks=[])
    return figure


def main(
    hidden: tuple[int, ...] = (32, 16),
    loss: str = "cross_entropy",
    *,
    steps: int = 300,
    learning_rate: float = 1.0,
    tolerance: float = 1e-4,
    seed: int = 0,
    output: str | Path = "outputs/from_scratch",
) -> dict[str, float]:
    """Compare everything by hand with fnn, and save a picture.

    Args:
        hidden: Width of each hidden layer.
        loss: ``"cross_entropy"`` or ``"squared_error"``.
        steps: Steps of gradient descent, each on all digits.
        learning_rate: How far a step goes.
        tolerance: What counts as rounding, relative to the largest value.
        seed: Decides the first weights, and the numbers for the convolution.
        output: Folder of the picture.

    Returns:
        By quantity, the largest difference.

    Raises:
        ArithmeticError: when a quantity by hand and with fnn differs by more than the tolerance.
    """
    table = Comparison(tolerance)
    # GPUs and TPUs multiply float32 with fewer digits unless they are asked not to.
    with jax.default_matmul_precision("highest"):
        training = compare_training(table, hidden, loss, steps, learning_rate, seed)
        pictures = datasets.load("digits").x_test[:2]
        compare_windows(table, pictures, seed)

    path = Path(output) / "from_scratch.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(training, pictures[0]).savefig(path, dpi=150)
    print(f"picture: {path}")
    table.check()
    return table.differences


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, nargs="*", default=(32, 16), help="width of each hidden layer")
    parser.add_argument("--loss", default="cross_entropy", choices=sorted(LOSSES))
    parser.add_argument("--steps", type=int, default=300, help="steps of gradient descent, each on all digits")
    parser.add_argument("--learning-rate", type=float, default=1.0, help="how far a step goes")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="what counts as rounding")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/from_scratch", help="folder of the picture")
    main(**vars(parser.parse_args()))
