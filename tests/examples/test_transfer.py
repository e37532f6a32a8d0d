"""What is transferred is used, what is frozen stays, and the comparison is between the same digits."""

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

datasets = importlib.import_module("datasets")
files = importlib.import_module("files")
transfer = importlib.import_module("transfer")

PICTURES = ("accuracies.png", "tasks.png")


@pytest.fixture
def clothes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits upside down, in place of clothes: no file is needed, and there is something to transfer."""
    digits = datasets.load("digits")
    turned = digits._replace(x_train=digits.x_train[:, ::-1])
    monkeypatch.setattr(datasets, "load", lambda name: digits if name == "digits" else turned)


@pytest.mark.usefixtures("clothes")
def test_every_method_learns_and_the_table_says_what_is_returned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = transfer.main(
        "digits", counts=(20, 60), seeds=2, rates=(5e-3,), steps=60, rank=2, epochs=2, test_examples=100, size=8,
        output=tmp_path,
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "fashion-mnist: 1198 clothes to learn from, 8 x 8 pixels"
    assert lines[1] == "digits: up to 60 labelled digits, 500 to choose by, 100 to test"
    assert list(found) == ["from scratch", "head only", "everything", "low-rank adapters"]
    for name, values in found.items():
        assert values.shape == (2, 2)
        assert values[1].mean() > 0.3, name  # a tenth is luck
        (row,) = [line for line in lines if line.startswith(name) and "(0.005)" in line]
        assert [f"{mean:.3f}" in row for mean in values.mean(axis=1)] == [True, True]
    assert sum("minus from scratch at 20 labels" in line for line in lines) == 3
    assert all((tmp_path / name).stat().st_size > 5_000 for name in PICTURES)


@pytest.mark.usefixtures("clothes")
def test_the_script_reads_its_options_and_refuses_more_labels_than_there_are_digits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = "--target digits --counts 50 900 --seeds 1 --rates 0.01 --steps 2 --rank 1 --epochs 1 "
    options += "--source-examples 80 --test-examples 30 --size 4 --seed 1 --output"
    monkeypatch.setattr(sys, "argv", ["transfer.py", *options.split(), str(tmp_path / "new")])
    with pytest.raises(SystemExit, match="digits has 698 digits to give labels to; take smaller --counts"):
        runpy.run_path(str(transfer.__file__), run_name="__main__")


@pytest.fixture(scope="module")
def task() -> Any:
    draw = np.random.default_rng(0)
    return jnp.asarray(draw.random((12, 8, 8, 1), np.float32)), jnp.asarray(draw.integers(0, 10, 12, dtype=np.int32))


def test_adapters_begin_as_the_network_that_they_adapt(task: Any) -> None:
    x, _ = task
    net = transfer.network()
    adapted = transfer.low_rank(net, 2)
    params, state = adapted.init(jax.random.key(0), x)
    shapes = jax.tree.map(jnp.shape, params["adapters"]["trunk"]["conv_1"])
    assert shapes == {"bias": {}, "kernel": {"a": (9 * 16, 2), "b": (2, 32)}}
    (before, outputs), _ = fnn.capture(net, "trunk").apply(params["base"], {}, x)
    np.testing.assert_allclose(adapted.apply(params, state, x)[0], before, atol=1e-6)
    adapter = params["adapters"]["head"]["kernel"]
    adapter["b"] = jnp.ones((2, 10))
    by_hand = before + outputs["trunk"] @ (adapter["a"] @ adapter["b"])
    np.testing.assert_allclose(adapted.apply(params, state, x)[0], by_hand, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "still", "moving"),
    [
        ("from scratch", (), ("trunk/conv_0/kernel", "head/kernel")),
        ("head only", ("trunk/conv_0/kernel", "trunk/dense_0/bias"), ("head/kernel",)),
        ("everything", (), ("trunk/conv_0/kernel", "head/kernel")),
        ("low-rank adapters", ("base/trunk/conv_0/kernel",), ("adapters/trunk/conv_0/kernel/b", "base/head/kernel")),
    ],
)
def test_what_is_frozen_stays_where_the_source_task_left_it(
    task: Any, name: str, still: tuple[str, ...], moving: tuple[str, ...]
) -> None:
    x, y = task
    method = transfer.methods(2)[name]
    trunk = transfer.network().init(jax.random.key(5), x)[0]["trunk"]
    run = lambda steps: transfer.train(method, trunk, steps, x, y, 12, 1e-2, jax.random.key(1))
    before, after = run(0), run(2)
    transferred = fnn.at(before, "base/trunk" if "base" in before else "trunk")
    same = jax.tree.all(jax.tree.map(jnp.array_equal, transferred, trunk))
    assert same == (name != "from scratch")
    for path in still:
        assert jnp.array_equal(fnn.at(before, path), fnn.at(after, path)), path
    for path in moving:
        assert not jnp.array_equal(fnn.at(before, path), fnn.at(after, path)), path


def test_any_first_part_of_the_labelled_rows_has_as_many_of_each_class() -> None:
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 30))
    rows = transfer.labelled(y, 100, range(3))
    assert rows.shape == (3, 100)
    for mine in rows:
        assert len(set(mine)) == 100
        for count in (10, 50, 100):
            assert np.bincount(y[mine[:count]]).tolist() == [count // 10] * 10
    assert not np.array_equal(rows[0], rows[1])


def test_pictures_that_are_halved_keep_their_mean() -> None:
    images = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    small = transfer.resize(images, 14)
    np.testing.assert_allclose(small[1, 2, 3, 0], images[1, 4:6, 6:8].mean(), rtol=1e-6)
    assert transfer.resize(images[:, :8, :8], 14).shape == (3, 14, 14, 1)
