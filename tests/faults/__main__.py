"""The command line: ``python -m tests.faults [--moments N] [--peers fnn,orbax,...] [--seed N]``.

The table goes to stdout, and what is done to stderr. It ends with status 1 when a fault made fnn lose something, bring
back what was not saved, crash or hang.
"""

import argparse
import os
import sys
import time
from collections import Counter
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from tests.faults.faults import FAULTS, Setting
from tests.faults.keepers import KEEPERS
from tests.faults.trial import CONTEXT, Outcome


def main(arguments: list[str] | None = None) -> int:
    """Do every fault to every library, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Checkpoints under faults.")
    parser.add_argument("--moments", type=int, default=10, help="how often a process is killed")
    parser.add_argument("--peers", default=",".join(KEEPERS), help="libraries, by default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments, places and bytes")
    options = parser.parse_args(arguments)
    names = options.peers.split(",")
    if unknown := set(names) - set(KEEPERS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(KEEPERS)}")
    titles = {name: title for name in names if (title := title_of(name))}
    os.environ.update(JAX_PLATFORMS="cpu", KERAS_BACKEND="jax")
    CONTEXT.set_forkserver_preload([KEEPERS[name].package for name in titles])

    rows, bad = [], False
    for number, (fault, do) in enumerate(FAULTS.items()):
        cells = []
        for name in titles:
            begin, counts = time.perf_counter(), Counter[Outcome]()
            for outcome, what in do(Setting(name, options.moments, np.random.default_rng([options.seed, number]))):
                counts[outcome] += 1
                if outcome.bad:
                    tell(f"  {name}: {outcome.text}: {what}")
            cells.append(cell_of(counts))
            bad |= name == "fnn" and any(outcome.bad for outcome in counts)
            tell(f"{fault}, {name}: {cells[-1]} ({time.perf_counter() - begin:.1f} s)")
        rows.append([fault, *cells])
    for row in [["", *titles.values()], ["---"] * (len(titles) + 1), *rows]:
        print(f"| {' | '.join(row)} |")
    return int(bad)


def title_of(name: str) -> str | None:
    """The library and its version; None where it is not installed."""
    distribution = KEEPERS[name].distribution
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        tell(f"{name} is left out: {distribution} is not installed")
        return None


def cell_of(counts: Counter[Outcome]) -> str:
    """What happened how often, the worst first."""
    if not counts:  # only root may mount a file system
        return "not permitted here"
    return ", ".join(f"{outcome.text} {counts[outcome]}" for outcome in reversed(Outcome) if outcome in counts)


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
