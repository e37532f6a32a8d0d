"""A file that is open, and what is in it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import numpy as np

from fnn.checkpoint.container import Header, checksums, read_array, read_header
from fnn.checkpoint.errors import CheckpointError
from fnn.checkpoint.save import FORMAT
from fnn.checkpoint.structure import (
    Outline,
    Spec,
    Stored,
    part_of,
    rebuild,
    restore,
    spec_in_file,
    stored_leaves,
)
from fnn.checkpoint.table import plain


class Archive(NamedTuple):
    """A file that is open, and whose header was read and checked.

    Attributes:
        file: The open file.
        name: Its path.
        header: Where its arrays are.
        outline: The structure of the tree; None in files of other tools.
        stored: What the outline says of each leaf.
        version: Of the fnn that wrote it; None for other tools.
        note: What `save` was given.
    """

    file: BinaryIO
    name: Path
    header: Header
    outline: Outline | None
    stored: Mapping[str, Stored]
    version: str | None
    note: Any

    def spec(self, name: str) -> Spec:
        return spec_in_file(self.header, name, self.stored[name])

    def read(self, name: str) -> Any:
        """A leaf, as NumPy has it, a key, or a number."""
        stored = self.stored[name]
        if stored.value is not None:
            return stored.value
        return restore(read_array(self.file, self.name, self.header, name, self.sums().get(name)), stored)

    def sums(self) -> Mapping[str, str | None]:
        return checksums(self.header)

    def tree(self) -> Any:
        values = {name: _to_jax(self.read(name)) for name in self.stored}
        return values if self.outline is None else rebuild(self.outline, values)

    def part(self, path: str) -> Any:
        """What lies at a path, in NumPy; None where nothing does."""
        outline = part_of(self.outline, path)
        if outline is None:
            return None
        return rebuild(outline, {name: self.read(name) for name in stored_leaves(outline, path)}, path)


@contextmanager
def opened(file: str | Path) -> Iterator[Archive]:
    """Open a file, and read and check all but its arrays."""
    path = Path(file)
    if path.is_dir():
        raise CheckpointError(path, "it is a folder; read the run that fnn.fit saved there by fnn.load_run(folder)")
    with open(path, "rb") as handle:
        header = read_header(handle, path)
        text = header.metadata.get("fnn")
        if text is None:
            yield Archive(handle, path, header, None, dict.fromkeys(header.entries, Stored()), None, None)
            return
        yield _read_about(handle, path, header, text)


def _read_about(handle: BinaryIO, path: Path, header: Header, text: str) -> Archive:
    try:
        about = json.loads(text)
        if about["format"] > FORMAT:
            reason = f"it was written by fnn {plain(str(about['fnn']))}, whose format is newer; update fnn"
            raise CheckpointError(path, reason)
        stored = stored_leaves(about["tree"])
        arrays = {name for name, leaf in stored.items() if leaf.value is None}
        if arrays != set(header.entries):
            raise ValueError("its arrays are not those of its tree")
        archive = Archive(handle, path, header, about["tree"], stored, str(about["fnn"]), about["note"])
        for name in stored:
            archive.spec(name)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError(path, f"what it says of its tree cannot be read: {str(error)[:200]}") from None
    return archive


def _to_jax(value: Any) -> Any:
    """An array of JAX; of NumPy, where JAX would cut it down to 32 bits."""
    if not isinstance(value, np.ndarray) or jax.dtypes.canonicalize_dtype(value.dtype) != value.dtype:
        return value
    return jax.device_put(value)


def read_note(file: str | Path) -> Any:
    """The note that `save` was given, or None.

    Args:
        file: That `save` wrote.

    Raises:
        CheckpointError: when its header is damaged.

    Example:
        >>> import fnn, tempfile
        >>> file = tempfile.mkdtemp() + "/a.safetensors"
        >>> fnn.save(file, {}, note={"accuracy": 0.9})
        >>> fnn.read_note(file)
        {'accuracy': 0.9}
    """
    with opened(file) as archive:
        return archive.note


def verify(file: str | Path) -> bool:
    """Read all of a file and compare it with its checksums.

    Args:
        file: Any safetensors file.

    Returns:
        Whether it has checksums; without them only its structure was checked.

    Raises:
        CheckpointError: when it is damaged.

    Example:
        >>> import fnn, tempfile
        >>> from fnn.checkpoint.archive import verify
        >>> file = tempfile.mkdtemp() + "/a.safetensors"
        >>> fnn.save(file, {"step": 3})
        >>> verify(file)
        True
    """
    with opened(file) as archive:
        sums = archive.sums()
        for name in archive.header.entries:
            read_array(archive.file, archive.name, archive.header, name, sums.get(name))
        return "sha256" in archive.header.metadata
