"""Time saving and loading, beside a plain write and a plain read, and beside Orbax for a small state.

python -m benchmarks checkpoints --folder . --json checkpoints.json
"""

import argparse
import gc
import os
import resource
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from benchmarks import machine, report

SMALL_LEAVES, SMALL_BYTES = 100, 3_000_000
LARGE_LEAVES = 16

Times = dict[str, list[float]]


def tree(leaves: int, size: int) -> dict[str, jax.Array]:
    """So many float32 arrays of so many bytes in all."""
    rows = size // leaves // 4
    make = lambda seed: np.random.default_rng(seed).standard_normal(rows, dtype=np.float32)
    return {f"layer_{number}": jnp.asarray(make(number)) for number in range(leaves)}


def write_plainly(file: Path, arrays: Mapping[str, Any]) -> None:
    """What a checkpoint cannot do without: new bytes on the disk, then the old ones replaced."""
    new = file.with_suffix(".new")
    with open(new, "wb") as out:
        for array in arrays.values():
            out.write(np.asarray(array).data)
        out.flush()
        os.fsync(out.fileno())
    os.replace(new, file)


def read_plainly(file: Path, arrays: Mapping[str, Any]) -> list[np.ndarray]:
    """Every byte read and kept, and its checksum made."""
    found = []
    with open(file, "rb") as source:
        for array in arrays.values():
            found.append(np.empty(array.nbytes, np.uint8))
            source.readinto(found[-1])
            zlib.crc32(found[-1])
    return found


def orbax(folder: Path) -> tuple[Callable[[Any], None], Callable[[Any], Any]] | None:
    """Saving and loading by Orbax with its defaults, waited for; None where it is not installed."""
    try:
        import orbax.checkpoint as ocp
    except ImportError:
        print("orbax-checkpoint is not installed: left out", file=sys.stderr)
        return None
    checkpointer = ocp.StandardCheckpointer()

    def save(arrays: Any) -> None:
        checkpointer.save(folder / "orbax", arrays, force=True)
        checkpointer.wait_until_finished()

    return save, lambda arrays: checkpointer.restore(folder / "orbax", arrays)


def timed(functions: Mapping[str, Callable[[], Any]], rounds: int) -> Times:
    """Each in turn, for so many rounds after one that does not count."""
    found: Times = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            gc.collect()
            began = time.perf_counter()
            function()
            if number:
                found[name].append(time.perf_counter() - began)
    return found


def measure(folder: Path, megabytes: int, rounds: int) -> dict[str, Any]:
    """All times, the size of the file, and by how much saving and loading grew the process."""
    large, small = tree(LARGE_LEAVES, megabytes * 2**20), tree(SMALL_LEAVES, SMALL_BYTES)
    jax.block_until_ready((large, small))
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    before = peak()
    fnn.save(folder / "large", large)
    saving = peak() - before
    loaded = fnn.load(folder / "large", jax.eval_shape(lambda: large))
    loading = peak() - before
    del loaded
    large_times = timed(
        {
            "plain write": lambda: write_plainly(folder / "plain", large),
            "save": lambda: fnn.save(folder / "large", large),
            "plain read": lambda: read_plainly(folder / "plain", large),
            "load": lambda: fnn.load(folder / "large", large),
        },
        rounds,
    )
    theirs = orbax(folder)
    small_functions: dict[str, Callable[[], Any]] = {
        "save": lambda: fnn.save(folder / "small", small),
        "load": lambda: fnn.load(folder / "small", small),
    }
    if theirs is not None:
        small_functions |= {"Orbax save": lambda: theirs[0](small), "Orbax load": lambda: theirs[1](small)}
    return {
        "large": large_times, "small": timed(small_functions, 3 * rounds), "bytes": megabytes * 2**20,
        "file": (folder / "large").stat().st_size, "growth in saving": saving, "growth in loading": loading,
    }  # fmt: skip


def table(times: Times, rivals: Mapping[str, str]) -> str:
    """Medians, ranges, and how many times as fast ours is as its rival."""
    rows = []
    for name, values in times.items():
        rival = rivals.get(name)
        ratio = f"{statistics.median(times[rival]) / statistics.median(values):.2f}" if rival in times else ""
        rows.append([name, report.show_seconds(statistics.median(values)), report.show_range(values), ratio])
    return report.markdown(["", "median", "range", "times as fast"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks checkpoints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure (default: here)")
    parser.add_argument("--megabytes", type=int, default=1024, help="of the large tree (default: 1024)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the times there")
    options = parser.parse_args(arguments)
    facts = machine.facts(["jax", "orbax-checkpoint"])
    report.print_facts(facts)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(Path(folder).resolve(), options.megabytes, options.rounds)
    print(
        f"{options.megabytes} MiB in {LARGE_LEAVES} arrays; the file has {found['file'] - found['bytes']} bytes more."
    )
    print(table(found["large"], {"save": "plain write", "load": "plain read"}))
    growth = [report.show_megabytes(found[f"growth in {what}"]) for what in ("saving", "loading")]
    print(f"Saving grew the process by {growth[0]}, loading by {growth[1]}.\n")
    print(f"{SMALL_BYTES // 10**6} MB in {SMALL_LEAVES} arrays:")
    print(table(found["small"], {"save": "Orbax save", "load": "Orbax load"}))
    report.write_json(options.json, {"facts": facts, **found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
