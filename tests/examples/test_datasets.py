"""Data sets are read strictly."""

import gzip
import importlib
import io
import pickle
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

datasets = importlib.import_module("datasets")
files = importlib.import_module("files")


# IDX files


def idx(array: np.ndarray) -> bytes:
    """The IDX file of an array of bytes, written from the format's description."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


LABELS = idx(np.array([7, 2, 1], np.uint8))


def test_an_idx_file_gives_its_array(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(array)))
    np.testing.assert_array_equal(datasets.read_idx(tmp_path / "a.gz", 3), array)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (gzip.compress(b"", mtime=0), "empty file"),
        (gzip.compress(b"<htm" + LABELS[4:], mtime=0), "3c68746d, wanted 0000"),
        (gzip.compress(b"\0\0\x0d\x01" + LABELS[4:], mtime=0), "dtype code is 0x0d, wanted 0x08"),
        (gzip.compress(b"\0\0\x08\x03" + LABELS[4:], mtime=0), "rank 3, wanted rank 1"),
        (gzip.compress(LABELS[:6], mtime=0), "ends after 6 bytes"),
        (gzip.compress(LABELS[:-1], mtime=0), r"cut short: 2 bytes of data, wanted 3 for the shape \(3,\)"),
        (gzip.compress(LABELS + b"\0", mtime=0), "more than its header says: 4 bytes"),
        (gzip.compress(b"\0\0\x08\x01\xff\xff\xff\xff" + LABELS[8:], mtime=0), "wanted 4294967295"),
        (gzip.compress(LABELS, mtime=0)[:-9], "cannot be unpacked"),
        (gzip.compress(LABELS, mtime=0) + b"more", "cannot be unpacked"),
        (LABELS, "cannot be unpacked"),
        (gzip.compress(LABELS, mtime=0)[:12] + b"\xff\xff" + gzip.compress(LABELS, mtime=0)[14:], "cannot be unpacked"),
    ],
)
def test_a_damaged_idx_file_is_named_with_what_is_wrong(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "labels.gz").write_bytes(content)
    with pytest.raises(files.DatasetError, match=rf"labels\.gz: .*{complaint}.*delete the file"):
        datasets.read_idx(tmp_path / "labels.gz", 1)


def write_mnist(folder: Path, **changes: np.ndarray) -> dict[str, np.ndarray]:
    """Write an MNIST of 3 + 2 images into ``folder``."""
    draw = np.random.default_rng(0)
    arrays = {
        "train_images": draw.integers(0, 256, (3, 28, 28), np.uint8),
        "train_labels": np.array([5, 0, 9], np.uint8),
        "t10k_images": draw.integers(0, 256, (2, 28, 28), np.uint8),
        "t10k_labels": np.array([7, 2], np.uint8),
    } | changes
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        rank = 3 if name.endswith("images") else 1
        (folder / f"{name.replace('_', '-')}-idx{rank}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return arrays


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_images_come_in_the_unit_interval_with_channels_last(given: Path, name: str) -> None:
    written = write_mnist(given / name)
    data = datasets.load(name)
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int32)
    assert len(data.classes) == 10
    np.testing.assert_array_equal(data.x_train, (written["train_images"] / np.float32(255))[..., None])
    np.testing.assert_array_equal(data.x_test, (written["t10k_images"] / np.float32(255))[..., None])
    np.testing.assert_array_equal(data.y_train, [5, 0, 9])
    np.testing.assert_array_equal(data.y_test, [7, 2])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"train_labels": np.zeros(4, np.uint8)}, "train-labels.*4 labels for 3 images"),
        ({"t10k_labels": np.zeros(1, np.uint8)}, "t10k-labels.*1 labels for 2 images"),
        ({"t10k_labels": np.array([3, 10], np.uint8)}, "t10k-labels.*labels from 3 to 10, wanted 0 to 9"),
        ({"train_images": np.zeros((3, 32, 32), np.uint8)}, r"train-images.*shape \(32, 32\), wanted \(28, 28\)"),
        (
            {"train_images": np.zeros((0, 28, 28), np.uint8), "train_labels": np.zeros(0, np.uint8)},
            "0 labels for 0 images",
        ),
    ],
)
def test_images_and_labels_that_do_not_belong_together_are_refused(
    given: Path, changes: dict[str, np.ndarray], complaint: str
) -> None:
    write_mnist(given / "mnist", **changes)
    with pytest.raises(files.DatasetError, match=complaint):
        datasets.load("mnist")


# CIFAR-10


def python2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 pickled it in 2009, opcode by opcode: no Python 3 writes such strings."""
    text = lambda value: b"U" + bytes([len(value)]) + value
    number = lambda value: b"J" + struct.pack("<i", value)
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + text(b"b") + b"tR"
    array += b"(" + number(1) + b"(" + b"".join(map(number, pixels.shape)) + b"t" + dtype + b"\x89"
    array += b"T" + struct.pack("<i", pixels.nbytes) + pixels.tobytes() + b"tb"
    items = text(b"data") + array + text(b"labels") + b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + items + b"u."


