"""Studies made by hand, for pictures of them."""

from collections.abc import Callable
from typing import Any

import numpy as np

import fnn
from fnn.studies.configurations import as_space
from fnn.studies.runs import Run, RunId


def identity(x: Any) -> Any:
    return x


SPACE = {
    "learning_rate": fnn.log_uniform(1e-4, 1.0),
    "rate": fnn.uniform(0.0, 0.5),
    "width": fnn.choice([128, 8, 32], static=True),
    "activation": fnn.choice([np.tanh, identity], static=True),
}


def loss_at(step: int, trial: int, seed: int) -> float:
    return (1.0 + trial) * 0.9 ** (step / 10) + 0.01 * seed


def studied(
    trials: int = 6,
    seeds: int = 2,
    *,
    space: Any = None,
    diverged: int = 0,
    measured: Callable[[int, int, int], float] = loss_at,
    maximize: bool = False,
) -> fnn.StudyResult:
    """A study whose trial 0 is the best, in which the last trials diverged after two of ten measurements."""
    space = as_space(SPACE if space is None else space)
    runs = []
    for trial in range(trials):
        for seed in range(seeds):
            ended = trial >= trials - diverged
            steps = list(range(10, 30 if ended else 110, 10))
            values = [measured(step, trial, seed) for step in steps]
            best = (max if maximize else min)(values)
            status = "diverged" if ended else "finished"
            runs.append(Run(RunId(trial, seed, 0), status, steps[-1], best, steps[-1], steps, {"loss": values}))
    return fnn.StudyResult(
        space=space,
        configurations=space.draw([0], trials),
        runs=runs,
        monitor="loss",
        maximize=maximize,
        at="best",
        networks=lambda configuration: fnn.dense(1),
        kept={},
        predictions=None,
        remarks=[],
    )
