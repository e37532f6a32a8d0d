"""A tree in a file."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fnn.checkpoint.container import Blob, container_size, write_container
from fnn.checkpoint.disk import replace_file
from fnn.checkpoint.structure import blob_of, leaves_of, outline_of

FORMAT = 1


def save(file: str | Path, tree: Any, *, note: Any = None) -> None:
    """Write a tree to a file, whole or not at all.

    The file has the safetensors format: other tools read the arrays by path, such as ``params/dense_0/kernel``. The
    tree's structure, fnn's version and a checksum of each array and of the header are in its metadata. It is written
    under another name and flushed to the disk before it takes the place of an older one.

    Args:
        file: Where to; folders are made. By custom it ends in ``.safetensors``.
        tree: A pytree of arrays of any dtype, typed keys, ints, floats and bools: a `TrainState`, parameters alone.
        note: Anything that JSON can hold; `read_note` gives it back.

    Raises:
        CheckpointError: when it cannot be written, such as on a full disk; an older file is untouched.
        TypeError: when the tree has a leaf that a file cannot hold, with its path.

    Example:
        >>> import fnn, jax.numpy as jnp, tempfile
        >>> file = tempfile.mkdtemp() + "/params.safetensors"
        >>> fnn.save(file, {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)})
        >>> {name: array.shape for name, array in fnn.load(file).items()}
        {'bias': (3,), 'kernel': (2, 3)}
    """
    write_content(Path(file), prepare(tree, note))


class Content(NamedTuple):
    """What goes into a file."""

    blobs: Mapping[str, Blob]
    metadata: Mapping[str, str]

    def copied(self) -> "Content":
        """The same, with arrays that nobody else can change or free."""

        def copy(blob: Blob) -> Blob:
            array = np.array(blob.read(), order="C", copy=True)
            return blob._replace(read=lambda: array)

        return self._replace(blobs={name: copy(blob) for name, blob in self.blobs.items()})


def prepare(tree: Any, note: Any) -> Content:
    """Look at a tree, and say what is wrong with it before anything is written."""
    leaves = {name: leaf for name, leaf in leaves_of(tree).items() if hasattr(leaf, "dtype")}
    about = {"format": FORMAT, "fnn": version("fnn"), "tree": outline_of(tree), "note": note}
    text = json.dumps(about, separators=(",", ":"), allow_nan=False)
    # Wide dtypes come first, so that every array begins at a multiple of its items' size.
    blobs = sorted(((name, blob_of(leaf)) for name, leaf in leaves.items()), key=lambda item: -item[1].dtype.itemsize)
    return Content(dict(blobs), {"fnn": text})


def write_content(file: Path, content: Content) -> None:
    """Write a file, whole or not at all."""
    replace_file(file, container_size(*content), lambda out: write_container(out, *content))