def write_archive(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_cifar(path: Path, batches: int, make: Callable[[np.ndarray, list[int]], bytes] = python2_batch) -> np.ndarray:
    """Write a CIFAR-10 of two images in each batch; returns all pixels, the test images last."""
    pixels = np.random.default_rng(0).integers(0, 256, (batches + 1, 2, 3072), np.uint8)
    names = [f"data_batch_{number + 1}" for number in range(batches)] + ["test_batch"]
    # Not in the order of their numbers, as in the official archive.
    order = sorted(range(batches + 1), key=lambda number: -number)
    members = {f"cifar-10-batches-py/{names[n]}": make(pixels[n], [n, 9 - n]) for n in order}
    write_archive(path, {"cifar-10-batches-py/readme.html": b"hello"} | members)
    return pixels


@pytest.mark.parametrize(("name", "batches"), [("cifar-10-python.tar.gz", 5), ("cifar-10-python-subset.tar.xz", 1)])
def test_cifar_is_read_from_the_full_archive_and_from_the_subset(given: Path, name: str, batches: int) -> None:
    pixels = write_cifar(given / "cifar10" / name, batches)
    data = datasets.load("cifar10")
    assert data.x_train.shape == (2 * batches, 32, 32, 3)
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int32)
    assert data.x_train.flags.c_contiguous
    np.testing.assert_array_equal(data.y_train, [label for n in range(batches) for label in (n, 9 - n)])
    np.testing.assert_array_equal(data.y_test, [batches, 9 - batches])
    for row, column, channel in ((0, 0, 0), (3, 30, 1), (31, 2, 2)):
        place = 1024 * channel + 32 * row + column
        wanted = pixels[..., place].reshape(-1) / np.float32(255)
        np.testing.assert_array_equal(data.x_train[:, row, column, channel], wanted[:-2])
        np.testing.assert_array_equal(data.x_test[:, row, column, channel], wanted[-2:])


def test_the_full_archive_is_preferred_to_the_subset(given: Path) -> None:
    write_cifar(given / "cifar10" / "cifar-10-python-subset.tar.xz", 1)
    write_cifar(given / "cifar10" / "cifar-10-python.tar.gz", 5)
    assert len(datasets.load("cifar10").x_train) == 10


def test_batches_pickled_by_this_python_are_read_too(given: Path) -> None:
    modern = lambda pixels, labels: pickle.dumps({b"data": pixels, b"labels": labels}, protocol=3)
    write_cifar(given / "cifar10" / "cifar-10-python.tar.gz", 5, modern)
    assert datasets.load("cifar10").y_train.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]


