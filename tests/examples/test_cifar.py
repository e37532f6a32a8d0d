"""The residual network learns, and PyTorch's twin is a twin."""

import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

cifar = importlib.import_module("cifar")
datasets = importlib.import_module("datasets")

PICTURES = ("learning_curves.png", "mistakes.png", "confusion.png")


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noisy pictures, each in the colour of its class, in place of CIFAR-10's."""
    draw = np.random.default_rng(0)
    palette = draw.random((10, 3))
    parts = []
    for size in (220, 100):
        y = draw.integers(0, 10, size).astype(np.int32)
        noisy = palette[y][:, None, None] + draw.normal(0, 0.1, (size, 12, 12, 3))
        parts += [noisy.clip(0, 1).astype(np.float32), y]
    images = datasets.Dataset(*parts, classes=tuple(f"colour {number}" for number in range(10)))
    monkeypatch.setattr(datasets, "load", lambda name: images)


@pytest.mark.usefixtures("colours")
def test_the_last_and_the_averaged_weights_are_tested_and_the_pictures_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = cifar.main(blocks=1, epochs=8, batch_size=22, learning_rate=0.05, output=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cifar10: 198 pictures to train on, 22 to watch, 100 to test"
    assert lines[1].startswith("ResNet-8: ")
    assert list(found) == ["fnn, last weights", "fnn, averaged weights"]
    for name, accuracy in found.items():
        assert accuracy > 0.4, name  # a tenth is luck
        assert sum(line.startswith(f"{name} ") and f" {accuracy:.4f}, 95% interval" in line for line in lines) == 1
    assert all((tmp_path / name).stat().st_size > 5_000 for name in PICTURES)


def test_the_default_is_resnet_20() -> None:
    params = jax.eval_shape(cifar.resnet(3).init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))[0]
    assert fnn.count(params) == 272_474
    assert sum(path[-1].key == "kernel" for path, _ in jax.tree.leaves_with_path(params)) == 20 + 2  # 2 shortcuts


def test_a_picture_is_shifted_and_mirrored_and_nothing_else() -> None:
    x = jax.random.uniform(jax.random.key(0), (64, 6, 6, 1), minval=0.5)
    y = jnp.arange(64)
    shifted, same = cifar.augment(jax.random.key(1), (x, y))
    np.testing.assert_array_equal(same, y)
    padded = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
    places = set()
    for image, whole in zip(np.asarray(shifted), padded):
        cuts = {
            (r, c, m): whole[r : r + 6, c : c + 6][:, :: -1 if m else 1]
            for r in range(9)
            for c in range(9)
            for m in (0, 1)
        }
        places |= {place for place, cut in cuts.items() if np.array_equal(cut, image)}
        assert any(np.array_equal(cut, image) for cut in cuts.values())
    for axis, size in enumerate((9, 9, 2)):
        assert len({place[axis] for place in places}) == size


def test_statistics_are_those_of_the_weights() -> None:
    net = fnn.batch_norm()
    x = np.random.default_rng(0).normal(3, 2, (640, 2)).astype(np.float32)
    params, state = net.init(jax.random.key(0), x)
    measured = cifar.statistics(net, params, state, x, 10)
    np.testing.assert_allclose(measured["mean"], 3, atol=0.5)
    np.testing.assert_allclose(measured["var"], 4, rtol=0.4)


@pytest.mark.usefixtures("colours")
def test_the_twin_has_as_many_parameters_and_learns_too(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    twin = importlib.import_module("cifar_torch")
    assert sum(weight.numel() for weight in twin.resnet(3, cifar.CHANNELS).parameters()) == 272_474
    x = torch.rand(16, 3, 6, 6) + 0.5
    assert twin.augment(x).shape == x.shape
    setting = cifar.Setting(blocks=1, epochs=8, batch_size=22, learning_rate=0.05)
    images = datasets.load("cifar10")
    found = twin.train(setting, cifar.CHANNELS, (images.x_train, images.y_train), (images.x_test, images.y_test))
    assert list(found) == ["last weights", "averaged weights"]
    assert min(found.values()) > 0.4


def test_without_pytorch_the_comparison_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "cifar_torch", raising=False)
    with pytest.raises(ImportError, match="--compare needs PyTorch: pip install torch"):
        importlib.import_module("cifar_torch")
