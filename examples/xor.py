"""Learn XOR, the smallest problem that needs a hidden layer.

XOR is 1 when exactly one of its two inputs is 1. A single layer computes ``a x1 + b x2 + c``. It changes by ``b`` from
(0, 0) to (0, 1), and by the same ``b`` from (1, 0) to (1, 1); but XOR rises on the first way and falls on the second.
So no single layer fits: the best that it can do is to answer 0.5 everywhere. A layer of tanh units before it bends the
plane, and what could not be cut by one straight line then can.

Four units, a squared error, and plain gradient descent on all four rows at once: a step is a pure function of the
training state, so that 2000 of them are one ``jax.lax.scan``, compiled once. It takes seconds.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnn
import fnn.plot

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
TARGET = np.array([[0], [1], [1], [0]], np.float32)


def network(hidden: int = 4) -> fnn.Layer:
    """One hidden layer that bends the plane, and a straight cut."""
    return fnn.serial(fnn.dense(hidden), jnp.tanh, fnn.dense(1))


def train(
    net: fnn.Layer, run: fnn.TrainState, optimizer: optax.GradientTransformation, steps: int
) -> tuple[fnn.TrainState, jax.Array]:
    """Do ``steps`` steps on all four rows; returns the state after them and the loss before each."""
    step = fnn.train_step(fnn.supervised(net, optax.losses.squared_error), optimizer)
    run, metrics = jax.lax.scan(lambda run, _: step(run, (X, TARGET)), run, length=steps)
    return run, metrics["loss"]


def main(
    *,
    steps: int = 2000,
    hidden: int = 4,
    learning_rate: float = 0.2,
    seed: int = 0,
    output: str | Path = "outputs/xor",
) -> float:
    """Train, print what the network answers before and after, and save two pictures.

    Args:
        steps: Steps of gradient descent.
        hidden: Units of the hidden layer.
        learning_rate: Step size; from about 0.5 on, some seeds diverge.
        seed: Decides the initial weights, and nothing else is random.
        output: Folder of the pictures.

    Returns:
        The largest deviation of an answer from its target.
    """
    net, optimizer = network(hidden), optax.sgd(learning_rate)
    start = fnn.train_init(net, optimizer, jax.random.key(seed), X)
    print(f"2-{hidden}-1 network, {fnn.count(start.params)} parameters, {steps} steps")
    run, losses = train(net, start, optimizer, steps)

    answer = fnn.bind(net, run.state)  # answer(params, x)
    before, after = answer(start.params, X), answer(run.params, X)
    print("inputs  target  before   after")
    for x, target, old, new in zip(X, TARGET[:, 0], before[:, 0], after[:, 0]):
        print(f" {x[0]:.0f}  {x[1]:.0f}  {target:6.0f}  {old:6.3f}  {new:6.3f}")

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    surface = fnn.plot.decision_surface(lambda x: answer(run.params, x), X, TARGET, boundary=0.5)
    surface.savefig(folder / "surface.png", dpi=150)
    curve = fnn.plot.learning_curves({"loss": losses})
    axes = curve.axes[0]
    axes.axhline(0.25, color="gray", linestyle="--", label="0.5 everywhere")  # where a network lingers at first
    axes.set(yscale="log", xlabel="step", title="squared error")
    axes.legend(frameon=False)
    curve.savefig(folder / "loss.png", dpi=150)
    print(f"pictures: {folder}/surface.png, loss.png")

    deviation = float(jnp.abs(after - TARGET).max())
    print(f"largest deviation: {deviation:.4f}")
    return deviation


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="steps of gradient descent (default: 2000)")
    parser.add_argument("--hidden", type=int, default=4, help="units of the hidden layer (default: 4)")
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/xor", help="folder of the pictures")
    main(**vars(parser.parse_args()))
