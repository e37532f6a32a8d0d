"""Time whole training jobs, from the start of a process to its end, and again when all is compiled.

    python -m benchmarks fit --rounds 5 --json fit.json

Two times are taken of each job:

* cold: the whole process, measured from outside: start, imports, data, compilation, the job, exit.
* warm: the same job once more in that process, measured inside; its time is not part of the cold time.

Each peer is written as its own documentation teaches: `fnn.fit`, `model.fit` of Keras, the loop of the PyTorch
tutorials over a DataLoader. The MNIST jobs read the files in ``$FNN_DATA/mnist``, and random images of the same shape
where that is not set.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness, machine, report
from benchmarks.harness import Arrays, Facts, Peer, Sample, Samples, Suite, Workload

EXAMPLES = machine.ROOT / "examples"

Work = Callable[[], float]


class Job(NamedTuple):
    """Attributes: what is trained, for how long, and how many times in a row the warm time is taken."""

    kind: str
    batch_size: int
    epochs: int
    warm_calls: int = 1


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


def with_fnn(job: Job, arrays: Arrays) -> Work:
    import jax
    import optax

    import fnn

    x, y = arrays["x"], arrays["y"]
    if job.kind == "regression":
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
        run, history = fnn.fit(
            objective, optimizer, run, (x, y), batch_size=job.batch_size, epochs=job.epochs, progress=False
        )
        jax.block_until_ready(run)
        return float(history["loss"][-1])

    return work


def with_keras(job: Job, arrays: Arrays) -> Work:
    import keras
    from keras import layers

    x, y = arrays["x"], arrays["y"]
    if job.kind == "regression":
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
        return model.fit(x, y, batch_size=job.batch_size, epochs=job.epochs, verbose=0).history["loss"][-1]

    return work


def with_pytorch(job: Job, arrays: Arrays) -> Work:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    if job.kind == "regression":
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
    loader = DataLoader(TensorDataset(x, y), batch_size=job.batch_size, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def work() -> float:
        running_loss = 0.0
        for _ in range(job.epochs):
            running_loss = 0.0
            for inputs, labels in loader:
                optimizer.zero_grad()
                loss = loss_fn(model(inputs), labels)
                loss.backward()
                optimizer.step()
                running_loss += loss.item()
        return running_loss / len(loader)

    return work


def measure(workload: Workload, peer: Peer, arrays: Arrays, request: Mapping[str, Any]) -> Sample:
    """In the process of a peer: do the job, and do it again; the cold time is what is left of the whole process."""
    job = peer.prepare(workload.settings, arrays)
    result, warm = job(), []
    for _ in range(workload.settings.warm_calls):
        began = time.perf_counter()
        job()
        warm.append(time.perf_counter() - began)
    return {"warm": statistics.median(warm), "calls": warm, "result": result}


def cold(sample: Sample) -> float:
    """Seconds of the process, without those of the warm calls."""
    return sample["process"] - sum(sample["calls"])


def table(name: str, samples: Samples, facts: Facts) -> str:
    """Medians, the range over the rounds and the ratio to fnn of both times, and the median result."""
    cells = {PEERS[peer].title: [PEERS[peer].title] for peer in samples}
    for seconds in (cold, lambda sample: sample["warm"]):
        times = {PEERS[peer].title: [seconds(sample) for sample in taken] for peer, taken in samples.items()}
        for title, ratio in report.ratios(times).items():
            middle = report.show_seconds(statistics.median(times[title]))
            cells[title] += [middle, report.show_range(times[title]), f"{ratio:.2f}"]
    for peer, taken in samples.items():
        cells[PEERS[peer].title].append(f"{statistics.median(sample['result'] for sample in taken):.4f}")
    columns = ["", "cold", "range", "ratio", "warm", "range", "ratio", "result"]
    return report.markdown(columns, list(cells.values()))


def _classify(batch_size: int) -> Workload:
    about = f"one epoch of a small convolutional network on 28 x 28 images, batch {batch_size}, Adam."
    return Workload(about, images, Job("classification", batch_size, 1))


JOBS = {
    "regression": Workload(
        "a 10-64-1 network with ReLU, 10 epochs, batch 32, Adam, mean squared error.",
        points,
        Job("regression", 32, 10, warm_calls=5),
    ),
    "mnist-32": _classify(32),
    "mnist-128": _classify(128),
}

_keras = partial(Peer, prepare=with_keras, imports=("keras",))

PEERS = {
    "fnn": Peer("fnn", ("jax", "optax"), ("fnn", "optax"), with_fnn),
    "keras-tensorflow": _keras(
        "Keras on TensorFlow", ("keras", "tensorflow-cpu"), environment={"KERAS_BACKEND": "tensorflow"}
    ),
    "keras-jax": _keras("Keras on JAX", ("keras", "jax"), environment={"KERAS_BACKEND": "jax"}),
    "pytorch": Peer("PyTorch", ("torch",), ("torch",), with_pytorch),
}

SUITE = Suite(__doc__ or "", "benchmarks.fit", JOBS, PEERS, measure, table, time="warm")

main = partial(harness.run, SUITE)

if __name__ == "__main__":
    sys.exit(main())
