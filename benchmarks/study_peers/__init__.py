"""Who is measured on studies: one file for each library, written as its own documentation teaches.

Each has ``prepare(task, arrays) -> Program`` and imports its library at its top. What is prepared is not timed, so that
nothing is computed or compiled there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import Peer
from benchmarks.peers import preparing


@dataclass(frozen=True)
class StudyTask:
    """A study of learning rates: one training of a network with Adam for each, and for each fold.

    Attributes:
        network: ``"mlp"``: one hidden layer. ``"cnn"``: two convolutions and a dense layer.
        classes: How many there are.
        hidden: Units of the hidden layer, or channels of the first convolution, of which the second has twice as many.
        batch: Rows of a batch.
        steps: Steps of each training: whole epochs, whose remainder is dropped where the peer can.
        trials: How many learning rates.
        lowest: The smallest of them.
        highest: The largest.
        folds: Of the data, each of which is held out once; 1: the arrays have a validation part.
    """

    network: str
    classes: int
    hidden: int
    batch: int
    steps: int
    trials: int
    lowest: float
    highest: float
    folds: int = 1

    def rates(self, count: int | None = None) -> list[float]:
        """The learning rates, at equal distances on a logarithmic scale; or so many of them, spread evenly."""
        every = np.geomspace(self.lowest, self.highest, self.trials).tolist()
        count = min(count or self.trials, self.trials)
        return [every[(2 * number + 1) * self.trials // (2 * count)] for number in range(count)]

    def batches(self, rows: int, seed: Sequence[int]) -> Iterator[np.ndarray]:
        """The rows of each step: every epoch is shuffled anew."""
        random, order = np.random.default_rng(seed), np.empty(0, int)
        for _ in range(self.steps):
            if len(order) < self.batch:
                order = random.permutation(rows)
            yield order[: self.batch]
            order = order[self.batch :]

    def epochs(self, rows: int) -> int:
        """How often the rows are gone through, for libraries that count so."""
        return self.steps // (rows // self.batch)


class Outcome(NamedTuple):
    """What a study found.

    Attributes:
        accuracies: Of each learning rate on what was held out; the mean over folds.
        steps: Of each training.
        remarks: What the library said of how it did it.
    """

    accuracies: Sequence[float]
    steps: int
    remarks: str = ""


@dataclass(frozen=True)
class Program:
    """What is timed.

    Attributes:
        study: ``study(rates, seed)``: from the arrays to the accuracies, all of it. It is called twice; another seed
            gives other weights and batches.
        parameters: The number of trainable parameters of a network; called when all is timed.
    """

    study: Callable[[Sequence[float], int], Outcome]
    parameters: Callable[[], int]


_JAX, _OTHERS, _MODES = "JAX peer", "peer without JAX", "fixed mode of fnn"


def _fnn(title: str, mode: str, family: str = "") -> Peer:
    return Peer(title, ("jax", "optax"), ("fnn", "optax"), preparing("fnn_", __name__, mode=mode), family=family)


def _flax(title: str, **options: Any) -> Peer:
    packages, imports = ("jax", "optax", "flax"), ("jax", "optax", "flax.linen")
    return Peer(title, packages, imports, preparing("flax_", __name__, **options), family=_JAX)


def _torch(title: str, **options: Any) -> Peer:
    return Peer(title, ("torch",), ("torch",), preparing("torch_", __name__, **options), family=_OTHERS)


def _keras(title: str, backend: str, package: str) -> Peer:
    environment = {"KERAS_BACKEND": backend}
    return Peer(title, ("keras", package), ("keras",), preparing("keras_", __name__), environment, _OTHERS)


def _sklearn(title: str) -> Peer:
    packages, imports = ("scikit-learn", "joblib"), ("sklearn.neural_network", "sklearn.model_selection")
    return Peer(title, packages, imports, preparing("sklearn_", __name__), family=_OTHERS)


PEERS = {
    "fnn": _fnn("fnn", "auto"),
    "fnn-vmap": _fnn("fnn, vmap", "vmap", _MODES),
    "fnn-loop": _fnn("fnn, loop", "loop", _MODES),
    "flax-loop": _flax("Flax and optax, one compiled step", rebuilt=False),
    "flax-rebuilt": _flax("Flax and optax, compiled for each trial", rebuilt=True),
    "pytorch": _torch("PyTorch, one after another", stacked=False),
    "pytorch-stacked": _torch("PyTorch, torch.func over stacked models", stacked=True),
    "keras-jax": _keras("Keras on JAX, fit for each trial", "jax", "jax"),
    "keras-tensorflow": _keras("Keras on TensorFlow, fit for each trial", "tensorflow", "tensorflow-cpu"),
    "scikit-learn": _sklearn("scikit-learn, a job for each core"),
}

# Peers that take so long for a trial that they do these many, from which their time for all is computed.
FEW = {"flax-rebuilt": 4, "keras-jax": 4, "keras-tensorflow": 4}
