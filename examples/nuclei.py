"""Pictures of cell nuclei and where the nuclei are: the 2018 Data Science Bowl, as NumPy arrays.

The set (BBBC038v1 of the Broad Institute, CC0) has a folder for each picture, with one mask for each nucleus that an
expert outlined. `load` reads the pictures taken with a fluorescence microscope that are 256 x 256 pixels large, and
unites the masks of each.

The archive is looked for under the names of `ARCHIVES` in ``$FNN_DATA/dsb2018-nuclei`` and in the cache folder. It is
not downloaded: nobody publishes a checksum of it.
"""

import io
import lzma
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from files import damaged, find_unchecked
from PIL import Image

FOLDER = "dsb2018-nuclei"
ADDRESS = "https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip"
# All 670 pictures of any kind; or the first 200 of this kind with corrected masks, for machines that hold only these.
ARCHIVES = ("stage1_train.zip", "stage1_train_subset200.tar.xz")
SIZE = (256, 256)


class Nuclei(NamedTuple):
    """Pictures, sorted by the name that the set gives them.

    Attributes:
        images: ``(pictures, 256, 256, 1)`` in [0, 1], float32.
        masks: ``(pictures, 256, 256)``, True where there is a nucleus.
        names: One for each picture.
    """

    images: np.ndarray
    masks: np.ndarray
    names: tuple[str, ...]


def find() -> Path:
    """Find the archive, or say where to get it and where to put it."""
    return find_unchecked(FOLDER, ARCHIVES, ADDRESS)


def read(path: Path) -> Nuclei:
    """Read an archive in the layout ``stage1_train/<name>/{images,masks}/*.png``.

    Pictures of another size and those in colour, which are of stained tissue, are left out.
    """
    images: dict[str, np.ndarray] = {}
    masks: dict[str, list[np.ndarray]] = defaultdict(list)
    for member, content in _members(path):
        parts = Path(member).parts
        name, kind = parts[-3:-1] if len(parts) >= 3 else ("", "")
        if kind not in ("images", "masks") or not member.endswith(".png"):
            continue
        pixels = _decode(path, member, content, "RGB" if kind == "images" else "L")
        if pixels.shape[:2] != SIZE:
            continue
        if kind == "masks":
            if not np.isin(pixels, (0, 255)).all():
                raise damaged(path, f"{member} has values beside 0 and 255", "a mask")
            masks[name].append(pixels > 0)
        elif (pixels == pixels[..., :1]).all():  # grey: all three channels are the same
            images[name] = pixels[..., :1]
    if not images:
        raise damaged(path, f"it has no grey pictures of {SIZE[0]} x {SIZE[1]} pixels", "stage1_train/*/images/*.png")
    names = tuple(sorted(images))
    if without := [name for name in names if name not in masks]:
        raise damaged(path, f"{without[0]} has no masks", "one for each nucleus")
    pixels = np.divide(np.stack([images[name] for name in names]), np.float32(255), dtype=np.float32)
    return Nuclei(pixels, np.stack([np.any(masks[name], axis=0) for name in names]), names)


def load() -> Nuclei:
    """Find and read the archive."""
    return read(find())


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of a tar or zip archive, in its own order."""
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield name, archive.read(name)  # compares the checksum
        else:
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile() and (opened := archive.extractfile(member)):
                        yield member.name, opened.read()
                # To the very end, where the checksum of what was compressed is compared.
                while archive.fileobj and archive.fileobj.read(1 << 20):
                    pass
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise damaged(path, f"it cannot be unpacked ({error})", "a whole archive") from error


def _decode(path: Path, member: str, content: bytes, mode: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            return np.asarray(image.convert(mode))
    except (OSError, SyntaxError, ValueError, zlib.error) as error:  # what Pillow raises for a damaged PNG
        raise damaged(path, f"{member} cannot be read ({error})", "a PNG") from error
