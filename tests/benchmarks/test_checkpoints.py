"""The benchmark of files measures what it says."""

from pathlib import Path

import jax
import numpy as np

from benchmarks import checkpoints


def test_the_plain_write_and_read_move_every_byte(tmp_path: Path) -> None:
    arrays = checkpoints.tree(3, 1200)
    checkpoints.write_plainly(tmp_path / "plain", arrays)
    found = checkpoints.read_plainly(tmp_path / "plain", arrays)
    for array, content in zip(arrays.values(), found):
        np.testing.assert_array_equal(content.view(np.float32), array)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) == 1200


def test_the_command_prints_both_tables(tmp_path: Path) -> None:
    assert checkpoints.main(["--folder", str(tmp_path), "--megabytes", "1", "--rounds", "1"]) == 0
    assert not list(tmp_path.iterdir())


def test_the_ratio_is_the_rivals_time_over_ours() -> None:
    found = checkpoints.table({"rival": [2.0], "ours": [1.0, 1.0, 4.0]}, {"ours": "rival"})
    assert found.splitlines()[-1] == "| ours | 1 s | 1 to 4 s | 2.00 |"
