"""What is saved comes back the same, for every kind of leaf and tree; other tools read it; a fault changes nothing."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

import fnn

DTYPES = [
    "bool", "int2", "int4", "int8", "int16", "int32", "int64", "uint2", "uint4", "uint8", "uint16", "uint32", "uint64",
    "float16", "bfloat16", "float32", "float64", "complex64", "complex128", "float4_e2m1fn", "float8_e3m4",
    "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    "float8_e8m0fnu",
]  # fmt: skip


def bits(array: Any) -> bytes:
    return np.asarray(array).tobytes()


def same(a: Any, b: Any) -> None:
    """Equal structure, types of leaves, dtypes, shapes and bits."""
    chex.assert_trees_all_equal_structs(a, b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        if isinstance(one, bool | int | float):
            assert type(one) is type(other)
            assert one == other
            continue
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        assert bits(one) == bits(other)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (3,), (2, 3, 4)])
def test_every_dtype_comes_back(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    array = np.resize(np.arange(24) % 2, shape).astype(dtype)
    fnn.save(tmp_path / "a", {"x": array})
    found = fnn.load(tmp_path / "a", {"x": array})["x"]
    assert isinstance(found, np.ndarray)
    same({"x": array}, {"x": found})


def test_a_train_state_comes_back_and_so_do_its_keys(tmp_path: Path) -> None:
    net = fnn.serial(fnn.dense(3), fnn.batch_norm(), fnn.dense(2))
    optimizer = optax.chain(optax.clip(1.0), optax.adam(optax.exponential_decay(0.1, 10, 0.5)))
    run = fnn.train_init(net, optimizer, jax.random.key(3), jnp.ones((4, 5)))
    fnn.save(tmp_path / "run", run)
    found = fnn.load(tmp_path / "run", run)
    assert isinstance(found, fnn.TrainState)
    same(run, found)
    same(run, fnn.load(tmp_path / "run", jax.eval_shape(lambda: run)))


def test_trees_without_a_template_are_dicts_lists_and_tuples(tmp_path: Path) -> None:
    tree = {
        "a": [jnp.ones(2), (jnp.zeros(3), None)], "n": 3, "f": 0.1, "t": True, "inf": float("-inf"), "empty": {},
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 2), 7: jnp.int8(5), "nothing": (),
    }  # fmt: skip
    with pytest.raises(ValueError, match="sorting pytree dictionary keys"):
        fnn.save(tmp_path / "a", tree)  # JAX does not sort keys of two kinds
    del tree[7]
    fnn.save(tmp_path / "a", tree)
    same(tree, fnn.load(tmp_path / "a"))
    fnn.save(tmp_path / "b", {7: jnp.ones(1), 8: {}})
    assert set(fnn.load(tmp_path / "b")) == {7, 8}
    fnn.save(tmp_path / "c", jnp.arange(3))
    assert fnn.load(tmp_path / "c").tolist() == [0, 1, 2]
    fnn.save(tmp_path / "d", optax.adam(1.0).init({"w": jnp.ones(2)}))
    assert set(fnn.load(tmp_path / "d")[0]) == {"count", "mu", "nu"}


@pytest.mark.parametrize("view", [lambda a: a.T, lambda a: a[:, ::2], lambda a: a[::-1], lambda a: a[1:, 1:]])
def test_arrays_that_are_not_contiguous_keep_their_values(view: Any, tmp_path: Path) -> None:
    array = view(np.arange(24.0, dtype=np.float32).reshape(4, 6))
    fnn.save(tmp_path / "a", {"x": array, "big_endian": array.astype(">f4").astype("<f4")})
    assert fnn.load(tmp_path / "a")["x"].tolist() == array.tolist()
    assert load_file(tmp_path / "a")["x"].tolist() == array.tolist()


def test_other_tools_read_the_arrays_by_path(tmp_path: Path) -> None:
    params = {"dense_0": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3, jnp.bfloat16)}}
    fnn.save(tmp_path / "a", {"params": params, "step": 3})
    found = load_file(tmp_path / "a")
    assert found["params/dense_0/kernel"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert set(found) == {"params/dense_0/kernel", "params/dense_0/bias"}


def test_what_a_file_cannot_hold_is_told_with_its_path(tmp_path: Path) -> None:
    for tree, message in [
        ({"a": {"b": "text"}}, "a/b is a str"),
        ({"a": np.array(["x"])}, "a has the dtype <U1"),
        ({"a": {"b": 1.0}, "a/b": 2.0}, "two arrays have the path 'a/b'"),
    ]:
        with pytest.raises(TypeError, match=message):
            fnn.save(tmp_path / "a", tree)
    assert not list(tmp_path.iterdir())


def test_a_note_comes_back(tmp_path: Path) -> None:
    fnn.save(tmp_path / "a", {}, note={"tags": ["x", None], "accuracy": 0.5})
    assert fnn.read_note(tmp_path / "a") == {"tags": ["x", None], "accuracy": 0.5}


def test_a_folder_that_cannot_be_flushed_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was said that the file from before is untouched, after the new one had taken its place."""

    def failing(_: Path) -> None:
        raise OSError(5, "Input/output error")

    fnn.save(tmp_path / "a", {"x": 1})
    monkeypatch.setattr("fnn.checkpoint.disk._flush_folder", failing)
    with pytest.raises(fnn.CheckpointError, match=r"it is written, but .* cannot be flushed: Input/output error"):
        fnn.save(tmp_path / "a", {"x": 2})
    assert fnn.load(tmp_path / "a") == {"x": 2}


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fnn.save(tmp_path / "a", {"x": jnp.ones(3)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
        with pytest.raises(fnn.CheckpointError, match=r"the disk has 100 B left; what was there before is untouched"):
            fnn.save(tmp_path / "a", {"x": jnp.zeros(3)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(fnn.CheckpointError, match="File too large"):
            fnn.save(tmp_path / "a", {"x": jnp.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert fnn.load(tmp_path / "a")["x"].tolist() == [1, 1, 1]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.0123.fnn-tmp").write_bytes(b"half")
    (tmp_path / ".other.0123.fnn-tmp").write_bytes(b"half")
    fnn.save(tmp_path / "a", {})
    assert sorted(file.name for file in tmp_path.iterdir()) == [".other.0123.fnn-tmp", "a"]


def test_folders_are_made(tmp_path: Path) -> None:
    fnn.save(tmp_path / "b" / "c" / "a", {"x": 1})
    assert fnn.load(tmp_path / "b" / "c" / "a") == {"x": 1}


OVERWRITER = """
import sys, jax.numpy as jnp, fnn
step = 0
while True:
    step += 1
    fnn.save(sys.argv[1], {"w": jnp.full(300_000, step)})
    print(step, flush=True)
"""


def test_a_file_that_is_overwritten_is_whole_at_every_moment(tmp_path: Path) -> None:
    for moment in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", OVERWRITER, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        steps = [int(writer.stdout.readline()) for _ in range(2)]
        time.sleep(0.003 * moment)
        writer.kill()
        steps += [int(line) for line in writer.communicate()[0].split()]
        found = fnn.load(tmp_path / "a")["w"]
        assert (found == found[0]).all()
        assert int(found[0]) >= max(steps)


def test_an_error_of_the_disk_in_the_middle_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, calls = os.fsync, []

    def failing(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(fnn.CheckpointError, match="Input/output error"):
        fnn.save(tmp_path / "a", {str(number): np.zeros(100_000) for number in range(8)})
    assert not (tmp_path / "a").exists()


SHARDED = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax, orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import fnn

mesh = Mesh(np.array(jax.devices()), ("data",))
assert mesh.size == 4
net, optimizer = fnn.serial(fnn.dense(8), jnp.tanh, fnn.dropout(0.5), fnn.dense(1)), optax.adam(0.1)
x, y = jnp.linspace(-1, 1, 32).reshape(8, 4), jnp.ones((8, 1))
step = jax.jit(fnn.train_step(fnn.supervised(net, optax.losses.squared_error), optimizer))

def start(seed):
    names = lambda leaf: ["data"] if leaf.shape[:1] in ((4,), (8,)) else []
    place = lambda leaf: jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*names(leaf))))
    return jax.tree.map(place, fnn.train_init(net, optimizer, jax.random.key(seed), x))

def bits(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()

run = jax.tree.map(lambda leaf, like: jax.device_put(leaf, like.sharding), step(start(7), (x, y))[0], start(7))
with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(sys.argv[1], run)
    checkpointer.wait_until_finished()
    found = checkpointer.restore(sys.argv[1], start(0))
assert type(found) is fnn.TrainState
assert not found.params["dense_0"]["kernel"].is_fully_replicated
for (path, wanted), leaf in zip(jax.tree.leaves_with_path(run), jax.tree.leaves(found), strict=True):
    assert (leaf.dtype, leaf.sharding, bits(leaf)) == (wanted.dtype, wanted.sharding, bits(wanted)), path
next_ones = [step(state, (x, y))[0] for state in (run, found)]
assert [bits(leaf) for leaf in jax.tree.leaves(next_ones[0])] == [bits(leaf) for leaf in jax.tree.leaves(next_ones[1])]
print("the same")
"""


def test_a_sharded_state_goes_through_orbax_with_its_key(tmp_path: Path) -> None:
    pytest.importorskip("orbax.checkpoint", reason="saves through Orbax, which is not installed")
    root = str(Path(__file__).parents[2])
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    command = [sys.executable, "-c", SHARDED, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "the same\n", done.stderr
