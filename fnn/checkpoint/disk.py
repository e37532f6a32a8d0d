"""Writing a file so that at every moment either the old one or the new one is there, whole."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from fnn.checkpoint.errors import CheckpointError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

TEMPORARY = ".fnn-tmp"


def replace_file(path: Path, size: int, write: Callable[[BinaryIO], None]) -> None:
    """Write to a temporary file beside ``path``, flush it to the disk, and give it the name at last.

    Args:
        path: What to create or replace.
        size: How many bytes it takes; less room than that is told before anything is written.
        write: Writes the content.

    Raises:
        CheckpointError: when it cannot be written; what stood there before still does. Or when the folder cannot be
            flushed: then the new file is there, and a loss of power may undo that.
    """
    folder = path.parent
    temporary = folder / f".{path.name}.{secrets.token_hex(6)}{TEMPORARY}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, f".{path.name}.*{TEMPORARY}")
        free = shutil.disk_usage(folder).free
        if size > free:
            raise CheckpointError(path, f"it takes {show_bytes(size)} and the disk has {show_bytes(free)} left; {KEPT}")
        with _open_new(temporary) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(path, f"it cannot be written: {error.strerror or error}; {KEPT}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    try:
        _flush_folder(folder)
    except OSError as error:
        reason = "it is written, but its name may not outlive a loss of power: the folder cannot be flushed"
        raise CheckpointError(path, f"{reason}: {error.strerror or error}") from error


KEPT = "what was there before is untouched"


@contextlib.contextmanager
def _open_new(path: Path) -> Iterator[BinaryIO]:
    """A new file, locked as long as it is open, so that others know that it is in use."""
    with open(path, "xb") as file:
        lock(file)
        yield file


def lock(file: BinaryIO | FileIO) -> bool:
    """Lock an open file; the system unlocks it when it is closed or its process dies. False: another one has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def remove_leftovers(folder: Path, pattern: str = f".*{TEMPORARY}") -> None:
    """Remove temporary files of writers that were killed."""
    if fcntl is None:
        return
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _flush_folder(folder: Path) -> None:
    """Make the new name last; not every system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def show_bytes(count: float) -> str:
    """A size for people, such as ``"3.2 MB"``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
