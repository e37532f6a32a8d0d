"""A folder keeps the newest and the best, whatever happens to its files, to its writer or to the clock."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn


def tree(value: float) -> Any:
    return {"w": jnp.full(3, value, jnp.float32)}


def fill(folder: Path, *values: float, **options: Any) -> fnn.Checkpoints:
    checkpoints = fnn.Checkpoints(folder, **options)
    for number, value in enumerate(values, 1):
        checkpoints.save(10 * number, tree(value), metrics={"loss": value})
    checkpoints.close()
    return checkpoints


def restored(checkpoints: fnn.Checkpoints, **options: Any) -> tuple[int, float]:
    found = checkpoints.restore(tree(0), **options)
    assert found is not None
    return found.step, float(found.tree["w"][0])


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


@pytest.mark.parametrize("background", [False, True])
def test_the_newest_and_the_best_stay(background: bool, tmp_path: Path) -> None:
    values = (5, 1, 4, 3, float("nan"), 2)
    checkpoints = fill(tmp_path, *values, keep=2, minimize="loss", background=background)
    assert checkpoints.steps() == [20, 50, 60]
    assert checkpoints.best_step() == 20
    assert restored(checkpoints) == (60, 2)
    assert restored(checkpoints, best=True) == (20, 1)
    assert fnn.Checkpoints(tmp_path, maximize="loss").best_step() == 60


def test_the_best_by_a_metric_that_is_maximized_has_its_largest_value(tmp_path: Path) -> None:
    """`best="validation/accuracy"` kept the checkpoint with the smallest accuracy: smaller was better by default."""
    with fnn.Checkpoints(tmp_path, keep=1, maximize="validation/accuracy") as checkpoints:
        for step, accuracy in enumerate([0.9, 0.2, 0.95, 0.5], 1):
            checkpoints.save(step, tree(accuracy), metrics={"validation/accuracy": accuracy})
    assert checkpoints.best_step() == 3
    assert restored(checkpoints, best=True) == (3, np.float32(0.95))
    assert repr(checkpoints) == f"Checkpoints({str(tmp_path)!r}, keep=1, maximize='validation/accuracy')"


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    checkpoints = fnn.Checkpoints(tmp_path / "none", minimize="loss")
    assert checkpoints.restore() is None
    assert (checkpoints.steps(), checkpoints.best_step()) == ([], None)
    assert not (tmp_path / "none").exists()


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    checkpoints = fill(tmp_path, 1, 2, 3)
    newest = files(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(fnn.CheckpointWarning, match=r"000003-step-30.*wrong.*an older checkpoint is taken"):
        assert restored(checkpoints) == (20, 2)
    checkpoints.keep = 1
    checkpoints.save(25, tree(2.5))
    checkpoints.close()
    assert restored(checkpoints) == (25, 2.5)


def test_when_all_are_damaged_that_is_an_error(tmp_path: Path) -> None:
    checkpoints = fill(tmp_path, 1, 2)
    for file in files(tmp_path):
        file.write_bytes(b"")
    with pytest.warns(fnn.CheckpointWarning), pytest.raises(fnn.CheckpointError, match="no checkpoint in it is whole"):
        checkpoints.restore()


def test_a_checkpoint_of_another_tree_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(fnn.MisfitError, match=r"w +float32\[4\] +float32\[3\]"):
        fill(tmp_path, 1, 2).restore({"w": jnp.zeros(4)})


def test_a_run_that_went_back_is_the_newest_whatever_its_step_and_the_clock(tmp_path: Path) -> None:
    checkpoints = fill(tmp_path, 1, 2, 3)
    checkpoints.save(15, tree(1.5))
    checkpoints.close()
    for age, file in enumerate(files(tmp_path)):
        os.utime(file, (1e9 - age, 1e9 - age))
    assert restored(fnn.Checkpoints(tmp_path)) == (15, 1.5)
    assert checkpoints.steps() == [20, 30, 15]


def test_two_writers_are_kept_apart(tmp_path: Path) -> None:
    first, second = fnn.Checkpoints(tmp_path), fnn.Checkpoints(tmp_path)
    first.save(1, tree(1))
    with pytest.raises(fnn.CheckpointError, match=f"process {os.getpid()} writes to it"):
        second.save(2, tree(2))
    assert restored(second) == (1, 1)
    first.close()
    second.save(2, tree(2))
    second.close()
    assert second.steps() == [1, 2]


def test_what_is_saved_in_the_background_may_be_donated_and_changed(tmp_path: Path) -> None:
    import numpy as np

    checkpoints = fnn.Checkpoints(tmp_path, background=True)
    double = jax.jit(lambda w: 2 * w, donate_argnums=0)
    w, host = jnp.ones(1_000_000), np.ones(1_000_000)
    for step in range(4):
        checkpoints.save(step, {"w": w, "host": host})
        w, host[:] = double(w), host * 2
    checkpoints.close()
    for file, wanted in zip(files(tmp_path), (2, 4, 8)):
        found = fnn.load(file, {"w": jax.ShapeDtypeStruct((1_000_000,), jnp.float32), "host": host})
        assert (found["w"] == wanted).all()
        assert (found["host"] == wanted).all()


def test_an_error_in_the_background_is_raised_by_the_next_call(tmp_path: Path, monkeypatch: Any) -> None:
    checkpoints = fill(tmp_path, 1, background=True)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0}))
        checkpoints.save(20, tree(2))
        with pytest.raises(fnn.CheckpointError, match="the disk has 0 B left"):
            checkpoints.wait()
    checkpoints.save(30, tree(3))
    checkpoints.close()
    assert checkpoints.steps() == [10, 30]


def test_a_save_in_the_background_that_finds_no_room_is_told_and_costs_nothing(tmp_path: Path) -> None:
    checkpoints = fill(tmp_path, 1, background=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        checkpoints.save(20, {"w": jnp.zeros(100_000)})
        with pytest.raises(fnn.CheckpointError, match="File too large; what was there before is untouched"):
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert restored(checkpoints) == (10, 1)
    checkpoints.save(30, tree(3))
    checkpoints.close()
    assert restored(checkpoints) == (30, 3)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", *(file.name for file in files(tmp_path))]


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        fnn.Checkpoints(tmp_path, keep=0)
    with pytest.raises(ValueError, match="'loss', which metrics lacks"):
        fnn.Checkpoints(tmp_path, minimize="loss").save(1, tree(1))
    (tmp_path / "file").write_text("")
    with pytest.raises(fnn.CheckpointError, match="it cannot be written to"):
        fnn.Checkpoints(tmp_path / "file").save(1, tree(1))


WRITER = """
import sys, jax.numpy as jnp, fnn
checkpoints = fnn.Checkpoints(sys.argv[1], keep=2)
print("ready", flush=True)
step = 0
while True:
    step += 1
    checkpoints.save(step, {"w": jnp.full(200_000, step)})
    print(step, flush=True)
