"""The machine that measures: what it is, how fast it multiplies matrices, how much memory a process took."""

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent  # children start here, so that they measure the fnn beside these benchmarks
HOLDS = hasattr(os, "sched_setaffinity")  # Linux can hold a process to some cores


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if HOLDS else os.cpu_count() or 1


def hold(count: int) -> None:
    """Hold this process, and the children that it will start, to the first ``count`` of its cores."""
    if HOLDS:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def version(package: str) -> str | None:
    """The version of an installed distribution, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def facts(packages: Iterable[str]) -> dict[str, Any]:
    """What a reader must know beside the numbers."""
    held = f"held to {cores()} cores" if HOLDS else "not held to some cores"
    found = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in dict.fromkeys(packages))]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "load at the start": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else "not known",
        "threads": f"every process {held}, as many threads as each library takes by itself",
        "versions": ", ".join(found),
    }


def peak_bytes() -> int:
    """The largest resident set of this process so far.

    On Linux `resource.getrusage` also counts what the parent held before it started this program, so that its own
    record is read where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def backend() -> str:
    """Where JAX computes here, such as ``"cpu"`` or ``"gpu"``, found by a process of its own."""
    return _child("-c", "import jax; print(jax.default_backend())")


def products(dtype: str) -> dict[str, Any]:
    """The rate of the machine's own matrix product and its device, found by a process of its own."""
    return json.loads(_child("-m", "benchmarks.machine", dtype))


def _child(*arguments: str) -> str:
    """The last line that a Python process writes."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def _products(dtype: str) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    size = 2048 if jax.default_backend() == "cpu" else 8192  # on a GPU a small one takes as long as its launch
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    multiply = jax.jit(jnp.matmul)
    seconds = min(times(lambda: multiply(a, a).block_until_ready(), seconds=3))
    return {"device": jax.devices()[0].device_kind, "rate": 2 * size**3 / seconds}


def times(call: Callable[[], Any], seconds: float, warm: int = 3, least: int = 5) -> list[float]:
    """Time single calls, for so many seconds and at least so many calls.

    Before that come calls to warm up, which end early when they take as long as the measurement should.
    """
    spent = 0.0
    while warm and spent <= seconds:
        spent += _timed(call)
        warm -= 1
    taken: list[float] = []
    while len(taken) < least or sum(taken) < seconds:
        taken.append(_timed(call))
    return taken


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(_products(sys.argv[1])))
