"""Pictures of nuclei are read strictly, from a zip and from a tar archive."""

import importlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

files = importlib.import_module("files")
nuclei = importlib.import_module("nuclei")


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    opened = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(opened, "PNG")
    return opened.getvalue()


def members() -> dict[str, bytes]:
    """Two grey pictures of two nuclei each, one in colour, and one of another size."""
    draw = np.random.default_rng(0)
    made = {}
    for name in ("b", "a"):
        made[f"stage1_train/{name}/images/{name}.png"] = png(draw.integers(0, 256, (256, 256), np.uint8), "RGBA")
        for number in range(2):
            mask = np.zeros((256, 256), np.uint8)
            mask[100 * number : 100 * number + 10, :20] = 255
            made[f"stage1_train/{name}/masks/{number}.png"] = png(mask)
    made["stage1_train/stained/images/stained.png"] = png(draw.integers(0, 256, (256, 256, 3), np.uint8))
    made["stage1_train/large/images/large.png"] = png(draw.integers(0, 256, (260, 347), np.uint8), "RGBA")
    made["stage1_train/large/masks/0.png"] = png(np.zeros((260, 347), np.uint8))
    return made


def write(path: Path, contents: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:xz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", nuclei.ARCHIVES)
def test_grey_pictures_come_sorted_with_the_union_of_their_masks(given: Path, name: str) -> None:
    written = members()
    write(given / nuclei.FOLDER / name, written)
    data = nuclei.load()
    assert data.names == ("a", "b")
    assert (data.images.shape, data.images.dtype) == ((2, 256, 256, 1), np.float32)
    with Image.open(io.BytesIO(written["stage1_train/a/images/a.png"])) as image:
        np.testing.assert_array_equal(data.images[0], np.asarray(image)[..., :1] / np.float32(255))
    assert (data.masks.dtype, data.masks.sum(axis=(1, 2)).tolist()) == (bool, [400, 400])
    assert data.masks[0, 100, 19]
    assert not data.masks[0, 100, 20]


def test_the_cache_is_looked_into_and_the_error_names_it(cache: Path) -> None:
    with pytest.raises(files.DatasetError, match=f"(?s)not on this machine.*stage1_train.zip.*{cache}.*FNN_DATA"):
        nuclei.find()
    path = write(cache / nuclei.FOLDER / "stage1_train.zip", members())
    assert nuclei.find() == path


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"stage1_train/a/masks/0.png": None, "stage1_train/a/masks/1.png": None}, "a has no masks"),
        ({"stage1_train/a/images/a.png": b"hello"}, "a/images/a.png cannot be read"),
        ({"stage1_train/a/masks/0.png": members()["stage1_train/a/masks/0.png"][:70]}, "masks/0.png cannot be read"),
        ({"stage1_train/a/masks/0.png": png(np.full((256, 256), 7, np.uint8))}, "values beside 0 and 255"),
        ({f"stage1_train/{name}/images/{name}.png": None for name in "ab"}, "no grey pictures of 256 x 256"),
    ],
)
def test_what_is_wrong_with_a_picture_is_said(tmp_path: Path, changes: dict[str, bytes | None], complaint: str) -> None:
    contents = {name: content for name, content in (members() | changes).items() if content is not None}
    path = write(tmp_path / "stage1_train.zip", contents)
    with pytest.raises(files.DatasetError, match=rf"stage1_train\.zip: .*{complaint}.*delete the file"):
        nuclei.read(path)


@pytest.mark.parametrize("name", nuclei.ARCHIVES)
def test_a_damaged_archive_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, members())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(files.DatasetError, match="cannot be unpacked"):
        nuclei.read(path)


def test_the_real_pictures(data_folder: Path) -> None:
    path = data_folder / nuclei.FOLDER / nuclei.ARCHIVES[1]
    if not path.is_file():
        pytest.skip(f"needs {path}")
    data = nuclei.read(path)
    assert data.images.shape == (200, 256, 256, 1)
    assert list(data.names) == sorted(data.names)
    shares = data.masks.mean(axis=(1, 2))
    assert shares.mean() == pytest.approx(0.077, abs=0.001)
    assert (shares.min(), shares.max()) == (pytest.approx(0.0015, abs=1e-4), pytest.approx(0.378, abs=1e-3))
    assert np.mean([image[mask].mean() > image[~mask].mean() for image, mask in zip(data.images, data.masks)]) > 0.95
