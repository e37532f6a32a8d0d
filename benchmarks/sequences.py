"""Time training steps of a small GPT and an LSTM, and greedy generation, in fnn and its peers, compiled and warm.

    python -m benchmarks sequences --rounds 5 --json sequences.json --plot sequences.png

Each process is measured as those of ``steps.py`` are.
"""

import statistics
import sys
from functools import partial

import numpy as np

from benchmarks import harness, report, steps
from benchmarks.harness import Arrays, Facts, Samples, Suite, Workload
from benchmarks.sequence_peers import GENERATING, PEERS, TRAINING, SequenceTask
from benchmarks.workloads import Product

_gpt2 = partial(SequenceTask, "gpt", mode="generate", vocabulary=512, positions=288, length=16, tokens=256)

TASKS = {
    "gpt-32": SequenceTask("gpt", 32),
    "lstm-32": SequenceTask("lstm", 32),
    "generate-1": _gpt2(batch=1),
    "generate-16": _gpt2(batch=16),
}


def describe(task: SequenceTask) -> str:
    """One sentence on what is timed."""
    network = {
        "gpt": f"a GPT of {task.blocks} blocks with {task.heads} heads",
        "lstm": "a language model of one LSTM",
    }[task.network]
    sizes = f"{network}, width {task.width}, vocabulary {task.vocabulary}"
    if task.mode == "generate":
        return f"{sizes}: {task.tokens} ids after a prompt of {task.length}, greedy, batch {task.batch}."
    return f"{sizes}: a training step with Adam on {task.length} ids, batch {task.batch}."


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
    """Medians, the range over the rounds, the ratio to fnn; then MFU and the first loss, or tokens per second."""
    task = TASKS[name]
    generates = task.mode == "generate"
    times = {PEERS[peer].title: [sample["seconds"] for sample in taken] for peer, taken in samples.items()}
    rows = []
    for (title, values), ratio, taken in zip(times.items(), report.ratios(times).values(), samples.values()):
        middle, result = statistics.median(values), taken[0]["result"]
        if generates:
            last = [report.show_number(result / middle)]
        else:
            last = [f"{operations(task) / middle / (facts[steps.RATE] * 1e9):.1%}", f"{result:.2f}"]
        rows.append([title, report.show_seconds(middle), report.show_range(values), f"{ratio:.2f}", *last])
    per, more = ("a call", ["tokens/s"]) if generates else ("a step", ["MFU", "first loss"])
    notes = [_others(samples, "parameters", parameters(task), "parameters")]
    if generates:
        notes.append(_others(samples, "result", task.batch * task.tokens, "tokens"))
    return "\n\n".join([report.markdown(["", per, "range", "ratio", *more], rows), *filter(None, notes)])


def _others(samples: Samples, key: str, wanted: int, what: str) -> str:
    """Name the peers that have or make another number of something."""
    others = {PEERS[peer].title: taken[0][key] for peer, taken in samples.items() if taken[0][key] != wanted}
    shown = ", ".join(f"{title} ({number:.0f})" for title, number in others.items())
    return f"Not {wanted} {what}: {shown}." if others else ""


def _workload(task: SequenceTask) -> Workload:
    peers = GENERATING if task.mode == "generate" else TRAINING
    return Workload(describe(task), lambda: (arrays(task), "random ids"), task, peers)


SUITE = Suite(
    about=__doc__ or "",
    module="benchmarks.sequences",
    workloads={name: _workload(task) for name, task in TASKS.items()},
    peers=PEERS,
    measure=steps.measure,
    table=table,
    time="seconds",
    options=steps.SUITE.options,
    facts=steps.SUITE.facts,
)

main = partial(harness.run, SUITE)

if __name__ == "__main__":
    sys.exit(main())
