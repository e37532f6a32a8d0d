"""The two networks learn in one step, and what they draw is measured as it says."""

import importlib
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn

examiner = importlib.import_module("examiner")
gan = importlib.import_module("gan")

PICTURES = [f"digits_{name}.png" for name in ("training", "progress", "nearest", "samples")]


def test_drawings_come_closer_and_the_rivals_are_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = gan.main("digits", steps=240, batch_size=32, examples=400, output=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits: 300 images to train on, 100 to watch, 400 to test, (8, 8, 1) each"
    assert list(table)[:2] == ["validation images", "GAN"]
    assert [name.split()[0] for name in table] == ["validation", "GAN", "mixture", "Gaussian"]
    distances = [float(line.split("distance ")[1].split(",")[0]) for line in lines if line.startswith("step")]
    assert len(distances) == gan.SNAPSHOTS
    assert distances[-1] < 0.8 * distances[0]
    assert table["validation images"][0] < min(values[0] for values in list(table.values())[1:])
    for line, values in zip(lines[-5:-1], table.values()):
        np.testing.assert_allclose([float(cell) for cell in line[18:].split()], values, atol=6e-3)
    assert all((tmp_path / name).stat().st_size > 5_000 for name in PICTURES)


def test_a_step_changes_both_networks_and_the_average_follows() -> None:
    generator, discriminator = gan.generator_network(8), gan.discriminator_network(8)
    optimizer, x = optax.adam(1e-3), jnp.full((4, 8, 8, 1), 0.5)
    drawing = fnn.train_init(generator, optimizer, jax.random.key(0), jnp.zeros((4, gan.CODE)))
    judging = fnn.train_init(discriminator, optimizer, jax.random.key(1), x)
    begin = gan.Contest(drawing, judging, drawing.params)
    run, metrics = jax.jit(gan.contest(generator, discriminator, optimizer, 4))(begin, x)
    assert int(run.generator.step) == int(run.discriminator.step) == 1
    moved = lambda a, b: [not np.array_equal(*pair) for pair in zip(jax.tree.leaves(a), jax.tree.leaves(b))]
    assert all(moved(begin.generator.params, run.generator.params))
    assert any(moved(begin.discriminator.params, run.discriminator.params))
    # The directions of the last layer, of one feature, have nowhere to turn.
    state = run.discriminator.state
    assert [any(moved(begin.discriminator.state[name], state[name])) for name in sorted(state)] == [True, True, False]
    between = jax.tree.map(lambda old, new: old + 0.005 * (new - old), begin.average, run.generator.params)
    jax.tree.map(lambda found, wanted: np.testing.assert_allclose(found, wanted, atol=1e-6), run.average, between)
    assert set(metrics) == {"generator", "discriminator", "told apart"}


@pytest.mark.parametrize("size", [8, 28])
def test_drawings_have_the_size_of_the_images(size: int) -> None:
    generator, discriminator = gan.generator_network(size), gan.discriminator_network(size)
    code = jnp.zeros((2, gan.CODE))
    params, state = generator.init(jax.random.key(0), code)
    drawn, _ = generator.apply(params, state, code)
    assert drawn.shape == (2, size, size, 1)
    params, state = discriminator.init(jax.random.key(0), drawn)
    assert discriminator.apply(params, state, drawn)[0].shape == (2,)


def test_the_distance_is_that_of_normal_distributions() -> None:
    draw = np.random.default_rng(0)
    plain = examiner.Examiner(lambda images: images, lambda images: images)
    a = draw.normal(size=(50_000, 3))
    np.testing.assert_allclose(plain.distance(a, a), 0, atol=1e-6)
    np.testing.assert_allclose(plain.distance(a, a + np.array([2, 0, 0])), 4, rtol=1e-3)  # apart by 2
    np.testing.assert_allclose(plain.distance(a, 3 * a), 12, rtol=0.05)  # (3 - 1)^2 in each direction


def test_the_nearest_image_is_found() -> None:
    train = np.stack([np.full((2, 2, 1), value, np.float32) for value in (0.0, 0.5, 1.0)])
    which, distance = examiner.nearest(train[[2, 0]] * 0.9, train)
    np.testing.assert_array_equal(which, [2, 0])
    np.testing.assert_allclose(distance, (0.2 + 0.0) / 2, atol=1e-6)


def test_the_script_reads_its_options(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    (cache / "mnist").mkdir(parents=True)
    (cache / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"no images")
    monkeypatch.setattr(sys, "argv", ["gan.py", "--data", "mnist", "--steps", "5", "--learning-rate", "1e-3"])
    with pytest.raises(SystemExit, match=r"train-images-idx3-ubyte\.gz: its SHA-256 is"):
        runpy.run_path(str(gan.__file__), run_name="__main__")
