"""Finding the published files of data sets, and downloading them.

A file is looked for in the folder ``$FNN_DATA/<data set>``, then in the cache folder (``$XDG_CACHE_HOME/fnn`` or
``~/.cache/fnn``), and is downloaded into the cache when it is in neither. A download is kept only when its SHA-256 is
the published one.
"""

import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

from tqdm.auto import tqdm


class DatasetError(RuntimeError):
    """A data set cannot be found, downloaded or read; the message says which file and what to do."""


class File(NamedTuple):
    """A file that someone publishes, and where."""

    name: str
    sha256: str
    addresses: tuple[str, ...] = ()


def cache_folder() -> Path:
    """The folder that downloads are kept in."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fnn"


def locate(folder: str, file: File) -> Path | None:
    """Find a file of a data set on this machine.

    Files under ``$FNN_DATA`` are the user's own and may be packed in another way than the published ones, so that only
    what they hold is checked, when it is read. Files in the cache must be the published ones.
    """
    if given := os.environ.get("FNN_DATA"):
        path = Path(given).expanduser() / folder / file.name
        if path.is_file():
            return path
    path = cache_folder() / folder / file.name
    if not path.is_file():
        return None
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != file.sha256:
        raise damaged(path, f"its SHA-256 is {found}", file.sha256)
    return path


def fetch(folder: str, files: Sequence[File]) -> list[Path]:
    """Find each file of a data set, and download into the cache those that are missing."""
    paths = {file: locate(folder, file) for file in files}
    target = cache_folder() / folder
    missing = [file for file in files if paths[file] is None]
    try:
        for file in tuple(missing):
            paths[file] = _download(file, target)
            missing.remove(file)
    except DatasetError as error:
        lines = (
            f"the data set {folder} is not on this machine and could not be downloaded:",
            str(error),
            "download by hand, where there is a network,",
            *(f"  {file.addresses[0]} as {file.name}" for file in missing),
            f"and put what you get into {target}",
            f"or into the folder {folder} of the folder that the environment variable FNN_DATA names",
        )
        raise DatasetError("\n".join(lines)) from None
    return [path for path in paths.values() if path is not None]


def _download(file: File, folder: Path) -> Path:
    failures = []
    for address in file.addresses:
        try:
            return _transfer(address, folder / file.name, file.sha256)
        except (OSError, HTTPException, DatasetError) as error:
            failures.append(f"  {address}: {error}")
    raise DatasetError("\n".join(failures))


def _transfer(address: str, path: Path, sha256: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    digest = hashlib.sha256()
    received = 0
    try:
        # Some servers turn away urllib's own name.
        with urlopen(Request(address, headers={"User-Agent": "fnn-examples"}), timeout=30) as response:
            length = int(response.headers.get("Content-Length") or 0)
            bar = tqdm(desc=path.name, total=length or None, unit="B", unit_scale=True, unit_divisor=1024)
            with bar, part.open("wb") as opened:
                while chunk := response.read(1 << 18):
                    opened.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                    bar.update(len(chunk))
        if received < length:
            raise DatasetError(f"the connection ended after {received} of {length} bytes")
        if digest.hexdigest() != sha256:
            raise DatasetError(f"what came has the SHA-256 {digest.hexdigest()}, wanted {sha256}")
        part.replace(path)
    finally:  # also on Ctrl-C: a file under its own name is always whole
        part.unlink(missing_ok=True)
    return path


def damaged(path: Path, found: str, wanted: str) -> DatasetError:
    """An error that says what is wrong with a file."""
    return DatasetError(f"{path}: {found}, wanted {wanted}; delete the file and download it again")


def read_members(path: Path, names: Sequence[str]) -> list[bytes]:
    """Read files of a tar archive into memory, in the order of ``names``; nothing is written to disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            # In the archive's own order: going back in a compressed one means to unpack it anew.
            for member in archive:
                if member.name in names and member.isfile() and (opened := archive.extractfile(member)):
                    found[member.name] = opened.read()
            # To the very end, where the checksum of what was compressed is compared.
            while archive.fileobj and archive.fileobj.read(1 << 20):
                pass
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise damaged(path, f"it cannot be unpacked ({error})", "a whole tar archive") from error
    if missing := [name for name in names if name not in found]:
        raise damaged(path, f"it has no {', '.join(missing)}", f"an archive of {', '.join(names)}")
    return [found[name] for name in names]


def find_unchecked(folder: str, names: Sequence[str], address: str) -> Path:
    """Find a file of which no checksum is published, so that it is never downloaded here, under any of its names.

    Its reader checks what it holds.

    Raises:
        DatasetError: when it is on none of the usual places; it says what to download by hand.
    """
    given = os.environ.get("FNN_DATA")
    places = [Path(given).expanduser() / folder] if given else []
    for place in (*places, cache_folder() / folder):
        for name in names:
            if (place / name).is_file():
                return place / name
    lines = (
        f"the data set {folder} is not on this machine, and no checksum of it is published to download it safely:",
        f"download {address} by hand",
        f"and put it as {names[0]} into {cache_folder() / folder}",
        f"or into the folder {folder} of the folder that the environment variable FNN_DATA names",
    )
    raise DatasetError("\n".join(lines))
