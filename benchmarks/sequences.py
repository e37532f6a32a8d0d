"""Time training steps of GPTs and an LSTM, and greedy generation, in fnn and its peers, compiled and warm.

    python -m benchmarks sequences --rounds 5 --json sequences.json --plot sequences.png

The workload of the size of GPT-2 is for a GPU, and elsewhere measured only when it is asked for. Each process is
measured as those of ``steps.py`` are.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks import harness, machine, report, steps
from benchmarks.harness import Arrays, Facts, Peer, Sample, Samples, Suite, Workload
from benchmarks.sequence_peers import COMPILED, GENERATING, PEERS, TRAINING, SequenceTask
from benchmarks.workloads import Product

HALF_RATE = "matrix product in bfloat16, GFLOP/s"

_gpt2 = partial(SequenceTask, "gpt", mode="generate", vocabulary=512, positions=288, length=16, tokens=256)

TASKS = {
    "gpt-32": SequenceTask("gpt", 32),
    "lstm-32": SequenceTask("lstm", 32),
    "generate-1": _gpt2(batch=1),
    "generate-16": _gpt2(batch=16),
    "gpt2-16": SequenceTask(
        "gpt", 16, dtype="bfloat16", vocabulary=50304, width=768, blocks=12, heads=12, positions=1024, length=1024,
        optimizer="adamw",
    ),
}  # fmt: skip


def describe(task: SequenceTask) -> str:
    """One sentence on what is timed."""
    network = {
        "gpt": f"a GPT of {task.blocks} blocks with {task.heads} heads",
        "lstm": "a language model of one LSTM",
    }[task.network]
    sizes = f"{network}, width {task.width}, vocabulary {task.vocabulary}"
    if task.mode == "generate":
        return f"{sizes}: {task.tokens} ids after a prompt of {task.length}, greedy, batch {task.batch}."
    optimizer = {"adam": "Adam", "adamw": "AdamW"}[task.optimizer]
    half = ", in bfloat16 with float32 parameters" if task.dtype == "bfloat16" else ""
    return f"{sizes}: a training step with {optimizer} on {task.length} ids, batch {task.batch}{half}."


def arrays(task: SequenceTask) -> Arrays:
    """Random ids, and for training the id that follows each."""
    random = np.random.default_rng(0)
    ids = random.integers(0, task.vocabulary, (task.batch, task.length + 1), dtype=np.int32)
    return {"x": ids[:, :-1]} if task.mode == "generate" else {"x": ids[:, :-1], "y": ids[:, 1:]}


def products(task: SequenceTask) -> list[Product]:
    """The matrix products of the forward pass of one sequence; attention multiplies all pairs, hidden ones too."""
    length, width = task.length, task.width
    dense = lambda channels, features: Product(length, 1, channels, features)
    output = dense(width, task.vocabulary)
    if task.network == "lstm":
        return [dense(width, 4 * width), dense(width, 4 * width), output]
    block = [dense(width, width)] * 4 + [dense(width, length), dense(length, width)]
    return [*block, dense(width, 4 * width), dense(4 * width, width)] * task.blocks + [output]


def operations(task: SequenceTask) -> int:
    """Floating point operations of the products in a training step: three for each of the forward pass."""
    return 2 * 3 * sum(product.macs for product in products(task)) * task.batch


def parameters(task: SequenceTask) -> int:
    """Trainable numbers; an LSTM has one bias for each gate."""
    width, table = task.width, task.vocabulary * task.width
    if task.network == "lstm":
        return table + (8 * width**2 + 4 * width) + (table + task.vocabulary)
    block = (4 * width**2 + 4 * width) + (8 * width**2 + 5 * width) + 4 * width
    return table + task.positions * width + task.blocks * block + 2 * width


def table(name: str, samples: Samples, facts: Facts) -> str:
    """Medians, the range over the rounds, the ratio to fnn, tokens per second; of trainings MFU and the first loss."""
    task = TASKS[name]
    generates, rate = task.mode == "generate", HALF_RATE if task.dtype == "bfloat16" else steps.RATE
    times = {PEERS[peer].title: [sample["seconds"] for sample in taken] for peer, taken in samples.items()}
    rows = []
    for (title, values), ratio, taken in zip(times.items(), report.ratios(times).values(), samples.values()):
        middle, result = statistics.median(values), taken[0]["result"]
        tokens = report.show_number((result if generates else task.batch * task.length) / middle)
        row = [title, report.show_seconds(middle), report.show_range(values), f"{ratio:.2f}", tokens]
        if not generates:
            row += [f"{operations(task) / middle / (facts[rate] * 1e9):.1%}", f"{result:.2f}"]
        rows.append(row)
    per, more = ("a call", []) if generates else ("a step", ["MFU", "first loss"])
    notes = [_others(samples, "parameters", parameters(task), "parameters")]
    if generates:
        notes.append(_others(samples, "result", task.batch * task.tokens, "tokens"))
    return "\n\n".join([report.markdown(["", per, "range", "ratio", "tokens/s", *more], rows), *filter(None, notes)])


def _others(samples: Samples, key: str, wanted: int, what: str) -> str:
    """Name the peers that have or make another number of something."""
    others = {PEERS[peer].title: taken[0][key] for peer, taken in samples.items() if taken[0][key] != wanted}
    shown = ", ".join(f"{title} ({number:.0f})" for title, number in others.items())
    return f"Not {wanted} {what}: {shown}." if others else ""


def measure(workload: Workload, peer: Peer, arrays: Arrays, request: Mapping[str, Any]) -> Sample:
    """As in ``steps.py``; what is a workload in bfloat16 stays one, whatever ``--dtype`` says."""
    half = workload.settings.dtype == "bfloat16"
    return steps.measure(workload, peer, arrays, {**request, "dtype": "bfloat16"} if half else request)


def _facts(options: argparse.Namespace) -> Facts:
    found = steps.SUITE.facts(options)
    if any(TASKS[name].dtype == "bfloat16" for name in options.workloads):
        return {**found, HALF_RATE: machine.products("bfloat16")["rate"] / 1e9}
    return found


def _workload(task: SequenceTask) -> Workload:
    half = task.dtype == "bfloat16"
    peers = GENERATING if task.mode == "generate" else COMPILED if half else TRAINING
    backend = "gpu" if half else None
    return Workload(describe(task), lambda: (arrays(task), "random ids"), task, peers, backend)


SUITE = Suite(
    about=__doc__ or "",
    module="benchmarks.sequences",
    workloads={name: _workload(task) for name, task in TASKS.items()},
    peers=PEERS,
    measure=measure,
    table=table,
    time="seconds",
    options=steps.SUITE.options,
    facts=_facts,
)

main = partial(harness.run, SUITE)

if __name__ == "__main__":
    sys.exit(main())
