"""A benchmark of made-up peers, which the tests of the harness start as a real one is."""

import sys
import time
from functools import partial
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import Peer, Suite, Workload


def prepare(settings: Any, arrays: Any) -> float:
    return settings * float(arrays["x"].sum())


def broken(settings: Any, arrays: Any) -> float:
    raise ArithmeticError("this peer cannot count")


def slow(settings: Any, arrays: Any) -> float:
    time.sleep(60)  # the test stops it
    return 0.0


def measure(workload: Workload, peer: Peer, arrays: Any, request: Any) -> dict[str, Any]:
    return {"seconds": peer.prepare(workload.settings, arrays), "factor": request["factor"]}


def table(name: str, samples: Any, facts: Any) -> str:
    return "\n".join(
        f"{name}: {peer} took {[sample['seconds'] for sample in taken]}" for peer, taken in samples.items()
    )


SUITE = Suite(
    about="A tiny benchmark.",
    module="tests.benchmarks.tiny",
    workloads={
        "double": Workload("twice the sum.", lambda: ({"x": np.ones(3)}, "ones"), 2.0),
        "one": Workload("the sum.", lambda: ({"x": np.ones(3)}, "ones"), 1.0, peers=("first",)),
    },
    peers={
        "first": Peer("First", (), ("math",), prepare, family="kind"),
        "second": Peer("Second", (), ("math",), prepare, family="kind"),
        "broken": Peer("Broken", (), ("math",), broken),
        "slow": Peer("Slow", (), ("math",), slow),
        "absent": Peer("Absent", ("no-such-distribution",), (), prepare),
    },
    measure=measure,
    table=table,
    time="seconds",
    options={"factor": {"type": int, "default": 7}},
    closing=lambda found: f"closing over {', '.join(found)}",
)

main = partial(harness.run, SUITE)

if __name__ == "__main__":
    sys.exit(main())