"""


def test_a_writer_that_is_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    newest = 0
    for moment in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert [writer.stdout.readline() for _ in range(2)] == ["ready\n", "1\n"]
        time.sleep(0.0137 * moment)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        found = fnn.Checkpoints(tmp_path).restore()
        assert found is not None
        assert (found.tree["w"] == found.step).all()
        assert len(files(tmp_path)) in (1, 2, 3)
        newest = max(newest, found.step)
    assert newest > 1
    with fnn.Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"w": jnp.zeros(1)})
    assert len(files(tmp_path)) == 1
    assert not list(tmp_path.glob(".*fnn-tmp"))


def test_no_fault_costs_a_checkpoint_or_changes_one() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.faults", "--peers", "fnn", "--moments", "4"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("|") > 20


def test_a_damaged_best_one_is_replaced_by_the_newest(tmp_path: Path) -> None:
    checkpoints = fill(tmp_path, 1, 2, 3, minimize="loss")
    content = bytearray(files(tmp_path)[0].read_bytes())
    content[-1] ^= 1
    files(tmp_path)[0].write_bytes(content)
    with pytest.warns(fnn.CheckpointWarning):
        assert restored(checkpoints, best=True) == (30, 3)


def test_a_file_that_was_put_into_the_folder_is_passed_over(tmp_path: Path) -> None:
    checkpoints = fill(tmp_path, 1)
    fnn.save(tmp_path / "000009-step-9.safetensors", tree(9), note={"metrics": 5})
    with pytest.warns(fnn.CheckpointWarning, match=r"was not saved by fnn\.Checkpoints"):
        assert restored(checkpoints) == (10, 1)
