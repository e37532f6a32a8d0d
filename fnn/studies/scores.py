"""What runs and trials are worth, and their order."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fnn.studies.runs import Run


def value_of(run: Run, monitor: str, at: str) -> float:
    """What a run is worth: NaN if it diverged."""
    if run.status == "diverged":
        return float("nan")
    return run.best_value if at == "best" else run.last(monitor)


def value_at(run: Run, step: int, monitor: str, maximize: bool, at: str) -> float:
    """What a run was worth after so many steps, also where it has gone on since."""
    if run.status == "diverged" and run.step <= step:
        return float("nan")
    values = [value for done, value in zip(run.steps, run.measured.get(monitor, [])) if done <= step]
    finite = [value for value in values if np.isfinite(value)]
    if at == "last":
        return float(values[-1]) if values else float("nan")
    return float((max if maximize else min)(finite, default=float("nan")))


def scores_of(runs: Sequence[Run], trials: int, value: Callable[[Run], float]) -> np.ndarray:
    """Mean values of each trial's runs."""
    totals, counts = np.zeros(trials), np.zeros(trials)
    for run in runs:
        totals[run.id.trial] += value(run)
        counts[run.id.trial] += 1
    return totals / np.where(counts == 0, np.nan, counts)


def ranked(runs: Iterable[Run], scores: np.ndarray, maximize: bool) -> list[int]:
    """Numbers of the trials, the best first: those that halving evicted after the others, the later before the earlier.

    Equal ones come by number, those without a score last.
    """
    evicted: dict[int, int] = {}
    for run in runs:
        if run.status == "evicted":
            evicted[run.id.trial] = max(evicted.get(run.id.trial, 0), run.step)
    sign = -1 if maximize else 1

    def place(trial: int) -> tuple[bool, bool, int, float]:
        known = bool(np.isfinite(scores[trial]))
        return not known, trial in evicted, -evicted.get(trial, 0), sign * scores[trial] if known else 0.0

    return sorted(range(len(scores)), key=place)
