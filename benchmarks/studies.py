"""Time studies: many small trainings with a learning rate for each, in fnn and in what people do without it.

    python -m benchmarks studies --rounds 3 --json studies.json --plot studies.png

Two times are taken in each process, after the libraries are imported:

* cold: the first study, from NumPy arrays to the accuracies of all trials, with tracing and compilation.
* warm: a second study of the same kind, with another seed, in the same process; the time of a trial.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks import harness, report
from benchmarks.harness import Arrays, Facts, Peer, Sample, Samples, Suite, Workload
from benchmarks.study_peers import FEW, PEERS, StudyTask

COMPILING = "/jax/core/compile/"  # how the names of JAX's own measurements of tracing, lowering and compiling begin

TASKS = {
    "mlp-64": StudyTask("mlp", 4, hidden=32, batch=64, steps=300, trials=64, lowest=1e-4, highest=1e-1),
    "cnn-16": StudyTask("cnn", 10, hidden=8, batch=32, steps=100, trials=16, lowest=1e-4, highest=1e-1),
    "digits-100": StudyTask(
        "mlp", 10, hidden=64, batch=64, steps=300, trials=10, lowest=3e-4, highest=3e-2, folds=10
    ),
}  # fmt: skip

MEASURED_ON = {
    "mlp-64": (
        "fnn", "flax-loop", "flax-rebuilt", "pytorch", "pytorch-stacked", "keras-jax", "keras-tensorflow",
        "scikit-learn",
    ),
    "cnn-16": ("fnn", "fnn-vmap", "fnn-loop", "flax-loop", "pytorch"),
    "digits-100": ("fnn", "scikit-learn"),
}  # fmt: skip


def points() -> tuple[Arrays, str]:
    """Random points, and the class that a random network gives each."""
    random = np.random.default_rng(0)
    x = random.standard_normal((2000, 16), np.float32)
    hidden = np.tanh(x @ random.standard_normal((16, 8), np.float32))
    y = (hidden @ random.standard_normal((8, 4), np.float32)).argmax(1).astype(np.int32)
    return _parts(x, y, 1600), "1600 random points with 16 columns, classes of a random network; 400 to validate"


def images() -> tuple[Arrays, str]:
    """Squares of random grey, an arrangement for each class, with noise."""
    random = np.random.default_rng(0)
    y = random.integers(0, 10, 2000, dtype=np.int32)
    squares = random.standard_normal((10, 4, 4, 1), np.float32).repeat(7, axis=1).repeat(7, axis=2)
    x = squares[y] + 2 * random.standard_normal((2000, 28, 28, 1), np.float32)
    return _parts(x, y, 1600), "1600 images, each the one of its class with noise; 400 to validate"


def _parts(x: np.ndarray, y: np.ndarray, rows: int) -> Arrays:
    """So many rows to train on, the others to validate on."""
    return {"x": x[:rows], "y": y[:rows], "x_validation": x[rows:], "y_validation": y[rows:]}


def digits() -> tuple[Arrays, str]:
    """The digits of scikit-learn."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return {"x": x.astype(np.float32) / 16, "y": y.astype(np.int32)}, "the 1797 digits of scikit-learn"


DATA = {"mlp-64": points, "cnn-16": images, "digits-100": digits}


def describe(task: StudyTask) -> str:
    """One sentence on what is done."""
    network = {
        "mlp": f"MLPs with {task.hidden} hidden units",
        "cnn": f"CNNs (conv {task.hidden}, pool, conv {2 * task.hidden}, pool, dense {task.classes})",
    }[task.network]
    folds = f" and {task.folds} folds" if task.folds > 1 else ""
    steps = f"{task.steps} steps of Adam, batch {task.batch}"
    return f"{network} for {task.trials} learning rates{folds}, {steps}, measured once at the end."


