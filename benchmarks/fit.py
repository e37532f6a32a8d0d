"""Time whole training jobs, from the start of a process to its end, and again when all is compiled.

    python benchmarks/fit.py --rounds 5 --json fit.json

Each peer is written as its own documentation teaches: `fnn.fit`, `model.fit` of Keras, the loop of the PyTorch
tutorials over a DataLoader. The MNIST jobs read the files in ``$FNN_DATA/mnist``, and random images of the same shape
where that is not set.
"""

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np
from harness import Arrays, Job, Peer, Work

EXAMPLES = Path(__file__).parent.parent / "examples"


def points() -> tuple[Arrays, str]:
    """A thousand random points, and a target that a network can learn from them."""
    random = np.random.default_rng(0)
    x = random.standard_normal((1000, 10), np.float32)
    return {"x": x, "y": np.sin(x).sum(1, keepdims=True)}, "1000 random points with 10 columns"


def images() -> tuple[Arrays, str]:
    """The training images of MNIST, or noise of the same shape."""
    if not os.environ.get("FNN_DATA"):
        random = np.random.default_rng(0)
        x, y = random.random((60000, 28, 28, 1), np.float32), random.integers(0, 10, 60000, dtype=np.int32)
        return {"x": x, "y": y}, "60000 random images with random labels, since FNN_DATA is not set"
    sys.path.insert(0, str(EXAMPLES))
    import datasets

    mnist = datasets.load("mnist")
    return {"x": mnist.x_train, "y": mnist.y_train}, "the 60000 training images of MNIST"


def with_fnn(job: str, settings: Mapping[str, Any], arrays: Arrays) -> Work:
    import jax
    import optax

    import fnn

    x, y = arrays["x"], arrays["y"]
    if job == "regression":
        net = fnn.serial(fnn.dense(64), jax.nn.relu, fnn.dense(1))
        loss = optax.losses.squared_error
    else:
        net = fnn.serial(
            fnn.conv(32, (3, 3), padding="VALID"), jax.nn.relu, fnn.max_pool((2, 2)),
            fnn.conv(64, (3, 3), padding="VALID"), jax.nn.relu, fnn.max_pool((2, 2)),
            fnn.flatten(), fnn.dense(128), jax.nn.relu, fnn.dense(10),
        )  # fmt: skip
        loss = optax.losses.softmax_cross_entropy_with_integer_labels
    objective = fnn.supervised(net, loss)
    optimizer = optax.adam(1e-3)

    run = fnn.train_init(net, optimizer, jax.random.key(0), x)

    def work() -> float:
        nonlocal run
        run, history = fnn.fit(objective, optimizer, run, (x, y), **settings, progress=False)
        jax.block_until_ready(run)
        return float(history["loss"][-1])

    return work


def with_keras(job: str, settings: Mapping[str, Any], arrays: Arrays) -> Work:
    import keras
    from keras import layers

    x, y = arrays["x"], arrays["y"]
    if job == "regression":
        net = [layers.Dense(64, activation="relu"), layers.Dense(1)]
        loss = keras.losses.MeanSquaredError()
    else:
        net = [
            layers.Conv2D(32, kernel_size=(3, 3), activation="relu"), layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Conv2D(64, kernel_size=(3, 3), activation="relu"), layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10),
        ]  # fmt: skip
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = keras.Sequential([keras.Input(x.shape[1:]), *net])
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)

    def work() -> float:
        return model.fit(x, y, **settings, verbose=0).history["loss"][-1]

    return work


def with_pytorch(job: str, settings: Mapping[str, Any], arrays: Arrays) -> Work:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    if job == "regression":
        model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))
        loss_fn = nn.MSELoss()
    else:
        x, y = x.movedim(-1, 1).contiguous(), y.long()
        model = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 5 * 5, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip
        loss_fn = nn.CrossEntropyLoss()
    loader = DataLoader(TensorDataset(x, y), batch_size=settings["batch_size"], shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def work() -> float:
        running_loss = 0.0
        for _ in range(settings["epochs"]):
            running_loss = 0.0
            for inputs, labels in loader:
                optimizer.zero_grad()
                loss = loss_fn(model(inputs), labels)
                loss.backward()
                optimizer.step()
                running_loss += loss.item()
        return running_loss / len(loader)

    return work


def _classify(batch_size: int) -> Job:
    about = f"one epoch of a small convolutional network on 28 x 28 images, batch {batch_size}, Adam."
    return Job(about, images, {"batch_size": batch_size, "epochs": 1})


JOBS = {
    "regression": Job(
        "a 10-64-1 network with ReLU, 10 epochs, batch 32, Adam, mean squared error.",
        points,
        {"batch_size": 32, "epochs": 10},
        warm_calls=5,
    ),
    "mnist-32": _classify(32),
    "mnist-128": _classify(128),
}

_keras = partial(Peer, prepare=with_keras, imports=("keras",))

PEERS = {
    "fnn": Peer("fnn", ("fnn", "jax", "optax"), ("fnn", "optax"), with_fnn),
    "keras-tensorflow": _keras(
        "Keras on TensorFlow", ("keras", "tensorflow-cpu"), environment={"KERAS_BACKEND": "tensorflow"}
    ),
    "keras-jax": _keras("Keras on JAX", ("keras", "jax"), environment={"KERAS_BACKEND": "jax"}),
    "pytorch": Peer("PyTorch", ("torch",), ("torch",), with_pytorch),
}

if __name__ == "__main__":
    sys.exit(harness.run(__doc__ or "", JOBS, PEERS))
