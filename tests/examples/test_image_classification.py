"""The main job of a newcomer runs from data to pictures, and says how good it is."""

import importlib
from pathlib import Path

import pytest

image_classification = importlib.import_module("image_classification")

PICTURES = ("learning_curves.png", "confusion.png", "filters.png")


def test_the_accuracy_returned_is_the_one_printed_and_the_pictures_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracy = image_classification.main("digits", epochs=8, examples=200, batch_size=16, hidden=16, output=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits: 180 images to train on, 20 to watch, 200 to test, (8, 8, 1) each"
    assert lines[-1] == f"test accuracy: {accuracy:.4f}"
    assert accuracy > 0.5  # a tenth is luck
    for name in PICTURES:
        assert (tmp_path / name).stat().st_size > 5_000
