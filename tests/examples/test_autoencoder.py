"""The autoencoder and PCA are compared on images that neither has seen, and the bound is what it says."""

import importlib
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

autoencoder = importlib.import_module("autoencoder")
datasets = importlib.import_module("datasets")
mosaic = importlib.import_module("mosaic")

PICTURES = [f"digits_{name}.png" for name in ("map", "interpolation", "restored", "samples")]


def test_both_models_restore_images_better_than_the_mean_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = autoencoder.main("digits", components=(2, 4), hidden=64, epochs=25, examples=400, output=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits: 400 images to train on, a tenth of them to watch, 400 to test, (8, 8, 1) each"
    table = {tuple(line.split()[:2]): [float(cell) for cell in line.split()[2:]] for line in lines[-5:-1]}
    assert list(table) == [("VAE", "2"), ("PCA", "2"), ("VAE", "4"), ("PCA", "4")]
    for (name, count), measured in table.items():
        np.testing.assert_allclose(measured, found[name, int(count)], atol=6e-3)
    x, _, x_test, _ = (part[:400] for part in datasets.load("digits")[:4])
    mean = np.sqrt(np.mean((x_test - x.mean(0)) ** 2))
    assert all(error < 0.95 * mean for error, _, _ in found.values())
    assert found["PCA", 4][0] < found["PCA", 2][0]
    assert all(accuracy > 0.3 for _, _, accuracy in found.values())  # a tenth is luck
    assert all((tmp_path / name).stat().st_size > 5_000 for name in PICTURES)


def test_the_bound_is_below_the_likelihood_of_a_model_that_is_known() -> None:
    """With a decoder that ignores its code, images are normal around its bias, whatever the codes are."""
    shape, x = (2, 2, 1), np.random.default_rng(0).random((5, 2, 2, 1)).astype(np.float32)
    net = autoencoder.autoencoder(shape, 3, 8)
    params, state = net.init(jax.random.key(0), x)
    params["decoder"]["dense_2"] = jax.tree.map(jnp.zeros_like, params["decoder"]["dense_2"])
    objective = autoencoder.evidence_lower_bound(net)
    loss, (_, metrics) = objective(params, state, x, key=jax.random.key(1), train=True)
    wanted = stats.norm.logpdf(x, 0.5, np.exp(-1.2)).sum((1, 2, 3)).mean()
    np.testing.assert_allclose(metrics["divergence"] - loss, wanted, rtol=1e-5)
    assert metrics["divergence"] > 0  # the codes cost something, so the bound is below
    y, _ = net.apply(params, state, x, key=jax.random.key(1))
    mean, deviation = np.asarray(y["mean"]), np.exp(np.asarray(y["log_variance"]) / 2)
    points = mean + deviation * np.random.default_rng(1).standard_normal((100_000, 5, 3))
    monte_carlo = (stats.norm.logpdf(points, mean, deviation) - stats.norm.logpdf(points)).sum(-1).mean()
    np.testing.assert_allclose(metrics["divergence"], monte_carlo, atol=0.01)


def test_a_draw_has_a_gradient_and_needs_a_key() -> None:
    mean, log_variance = jnp.zeros((2, 3)), jnp.full((2, 3), 0.5)
    slope = jax.grad(lambda mean: autoencoder.draw(mean, log_variance, key=jax.random.key(0)).sum())(mean)
    np.testing.assert_allclose(slope, 1)
    first, second = (autoencoder.draw(mean, log_variance, key=jax.random.key(seed)) for seed in (0, 1))
    assert not np.allclose(first, second)


def test_codes_of_pca_are_standard_normal_and_invertible() -> None:
    x = datasets.load("digits").x_train[:200]
    model = autoencoder.fit_pca(x, 64)
    code = model.encode(x)
    np.testing.assert_allclose(model.decode(code), x, atol=1e-4)
    np.testing.assert_allclose(autoencoder.fit_pca(x, 5).encode(x).std(0, ddof=1), 1, rtol=1e-4)


def test_a_mosaic_has_every_image_in_its_place() -> None:
    images = np.arange(1, 4).reshape(3, 1, 1, 1) / 4 * np.ones((1, 2, 3, 1))
    picture = mosaic.mosaic(images, 2)
    assert picture.shape == (5, 7)
    np.testing.assert_allclose(picture[:2, :3], 0.75)
    np.testing.assert_allclose(picture[:2, 4:], 0.5)
    np.testing.assert_allclose(picture[3:, :3], 0.25)
    assert (picture[2] == 1).all()
    assert (picture[:, 3] == 1).all()
    assert (picture[3:, 4:] == 1).all()


def test_the_script_reads_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["autoencoder.py", "--data", "digits", "--components", "3", "--epochs", "1"])
    with pytest.raises(SystemExit, match="the first number of components must be 2"):
        runpy.run_path(str(autoencoder.__file__), run_name="__main__")
