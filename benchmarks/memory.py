"""Compare what XLA sets aside for temporary values in a training step of fnn, and of the same step in plain `jax.lax`.

python -m benchmarks memory --json memory.json
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import machine, report, workloads
from benchmarks.peers import PEERS

STEPS = ("cnn-32", "cnn-128", "resnet20-128")
SIDES = ("fnn", "plain-jax")


def temporary_bytes(peer: str, task: workloads.Task) -> int:
    """Compile the step, run nothing, and read how much it needs."""
    program = PEERS[peer].prepare(task, workloads.arrays(task))
    return program.lower().compile().memory_analysis().temp_size_in_bytes


def table(found: Mapping[str, Mapping[str, int]]) -> str:
    """Megabytes of both, and the ratio."""
    rows = [
        [name, *(report.show_megabytes(sizes[side]) for side in SIDES), f"{sizes[SIDES[1]] / sizes[SIDES[0]]:.2f}"]
        for name, sizes in found.items()
    ]
    return report.markdown(["", *(PEERS[side].title for side in SIDES), "ratio"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=STEPS, default=STEPS, metavar="WORKLOAD", help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the bytes there")
    options = parser.parse_args(arguments)
    facts = machine.facts(package for side in SIDES for package in PEERS[side].packages)
    report.print_facts(facts)
    found = {name: {side: temporary_bytes(side, workloads.TASKS[name]) for side in SIDES} for name in options.workloads}
    print(table(found))
    report.write_json(options.json, {"facts": facts, "temporary_bytes": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
