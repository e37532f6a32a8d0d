"""What is loaded fits what is wanted, or a table says where not; parts are loaded on request."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.checkpoint.archive import verify

X = jnp.ones((4, 3))


def made(net: fnn.Layer, seed: int = 0) -> Any:
    return net.init(jax.random.key(seed), X)[0]


def test_a_misfit_is_a_table(tmp_path: Path) -> None:
    fnn.save(tmp_path / "a", made(fnn.serial(fnn.dense(4), fnn.dense(2))))
    with pytest.raises(fnn.MisfitError) as caught:
        fnn.load(tmp_path / "a", made(fnn.serial(fnn.dense(5), fnn.layer_norm())))
    assert str(caught.value).splitlines()[1:] == [
        "  path                wanted        found",
        "  dense_0/bias        float32[5]    float32[4]",
        "  dense_0/kernel      float32[3,5]  float32[3,4]",
        "  layer_norm_0/bias   float32[5]    nothing",
        "  layer_norm_0/scale  float32[5]    nothing",
        "  dense_1/bias        nothing       float32[2]",
        "  dense_1/kernel      nothing       float32[4,2]",
    ]


def test_another_optimizer_is_told_even_if_it_has_the_same_arrays(tmp_path: Path) -> None:
    params = {"w": jnp.ones(2)}
    fnn.save(tmp_path / "a", optax.sgd(0.1).init(params))
    with pytest.raises(fnn.MisfitError, match=r"0 +ScaleByAdamState +EmptyState"):
        fnn.load(tmp_path / "a", optax.adam(0.1).init(params))
    fnn.save(tmp_path / "b", optax.trace(0.9).init(params))
    with pytest.raises(fnn.MisfitError, match=r"\(the tree\) +EmaState +TraceState"):
        fnn.load(tmp_path / "b", optax.ema(0.9).init(params))


def test_dtypes_must_be_equal(tmp_path: Path) -> None:
    fnn.save(tmp_path / "a", {"w": jnp.ones(2, jnp.bfloat16)})
    with pytest.raises(fnn.MisfitError, match=r"w +float32\[2\] +bfloat16\[2\]"):
        fnn.load(tmp_path / "a", {"w": jnp.ones(2)})


def test_a_part_is_loaded_and_the_rest_is_told(tmp_path: Path) -> None:
    old = made(fnn.serial(trunk=fnn.dense(4), head=fnn.dense(10)), 1)
    fnn.save(tmp_path / "a", old)
    new = made(fnn.serial(trunk=fnn.dense(4), head=fnn.dense(2)))
    with pytest.warns(fnn.CheckpointWarning, match=r"2 of 4 leaves stay .*, 0 are left\n(.*\n)+.*head/kernel"):
        found = fnn.load(tmp_path / "a", new, strict=False)
    assert (found["trunk"]["kernel"] == old["trunk"]["kernel"]).all()
    assert (found["head"]["kernel"] == new["head"]["kernel"]).all()
    with (
        pytest.raises(fnn.MisfitError, match="has only specs"),
    ):
        fnn.load(tmp_path / "a", jax.eval_shape(lambda: new), strict=False)


def test_what_is_to_be_left_is_named_by_patterns(tmp_path: Path) -> None:
    fnn.save(tmp_path / "a", {"w": jnp.ones(2), "extra": {"a": jnp.ones(1), "b": jnp.ones(1)}})
    assert set(fnn.load(tmp_path / "a", {"w": jnp.zeros(2)}, ignore=["extra/*"])) == {"w"}
    with pytest.raises(fnn.MisfitError, match=r"extra/b +nothing"):
        fnn.load(tmp_path / "a", {"w": jnp.zeros(2)}, ignore=["*a"])


def test_arrays_go_where_the_template_is(tmp_path: Path) -> None:
    fnn.save(tmp_path / "a", {"host": np.ones(2), "device": jnp.ones(2), "single": np.float32(1)})
    found = fnn.load(tmp_path / "a", {"host": np.zeros(2), "device": jnp.zeros(2), "single": np.float32(0)})
    assert isinstance(found["host"], np.ndarray)
    assert isinstance(found["device"], jax.Array)
    plain = fnn.load(tmp_path / "a")
    assert isinstance(plain["device"], jax.Array)
    assert plain["host"].dtype == np.float64
    with pytest.raises(fnn.MisfitError, match="only with jax_enable_x64"):
        fnn.load(tmp_path / "a", {**found, "host": jax.ShapeDtypeStruct((2,), np.float64)})


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fnn.load(tmp_path / "a")
    fnn.save(tmp_path / "a", {})
    with pytest.raises(TypeError, match="pass like="):
        fnn.load(tmp_path / "a", strict=False)


def test_files_of_other_tools_are_read_and_have_no_checksums(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"b.weight": np.ones((2, 3), np.float32), "a": np.zeros(1, np.int64)}, tmp_path / "a")
    assert {name: array.shape for name, array in fnn.load(tmp_path / "a").items()} == {"a": (1,), "b.weight": (2, 3)}
    assert not verify(tmp_path / "a")
    fnn.save(tmp_path / "b", {})
    assert verify(tmp_path / "b")


def test_arrays_come_back_on_the_devices_of_the_template(tmp_path: Path) -> None:
    params = jax.device_put(made(fnn.dense(4)), jax.devices()[0])
    fnn.save(tmp_path / "a", params)
    found = fnn.load(tmp_path / "a", params)
    assert found["kernel"].sharding == params["kernel"].sharding
    assert found["kernel"].committed
    assert not fnn.load(tmp_path / "a", made(fnn.dense(4)))["kernel"].committed


def test_a_folder_is_read_by_another_function(tmp_path: Path) -> None:
    """The error was that of the operating system."""
    with pytest.raises(fnn.CheckpointError, match=r"it is a folder; read the run .* by fnn.load_run\(folder\)"):
        fnn.load(tmp_path)
