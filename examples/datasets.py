"""Real data sets for the examples, as NumPy arrays.

    python examples/datasets.py mnist fashion-mnist

fetches data sets ahead of time. In a program, ``load("mnist")`` returns a `Dataset`.

`files` says where they are looked for. Every reader checks what it reads: a damaged file is an error that names it,
never a bad training run.
"""

import argparse
import gzip
import io
import math
import pickle
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from files import File, damaged, fetch, locate, read_members


class Dataset(NamedTuple):
    """One data set, split into what is learned from and what is held out.

    Attributes:
        x_train: Images ``(examples, height, width, channels)`` in [0, 1], or rows ``(examples, columns)``; float32.
        y_train: Class numbers ``(examples,)``, int32; or the quantity to predict ``(examples, 1)``, float32.
        x_test: Like ``x_train``.
        y_test: Like ``y_train``.
        classes: Name of each class number; empty for regression.
        columns: Name of each column of ``x``; empty for images.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


def load(name: str) -> Dataset:
    """Load a data set, downloading it first where that is needed.

    Args:
        name: One of ``NAMES``: "digits", "mnist", "fashion-mnist", "cifar10", "diabetes", "california".

    Returns:
        Its arrays. The official split where there is one, else a held-out part chosen by a fixed seed.

    Raises:
        DatasetError: when a file is neither on this machine nor reachable, or does not hold what it should.
        ValueError: when there is no data set of that name.
    """
    if name not in _LOADERS:
        raise ValueError(f"there is no data set {name!r}; there are {', '.join(NAMES)}")
    return _LOADERS[name]()


def standardize(data: Dataset) -> Dataset:
    """Give every column of a table mean 0 and variance 1 over the training part."""
    mean = data.x_train.mean(0, dtype=np.float64)
    deviation = data.x_train.std(0, dtype=np.float64)
    scale = lambda x: ((x - mean) / deviation).astype(np.float32)
    return data._replace(x_train=scale(data.x_train), x_test=scale(data.x_test))


# Reading files


def read_idx(path: Path, rank: int) -> np.ndarray:
    """Read an array of bytes from a gzipped IDX file: magic, the sizes as big-endian 32-bit integers, the data."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise damaged(path, f"it cannot be unpacked ({error})", "a whole gzip file") from error
    # Four bytes of magic: two zeros, the dtype, the rank.
    magic, start = content[:4], 4 + 4 * rank
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise damaged(path, f"it begins with the bytes {magic.hex() or 'of an empty file'}", "0000 as in an IDX file")
    if magic[2] != 0x08:
        raise damaged(path, f"its dtype code is 0x{magic[2]:02x}", "0x08 (unsigned bytes)")
    if magic[3] != rank:
        raise damaged(path, f"it holds an array of rank {magic[3]}", f"rank {rank}")
    if len(content) < start:
        raise damaged(path, f"it ends after {len(content)} bytes", f"a header of {start}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", rank, offset=4))
    found, wanted = len(content) - start, math.prod(shape)
    if found != wanted:
        complaint = "it is cut short" if found < wanted else "it has more than its header says"
        raise damaged(path, f"{complaint}: {found} bytes of data", f"{wanted} for the shape {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


# What a pickled array asks for. The function that makes an empty one has moved between versions of NumPy.
_EMPTY_ARRAY = np.empty(0).__reduce__()[0]
_ARRAY_PARTS = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "numpy.core.multiarray._reconstruct": _EMPTY_ARRAY,
    "numpy._core.multiarray._reconstruct": _EMPTY_ARRAY,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and plain Python values. Any other pickle could run code of its author's, and is refused."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        wanted = f"{module_name}.{global_name}"
        if wanted not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it asks for {wanted}, which no array needs")
        return _ARRAY_PARTS[wanted]


def read_cifar_batch(path: Path, name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Decode one batch of CIFAR-10 in its Python version: images ``(examples, 32, 32, 3)`` and labels, as bytes."""
    try:
        # encoding: the batches were pickled by Python 2, whose strings are bytes
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = batch[b"data"], np.asarray(batch[b"labels"])
    except Exception as error:  # a damaged pickle may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise damaged(path, f"{name} cannot be read ({reason})", "a batch of CIFAR-10") from error
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
        found = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise damaged(path, f"the pixels of {name} are {found}", "uint8 (examples, 3072)")
    if labels.dtype.kind != "i" or labels.ndim != 1:
        raise damaged(path, f"the labels of {name} are {labels.dtype} {labels.shape}", "a list of integers")
    # A row holds a plane of red, one of green and one of blue; fnn wants the three values of a pixel side by side.
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, _check_labels(path, images, labels)


def _check_labels(path: Path, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if len(images) != len(labels) or not len(images):
        raise damaged(path, f"it has {len(labels)} labels for {len(images)} images", "one for each of at least one")
    if labels.min() < 0 or labels.max() > 9:
        raise damaged(path, f"it has labels from {labels.min()} to {labels.max()}", "0 to 9")
    return labels.astype(np.int32)


def _unit_interval(images: np.ndarray) -> np.ndarray:
    return np.divide(images, np.float32(255), dtype=np.float32)


# Data sets

_IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_IDX_HASHES = {
    "mnist": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    "fashion-mnist": (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}
_IDX_ADDRESSES = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "http://yann.lecun.com/exdb/mnist/",  # the official page comes last: it is seldom reachable
    ),
    "fashion-mnist": (
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
}
_DIGITS = tuple("0123456789")
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR = File(
    "cifar-10-python.tar.gz",
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
)
# The official test images and the first fifth of the training images, for machines that hold only these.
_CIFAR_SUBSET = File(
    "cifar-10-python-subset.tar.xz", "2ecc8f1567ab355df10b4a0306be98f62350a8b8bd68fea14ed6d2eeaf29847a"
)
_CALIFORNIA = File(
    "cal_housing.tgz",
    "aaa5c9a6afe2225cc2aed2723682ae403280c4a3695a2ddda4ffb5d8215ea681",
    (
        "https://ndownloader.figshare.com/files/5976036",
        "https://www.dcc.fc.up.pt/~ltorgo/Regression/cal_housing.tgz",
    ),
)
_CALIFORNIA_COLUMNS = (
    *("median income", "house age", "rooms", "bedrooms"),
    *("population", "occupants", "latitude", "longitude"),
)


def _idx_set(folder: str, classes: tuple[str, ...]) -> Dataset:
    addresses = [tuple(address + name for address in _IDX_ADDRESSES[folder]) for name in _IDX_FILES]
    paths = fetch(folder, [File(*file) for file in zip(_IDX_FILES, _IDX_HASHES[folder], addresses)])
    arrays = []
    for image_path, label_path in (paths[:2], paths[2:]):
        images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
        if images.shape[1:] != (28, 28):
            raise damaged(image_path, f"its images have the shape {images.shape[1:]}", "(28, 28)")
        arrays += [_unit_interval(images)[..., None], _check_labels(label_path, images, labels)]
    return Dataset(*arrays, classes=classes)


def _cifar10() -> Dataset:
    path = locate("cifar10", _CIFAR) or locate("cifar10", _CIFAR_SUBSET) or fetch("cifar10", [_CIFAR])[0]
    batches = 5 if path.name == _CIFAR.name else 1
    names = [f"data_batch_{number + 1}" for number in range(batches)] + ["test_batch"]
    contents = read_members(path, [f"cifar-10-batches-py/{name}" for name in names])
    read = [read_cifar_batch(path, name, content) for name, content in zip(names, contents)]
    images, labels = ([pair[part] for pair in read] for part in (0, 1))
    return Dataset(
        _unit_interval(np.concatenate(images[:-1])),
        np.concatenate(labels[:-1]),
        _unit_interval(images[-1]),
        labels[-1],
        classes=_CIFAR_CLASSES,
    )


def _hold_out(x: np.ndarray, y: np.ndarray, share: float, stratify: np.ndarray | None = None) -> Dataset:
    from sklearn.model_selection import train_test_split

    parts: Any = train_test_split(x.astype(np.float32), y, test_size=share, stratify=stratify, random_state=0)
    x_train, x_test, y_train, y_test = parts
    return Dataset(x_train, y_train, x_test, y_test)


def _digits() -> Dataset:
    """Handwritten digits of 8 by 8 pixels in 17 shades, which scikit-learn ships: the set for a first try."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    labels = digits.target.astype(np.int32)
    return _hold_out(digits.images[..., None] / 16, labels, 1 / 3, stratify=labels)._replace(classes=_DIGITS)


def _diabetes() -> Dataset:
    """Progression of diabetes within a year of ten measurements on 442 patients, which scikit-learn ships."""
    from sklearn.datasets import load_diabetes

    # Not scaled: scikit-learn's scaled columns have seen the patients that are held out here.
    table: Any = load_diabetes(scaled=False)
    y = table.target[:, None].astype(np.float32)
    return _hold_out(table.data, y, 0.2)._replace(columns=tuple(table.feature_names))


def _california() -> Dataset:
    """Median house value (in 100 000 dollars) in 20640 districts; columns as scikit-learn makes them."""
    (path,) = fetch("california-housing", [_CALIFORNIA])
    (content,) = read_members(path, ["CaliforniaHousing/cal_housing.data"])
    try:
        rows = np.array([line.split(",") for line in content.decode("ascii").splitlines()], np.float64)
    except ValueError as error:
        raise damaged(path, f"a row cannot be read ({error})", "numbers with commas between them") from error
    if rows.ndim != 2 or rows.shape[1] != 9:
        raise damaged(path, f"it holds an array of the shape {rows.shape}", "9 numbers a row")
    longitude, latitude, age, rooms, bedrooms, population, households, income, value = rows.T
    if not np.isfinite(rows).all() or households.min() <= 0:
        raise damaged(path, "it has infinite or missing numbers, or districts without households", "neither")
    ratios = (income, age, rooms / households, bedrooms / households, population, population / households)
    x = np.stack((*ratios, latitude, longitude), 1)
    y = (value[:, None] / 100_000).astype(np.float32)
    return _hold_out(x, y, 0.2)._replace(columns=_CALIFORNIA_COLUMNS)


_LOADERS: dict[str, Callable[[], Dataset]] = {
    "digits": _digits,
    "mnist": lambda: _idx_set("mnist", _DIGITS),
    "fashion-mnist": lambda: _idx_set("fashion-mnist", _CLOTHES),
    "cifar10": _cifar10,
    "diabetes": _diabetes,
    "california": _california,
}
NAMES = tuple(_LOADERS)


def main(names: Sequence[str]) -> dict[str, Dataset]:
    """Load each data set and say what it holds."""
    loaded = {}
    for name in names:
        data = loaded[name] = load(name)
        print(f"{name}: {data.x_train.shape} to train on, {data.x_test.shape} held out")
    return loaded


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fetch data sets of the examples ahead of time.")
    parser.add_argument("names", nargs="+", choices=NAMES, help="which data sets")
    main(parser.parse_args().names)
