"""Time single training steps and forward passes of fnn and its peers, compiled and warm.

    python -m benchmarks --rounds 5 --json steps.json --plot steps.png

Beside the times of the workloads come those of starting up and compiling, and the memory that training takes.
"""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks import harness, machine, report, workloads
from benchmarks.harness import Arrays, Peer, Sample, Samples, Suite, Workload
from benchmarks.peers import PEERS, SCANNING, Program

RATE = "matrix product, GFLOP/s"
PER = {"step": "a step", "scan": "a step", "vmap": "a network", "infer": "a pass"}


def measure(workload: Workload, peer: Peer, arrays: Arrays, request: Mapping[str, Any]) -> Sample:
    """In the process of a peer: import, build, compile, warm up, and time calls."""
    task = replace(workload.settings, dtype=request["dtype"])
    began = time.perf_counter()
    for module in peer.imports:
        importlib.import_module(module)
    imported = time.perf_counter()
    program = peer.prepare(task, arrays)
    built, before = time.perf_counter(), machine.peak_bytes()
    result = program.call()
    first = time.perf_counter()
    started = time.time() - request["started"]
    calls = machine.times(program.call, request["seconds"])
    sample = {
        "seconds": statistics.median(calls) / task.repeats,
        "calls": calls,
        "import": imported - began,
        "build": built - imported,
        "first": first - built,
        "started": started,
        "peak_bytes": machine.peak_bytes() - before,
        "parameters": program.parameters,
        "result": float(result.mean()) if hasattr(result, "mean") else float(result),
    }
    return sample | (analyse(program) if task.mode == "step" and program.lower else {})


def analyse(program: Program) -> Sample:
    """How long tracing and compiling take by themselves, and what XLA sets aside for temporary values."""
    import jax

    jax.clear_caches()
    began = time.perf_counter()
    lowered = program.lower()
    traced = time.perf_counter()
    compiled = lowered.compile()
    seconds = {"lower": traced - began, "compile": time.perf_counter() - traced}
    analysis = compiled.memory_analysis()
    return seconds | ({"temporary_bytes": analysis.temp_size_in_bytes} if analysis else {})


def table(name: str, samples: Samples, facts: harness.Facts) -> str:
    """Medians, the range over the rounds, the ratio to fnn, and how much of the matrix-product rate was reached."""
    task = workloads.TASKS[name]
    times = {PEERS[peer].title: [sample["seconds"] for sample in taken] for peer, taken in samples.items()}
    rows = []
    for (title, values), ratio in zip(times.items(), report.ratios(times).values()):
        middle = statistics.median(values)
        share = workloads.operations(task) / middle / (facts[RATE] * 1e9)
        rows.append([title, report.show_seconds(middle), report.show_range(values), f"{ratio:.2f}", f"{share:.1%}"])
    shown = report.markdown(["", PER[task.mode], "range", "ratio", "MFU"], rows)
    wanted = workloads.NETWORKS[task.network].parameters
    others = [PEERS[peer].title for peer, taken in samples.items() if taken[0]["parameters"] != wanted]
    return f"{shown}\n\nNot {wanted} parameters: {', '.join(others)}." if others else shown


def closing(found: Mapping[str, Samples]) -> str:
    """The tables of what is not the time of a step: starting up, compiling, memory."""
    parts = []
    seconds = {"import": "import", "first": "first call", "started": "start to first step"}
    seconds |= {"lower": "trace and lower", "compile": "compile"}
    if samples := found.get("cnn-32"):
        shown = _columns(samples, seconds, report.show_seconds)
        parts.append(f"**Starting up and compiling**, cnn-32, medians.\n\n{shown}")
    memory = {"peak_bytes": "growth of the process", "temporary_bytes": "temporary values"}
    for name in ("cnn-128", "resnet20-128"):
        if samples := found.get(name):
            shown = _columns(samples, memory, report.show_megabytes)
            parts.append(f"**Memory**, {name}, medians.\n\n{shown}")
    return "\n\n".join(parts)


def _columns(samples: Samples, columns: Mapping[str, str], show: Any) -> str:
    def cell(taken: Sequence[Sample], key: str) -> str:
        return show(statistics.median(sample[key] for sample in taken)) if key in taken[0] else ""

    rows = [[PEERS[peer].title, *(cell(taken, key) for key in columns)] for peer, taken in samples.items()]
    return report.markdown(["", *columns.values()], rows)


def _facts(options: argparse.Namespace) -> dict[str, Any]:
    found = machine.products(options.dtype)
    return {"device": found["device"], "dtype": options.dtype, RATE: found["rate"] / 1e9}


def _workload(task: workloads.Task) -> Workload:
    return Workload(
        workloads.describe(task),
        partial(_data, task),
        task,
        peers=SCANNING if task.mode == "scan" else None,
    )


def _data(task: workloads.Task) -> tuple[Arrays, str]:
    return workloads.arrays(task), "random images and labels"


SUITE = Suite(
    about=__doc__ or "",
    module="benchmarks.steps",
    workloads={name: _workload(task) for name, task in workloads.TASKS.items()},
    peers=PEERS,
    measure=measure,
    table=table,
    time="seconds",
    options={
        "seconds": {"type": float, "default": 2.0, "help": "how long each process repeats the call (default: 2)"},
        "dtype": {"choices": ["float32", "bfloat16"], "default": "float32", "help": "what to compute in"},
    },
    facts=_facts,
    closing=closing,
)

main = partial(harness.run, SUITE)

if __name__ == "__main__":
    sys.exit(main())