def measure(workload: Workload, peer: Peer, arrays: Arrays, request: Mapping[str, Any]) -> Sample:
    """In the process of a peer: a study, and another one; where it did few trials, its time for all is computed."""
    task: StudyTask = replace(workload.settings, trials=request["trials"] or workload.settings.trials)
    program = peer.prepare(task, arrays)
    compiling = compiling_clock() if "jax" in peer.packages else lambda: 0.0
    rates = task.rates(FEW.get(request["peer"]))
    trainings, left = len(rates) * task.folds, (task.trials - len(rates)) * task.folds
    seconds, compiled, outcome = [], [], None
    for seed in range(2):
        before, began = compiling(), time.perf_counter()
        outcome = program.study(rates, seed)
        seconds.append(time.perf_counter() - began)
        compiled.append(compiling() - before)
    assert outcome is not None
    return {
        "cold": seconds[0] + left * seconds[1] / trainings,
        "warm": seconds[1] / trainings,
        "cold compiling": compiled[0] + left * compiled[1] / trainings,
        "warm compiling": compiled[1] / trainings,
        "calls": seconds,
        "trainings": trainings,
        "all trainings": trainings + left,
        "accuracies": list(outcome.accuracies),
        "steps": outcome.steps,
        "remarks": outcome.remarks,
        "parameters": program.parameters(),
    }


def compiling_clock() -> Callable[[], float]:
    """How long JAX has traced, lowered and compiled since; what overlaps, in threads or within each other, is once."""
    import jax

    spans: list[tuple[float, float]] = []

    def note(event: str, seconds: float, **_: Any) -> None:
        if event.startswith(COMPILING):
            now = time.perf_counter()
            spans.append((now - seconds, now))

    jax.monitoring.register_event_duration_secs_listener(note)
    return lambda: covered(spans)


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, -np.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def table(name: str, samples: Samples, facts: Facts) -> str:
    """Medians, the range over the rounds and the ratio to fnn of both times, their compiling, and the accuracies."""
    cells = {PEERS[peer].title: [PEERS[peer].title] for peer in samples}
    for kind in ("cold", "warm"):
        times = {PEERS[peer].title: [sample[kind] for sample in taken] for peer, taken in samples.items()}
        compiled = (statistics.median(sample[f"{kind} compiling"] for sample in taken) for taken in samples.values())
        for (title, ratio), seconds in zip(report.ratios(times).items(), compiled):
            middle = report.show_seconds(statistics.median(times[title]))
            inside = report.show_seconds(seconds) if seconds else ""
            cells[title] += [middle, report.show_range(times[title]), f"{ratio:.2f}", inside]
    for peer, taken in samples.items():
        accuracies = [sample["accuracies"] for sample in taken]
        shown = (statistics.median(map(measure, accuracies)) for measure in (statistics.mean, max))
        cells[PEERS[peer].title] += [f"{accuracy:.1%}" for accuracy in shown]
    times = ["cold", "range", "ratio", "compiling", "warm, a training", "range", "ratio", "compiling"]
    columns = ["", *times, "mean accuracy", "best"]
    return "\n\n".join([report.markdown(columns, list(cells.values())), *_notes(TASKS[name], samples)])


def _notes(task: StudyTask, samples: Samples) -> list[str]:
    """Who did fewer trainings or other steps, who has another network, and what fnn chose."""
    last = {PEERS[peer].title: taken[-1] for peer, taken in samples.items()}
    wanted = next(iter(last.values()))["parameters"]
    others = lambda key, usual: {t: sample[key] for t, sample in last.items() if sample[key] != usual(sample)}
    facts = [
        ("Computed for all from fewer trainings", others("trainings", lambda sample: sample["all trainings"])),
        (f"Not {task.steps} steps", others("steps", lambda _: task.steps)),
        (f"Not {wanted} parameters", others("parameters", lambda _: wanted)),
    ]
    listed = lambda found: ", ".join(f"{title} ({number})" for title, number in found.items())
    named = [f"{what}: {listed(found)}." for what, found in facts if found]
    return named + [f"{title}: {sample['remarks']}." for title, sample in last.items() if sample["remarks"]]


SUITE = Suite(
    about=__doc__ or "",
    module="benchmarks.studies",
    workloads={name: Workload(describe(task), DATA[name], task, MEASURED_ON[name]) for name, task in TASKS.items()},
    peers=PEERS,
    measure=measure,
    table=table,
    time="cold",
    options={"trials": {"type": int, "metavar": "NUMBER", "help": "learning rates of each study, for a quick look"}},
)

main = partial(harness.run, SUITE)

if __name__ == "__main__":
    sys.exit(main())
