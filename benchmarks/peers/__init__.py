"""Who is measured: one file for each library, written as its own documentation teaches.

Each has ``prepare(task, arrays) -> Program`` and imports its library at its top; it is imported in the process of that
peer only.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Arrays, Peer


@dataclass(frozen=True)
class Program:
    """What is timed.

    Attributes:
        call: Does all steps of a call, carries the state to the next, waits for the end, and returns the loss, or the
            logits of a forward pass.
        parameters: Number of trainable parameters of one network.
        lower: For what JAX compiles: traces and lowers the function that is called.
    """

    call: Callable[[], Any]
    parameters: int
    lower: Callable[[], Any] | None = None


def preparing(file: str, package: str = __name__, **options: Any) -> Callable[[Any, Arrays], Program]:
    """The ``prepare`` of a file, which is imported when it is called."""

    def prepare(task: Any, arrays: Arrays) -> Program:
        return importlib.import_module(f"{package}.{file}").prepare(task, arrays, **options)

    return prepare


_JAX, _OTHERS = "JAX peer", "of TensorFlow and PyTorch"


def _jax(title: str, module: str, *packages: str, imports: tuple[str, ...]) -> Peer:
    return Peer(title, ("jax", "optax", *packages), ("jax", "optax", *imports), preparing(module), family=_JAX)


def _keras(title: str, backend: str, package: str, family: str) -> Peer:
    return Peer(
        title,
        ("keras", package),
        ("keras",),
        preparing("keras_"),
        environment={"KERAS_BACKEND": backend},
        family=family,
    )


def _torch(title: str, layout: str) -> Peer:
    return Peer(title, ("torch",), ("torch",), preparing("torch_", layout=layout), family=_OTHERS)


PEERS = {
    "fnn": _jax("fnn", "fnn_", imports=("fnn",)),
    "stax": _jax("stax", "stax_", imports=("jax.example_libraries.stax",)),
    "flax-nnx": _jax("Flax NNX", "flax_nnx", "flax", imports=("flax.nnx",)),
    "flax-linen": _jax("Flax Linen", "flax_linen", "flax", imports=("flax.linen",)),
    "equinox": _jax("Equinox", "equinox_", "equinox", imports=("equinox",)),
    "haiku": _jax("Haiku", "haiku_", "dm-haiku", imports=("haiku",)),
    "plain-jax": _jax("JAX by hand", "plain_jax", imports=()),
    "keras-jax": _keras("Keras on JAX", "jax", "jax", _JAX),
    "keras-tensorflow": _keras("Keras on TensorFlow", "tensorflow", "tensorflow-cpu", _OTHERS),
    "pytorch": _torch("PyTorch", "contiguous"),
    "pytorch-channels-last": _torch("PyTorch, channels last", "channels_last"),
}

# Those whose step is a function for `jax.jit`, so that many fit into one `lax.scan`.
SCANNING = ("fnn", "stax", "flax-nnx", "flax-linen", "equinox", "haiku", "plain-jax")