class Attack:
    """Runs code of its own when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_pickle_that_would_run_code_is_refused_before_it_runs(given: Path, tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    attack = lambda pixels, labels: pickle.dumps({b"data": pixels, b"labels": Attack(harm)}, protocol=3)
    write_cifar(given / "cifar10" / "cifar-10-python.tar.gz", 5, attack)
    with pytest.raises(files.DatasetError, match="which no array needs"):
        datasets.load("cifar10")
    assert not harm.exists()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda pixels, labels: python2_batch(pixels, labels)[:-1], "EOFError"),
        (lambda pixels, labels: b"", "EOFError"),
        (lambda pixels, labels: python2_batch(pixels, labels).replace(b"labels", b"lapels"), "KeyError"),
        (lambda pixels, labels: python2_batch(pixels[:, 1:], labels), r"uint8 \(2, 3071\), wanted uint8"),
        (lambda pixels, labels: python2_batch(pixels, labels[:1]), "1 labels for 2 images"),
        (lambda pixels, labels: python2_batch(pixels, [3, 11]), "labels from 3 to 11"),
        (lambda pixels, labels: python2_batch(pixels, [-1, 4]), "labels from -1 to 4"),
        (lambda pixels, labels: pickle.dumps([pixels, labels], protocol=3), "TypeError"),
        (lambda pixels, labels: pickle.dumps({b"data": [1], b"labels": labels}, protocol=3), "are list"),
        (lambda pixels, labels: pickle.dumps({b"data": pixels, b"labels": [0.5, 1]}, protocol=3), "float64"),
    ],
)
def test_a_damaged_cifar_batch_is_named_with_what_is_wrong(
    given: Path, make: Callable[[np.ndarray, list[int]], bytes], complaint: str
) -> None:
    write_cifar(given / "cifar10" / "cifar-10-python.tar.gz", 5, make)
    with pytest.raises(files.DatasetError, match=rf"cifar-10-python\.tar\.gz: .*{complaint}"):
        datasets.load("cifar10")


@pytest.mark.parametrize("size", [0, 10, 1000, -1])
@pytest.mark.parametrize(("name", "batches"), [("cifar-10-python.tar.gz", 5), ("cifar-10-python-subset.tar.xz", 1)])
def test_an_archive_cut_short_is_refused(given: Path, name: str, batches: int, size: int) -> None:
    path = given / "cifar10" / name
    write_cifar(path, batches)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(files.DatasetError, match="cannot be unpacked"):
        datasets.load("cifar10")


def test_an_archive_whose_checksum_is_wrong_is_refused(given: Path) -> None:
    path = given / "cifar10" / "cifar-10-python.tar.gz"
    write_cifar(path, 5)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the CRC-32 of a gzip file
    path.write_bytes(content)
    with pytest.raises(files.DatasetError, match="CRC"):
        datasets.load("cifar10")


def test_a_missing_batch_is_named(given: Path) -> None:
    write_cifar(given / "cifar10" / "cifar-10-python.tar.gz", 4)
    with pytest.raises(files.DatasetError, match="it has no cifar-10-batches-py/data_batch_5"):
        datasets.load("cifar10")


# Tables and digits


def write_california(given: Path, content: str) -> None:
    path = given / "california-housing" / "cal_housing.tgz"
    write_archive(path, {"CaliforniaHousing/cal_housing.data": content.encode()})


def test_california_gives_ratios_per_household(given: Path) -> None:
    # longitude, latitude, age, rooms, bedrooms, population, households, income, value: the set's first district
    write_california(given, "-122.23,37.88,41.0,880.0,129.0,322.0,126.0,8.3252,452600.0\n" * 10)
    data = datasets.load("california")
    assert (data.x_train.shape, data.y_train.shape, data.x_test.shape) == ((8, 8), (8, 1), (2, 8))
    # the first row of scikit-learn's fetch_california_housing
    row = [8.3252, 41.0, 6.98412698, 1.02380952, 322.0, 2.55555556, 37.88, -122.23]
    np.testing.assert_allclose(data.x_train[0], row, rtol=1e-6)
    np.testing.assert_allclose(data.y_test, 4.526, rtol=1e-6)
    assert len(data.columns) == 8


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "wanted 9 numbers a row"),
        ("1,2,3\n" * 3, r"shape \(3, 3\), wanted 9 numbers"),
        ("1,2,3,4,5,6,7,8,9\n1,2,3\n", "a row cannot be read"),
        ("1,2,3,4,5,6,7,8,nine\n", "a row cannot be read"),
        ("1,2,3,4,5,6,7,8,nan\n", "infinite or missing"),
        ("1,2,3,4,5,6,0,8,9\n", "without households"),
    ],
)
def test_a_damaged_table_is_named_with_what_is_wrong(given: Path, content: str, complaint: str) -> None:
    write_california(given, content)
    with pytest.raises(files.DatasetError, match=rf"cal_housing\.tgz: .*{complaint}"):
        datasets.load("california")


def test_digits_hold_out_a_third_of_every_class() -> None:
    data = datasets.load("digits")
    assert (data.x_train.shape, data.x_test.shape) == ((1198, 8, 8, 1), (599, 8, 8, 1))
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int32)
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)
    train, test = np.bincount(data.y_train), np.bincount(data.y_test)
    np.testing.assert_allclose(test / (train + test), 1 / 3, atol=0.01)


def test_a_held_out_part_is_the_same_every_time() -> None:
    for name in ("digits", "diabetes"):
        for first, second in zip(datasets.load(name)[:4], datasets.load(name)[:4]):
            np.testing.assert_array_equal(first, second)


def test_standardized_columns_have_mean_0_and_variance_1_where_they_are_learned_from() -> None:
    raw = datasets.load("diabetes")
    data = datasets.standardize(raw)
    np.testing.assert_allclose(data.x_train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.x_train.std(0), 1, rtol=1e-5)
    again = data.x_test * raw.x_train.std(0) + raw.x_train.mean(0)
    np.testing.assert_allclose(again, raw.x_test, rtol=1e-4)
    assert (data.x_test.dtype, data.columns) == (np.float32, raw.columns)


def test_diabetes_has_a_column_for_each_name() -> None:
    data = datasets.load("diabetes")
    assert data.x_train.shape == (353, len(data.columns))
    assert data.x_test.shape == (89, 10)
    assert (data.y_train.dtype, data.y_train.shape) == (np.float32, (353, 1))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no data set 'imagenet'; there are digits, mnist"):
        datasets.load("imagenet")


def test_the_script_says_what_it_loaded() -> None:
    script = str(datasets.__file__)
    done = subprocess.run([sys.executable, script, "digits"], capture_output=True, text=True, check=True)
    assert done.stdout == "digits: (1198, 8, 8, 1) to train on, (599, 8, 8, 1) held out\n"


# Real files


def test_real_mnist_has_its_known_statistics(data_folder: Path) -> None:
    data = datasets.load("mnist")
    assert (data.x_train.shape, data.x_test.shape) == ((60000, 28, 28, 1), (10000, 28, 28, 1))
    assert data.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    np.testing.assert_allclose([data.x_train.mean(), data.x_train.std()], [0.130660, 0.308108], atol=2e-6)


def test_real_fashion_mnist_has_its_known_statistics(data_folder: Path) -> None:
    data = datasets.load("fashion-mnist")
    assert np.bincount(data.y_train).tolist() == [6000] * 10
    assert [data.classes[label] for label in data.y_test[:3]] == ["Ankle boot", "Pullover", "Trouser"]
    np.testing.assert_allclose([data.x_train.mean(), data.x_train.std()], [0.286041, 0.353024], atol=2e-6)


def test_real_cifar_has_its_known_statistics(data_folder: Path) -> None:
    data = datasets.load("cifar10")
    assert data.x_test.shape == (10000, 32, 32, 3)
    assert np.bincount(data.y_test).tolist() == [1000] * 10
    assert np.bincount(data.y_train[:10000]).tolist() == [1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981]
    means = data.x_test.mean((0, 1, 2), dtype=np.float64)
    np.testing.assert_allclose(means, [0.49421, 0.48513, 0.45041], atol=6e-6)


def test_real_california_has_its_known_means(data_folder: Path) -> None:
    data = datasets.load("california")
    rows = np.concatenate([data.x_train, data.x_test]).mean(0, dtype=np.float64)
    assert (len(data.x_train), len(data.x_test)) == (16512, 4128)
    np.testing.assert_allclose(rows[[0, 2, 3, 5]], [3.870671, 5.429000, 1.096675, 3.070655], rtol=1e-6)
    value = np.concatenate([data.y_train, data.y_test]).mean(dtype=np.float64)
    np.testing.assert_allclose(value, 2.06855817, rtol=1e-6)
