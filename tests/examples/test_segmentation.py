"""The U-Net learns where nuclei are, and is measured beside Otsu's method on the same pictures."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

nuclei = importlib.import_module("nuclei")
segmentation = importlib.import_module("segmentation")

PICTURES = ("overlays.png", "scores.png", "learning_curves.png")


@pytest.fixture
def discs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of bright discs on a noisy ground, in place of nuclei."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    masks = np.zeros((40, 64, 64), bool)
    for mask in masks:
        for row, column, radius in draw.uniform((5, 5, 5), (58, 58, 9), (4, 3)):
            mask |= (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    images = (0.2 + 0.3 * masks + draw.normal(0, 0.03, masks.shape))[..., None].astype(np.float32)
    data = nuclei.Nuclei(images, masks, tuple(map(str, range(40))))
    monkeypatch.setattr(nuclei, "load", lambda: data)


@pytest.mark.usefixtures("discs")
def test_both_methods_find_discs_and_the_table_says_what_is_returned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage", reason="Otsu's threshold is scikit-image's, which is not installed")
    scores = segmentation.main(widths=(4, 8), crop=32, epochs=8, batch_size=4, learning_rate=0.03, output=tmp_path)
    printed = capsys.readouterr().out
    assert "28 pictures to train on, 4 to choose by, 8 to test" in printed
    assert scores["Otsu"] > 0.95  # two levels of brightness are what it is made for
    assert scores["U-Net"] > 0.6  # the share of discs, the IoU of calling everything a disc, is a fifth
    rows = [line.split() for line in printed.splitlines()]
    for name, score in scores.items():
        assert sum(row[:2] == [name, f"{score:.4f}"] for row in rows) == 1
    assert all((tmp_path / name).stat().st_size > 5_000 for name in PICTURES)


def test_a_mask_follows_its_picture_through_crops_and_turns() -> None:
    masks = jax.random.bernoulli(jax.random.key(0), 0.5, (6, 20, 24))
    x, turned = segmentation.augment(jax.random.key(1), (masks[..., None].astype(float), masks), size=8)
    assert turned.shape == (6, 8, 8)
    np.testing.assert_array_equal(x[..., 0] > 0.1, turned)
    lights = x.max(axis=(1, 2, 3))
    assert len(np.unique(lights)) == 6
    assert not jnp.array_equal(turned[0], turned[1])


def test_iou_and_loss_of_answers_that_are_known() -> None:
    mask = np.zeros((3, 4, 4), bool)
    mask[:2, :2] = True
    found = np.zeros((3, 4, 4), bool)
    found[0, :2], found[1, 1:3] = True, True
    np.testing.assert_allclose(segmentation.iou(found, mask), [1, 1 / 3, 1], atol=1e-6)
    sure = np.where(mask, 40, -40).astype(np.float32)
    np.testing.assert_allclose(segmentation.loss(sure, mask), 0, atol=1e-5)
    wrong = segmentation.loss(-sure, mask)
    np.testing.assert_allclose(wrong[:2], 40 + 1 - 1 / (16 + 1), rtol=1e-5)
