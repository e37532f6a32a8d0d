"""What is spelled out by hand agrees with fnn, and the script fails where it does not."""

import importlib
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from_scratch = importlib.import_module("from_scratch")


def test_everything_by_hand_agrees_with_fnn_to_rounding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    differences = from_scratch.main((8, 6), "cross_entropy", steps=20, output=tmp_path)
    windows = ["conv2d", "max_pool"]
    layers = [f"layer {number}, {what}" for number in (1, 2, 3) for what in ("gradient of the kernel", "bias after")]
    for part in ("scores", "loss", "losses of 20 steps", "gradient of the input", *layers, *windows):
        assert any(quantity.startswith(part) for quantity in differences), part
    assert len(differences) == 4 + 3 * 4 + len(from_scratch.SETTINGS) * 6
    assert max(differences.values()) < 1e-5
    printed = capsys.readouterr().out
    assert all(quantity in printed for quantity in differences)
    assert (tmp_path / "from_scratch.png").stat().st_size > 10_000


def test_a_mistake_by_hand_fails_the_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(from_scratch, "slope", lambda activation: 1.001 * activation * (1 - activation))
    monkeypatch.setattr(from_scratch, "SETTINGS", ())
    with pytest.raises(ArithmeticError, match="layer 1, gradient of the kernel") as caught:
        from_scratch.main((8,), steps=2, output=tmp_path)
    assert "layer 2, gradient of the kernel" not in str(caught.value)


@pytest.mark.parametrize("wrong", [1.01, float("nan"), float("inf")])
def test_a_table_with_a_wrong_number_is_refused(wrong: float) -> None:
    table = from_scratch.Comparison(1e-4)
    table.add("right", np.ones(2), np.ones(2))
    table.check()
    table.add("wrong", np.ones(2), np.array([1, wrong]))
    with pytest.raises(ArithmeticError, match=r"rounding: wrong$"):
        table.check()


def test_a_table_refuses_arrays_of_other_shapes() -> None:
    with pytest.raises(ValueError, match="bias has the shape"):
        from_scratch.Comparison(1e-4).add("bias", np.ones(2), np.ones((2, 1)))


def test_training_by_hand_learns_digits() -> None:
    generator = np.random.default_rng(0)
    data = importlib.import_module("datasets").load("digits")
    x, target = data.x_train[:400].reshape(400, -1), np.eye(10)[data.y_train[:400]]
    weights = [(0.1 * generator.standard_normal(shape), np.zeros(shape[1])) for shape in ((64, 16), (16, 10))]
    weights, losses, sizes = from_scratch.train(weights, x, target, "cross_entropy", steps=150, learning_rate=1.0)
    assert losses[-1] < losses[0] / 4
    assert np.shape(sizes) == (150, 2)
    scores = from_scratch.forward(weights, data.x_test.reshape(len(data.x_test), -1))[1]
    assert np.mean(scores.argmax(1) == data.y_test) > 0.85


def test_the_squared_error_agrees_too_and_the_script_reads_its_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--hidden 4 --loss squared_error --steps 3 --tolerance 1e-5 --output"
    monkeypatch.setattr(sys, "argv", ["from_scratch.py", *options.split(), str(tmp_path)])
    runpy.run_path(str(from_scratch.__file__), run_name="__main__")
    printed = capsys.readouterr().out
    assert "losses of 3 steps" in printed
    assert "layer 3" not in printed
    assert (tmp_path / "from_scratch.png").is_file()
