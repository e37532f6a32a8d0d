"""A metric that takes most of a step's time is told of."""

import warnings
from collections.abc import Callable, Iterator
from itertools import count
from time import perf_counter
from typing import Any

import jax

from fnn.metrics.streaming import Metric
from fnn.training.loop import Report
from fnn.training.objective import Supervised, split_batch
from fnn.training.step import Objective
from fnn.training.watch import Watch

PATIENCE = 10  # seconds of training, before metrics are measured
FEWEST, MOST = 3, 50  # calls to measure, of one second altogether


class Costs:
    """Measures metrics once, by themselves, when training has taken a while.

    Args:
        objective: Whose metrics.
        watch: More metrics of each step.
    """

    def __init__(self, objective: Objective, watch: Watch | None):
        metrics = objective.metrics if isinstance(objective, Supervised) else {}
        self._metrics = {name: metric for name, metric in metrics.items() if not isinstance(metric, Metric)}
        self._objective, self._watch, self._began = objective, watch, perf_counter()
        self._done = not (self._metrics or watch) or jax.process_count() > 1

    def around(self, reports: Iterator[Report], batch: Callable[[], Any]) -> Iterator[Report]:
        """Pass reports on, and tell once of a metric that takes more than half of a step.

        Args:
            reports: From the loop.
            batch: Gives one of the batches.
        """
        for number in count():
            began = perf_counter()
            report = next(reports, None)
            if report is None:
                return
            seconds = (perf_counter() - began) / report.steps  # the first is mostly compilation
            if number and not self._done and perf_counter() - self._began > PATIENCE:
                self._done = True
                self._judge(report.run, batch, seconds)
            yield report

    def _judge(self, run: Any, batch: Callable[[], Any], seconds: float) -> None:
        if self._watch is not None:
            took = _seconds(self._watch, run.params, run.params, run.params, run.opt_state)
            _tell("watch", took, seconds, "measure less")
        if self._metrics:
            y, target = _predict(self._objective, run, batch())
            for name, metric in self._metrics.items():
                advice = f"to measure it in evaluation only: metrics={{{name!r}: fnn.mean(...)}}"
                _tell(f"the metric {name!r}", _seconds(metric, y, target), seconds, advice)


def _tell(name: str, took: float, step: float, advice: str) -> None:
    if took > step / 2:
        message = f"{name} takes {1e3 * took:.2g} ms of the {1e3 * step:.2g} ms of a step; {advice}"
        warnings.warn(message, UserWarning, stacklevel=2)


def _predict(objective: Any, run: Any, batch: Any) -> tuple[Any, Any]:
    x, target, _ = split_batch(batch)
    xs = (x,) if objective.inputs is None else objective.inputs(x)
    return jax.jit(lambda params, state: objective.net.apply(params, state, *xs)[0])(run.params, run.state), target


def _seconds(function: Callable[..., Any], *args: Any) -> float:
    """What a compiled function takes beyond a call of nothing; of many the shortest, as a machine does other work."""
    return max(0.0, _shortest(jax.jit(function), args) - _shortest(jax.jit(lambda *_: ()), args))


def _shortest(compiled: Callable[..., Any], args: Any) -> float:
    jax.block_until_ready(compiled(*args))
    times: list[float] = []
    while len(times) < FEWEST or (len(times) < MOST and sum(times) < 1.0):
        began = perf_counter()
        jax.block_until_ready(compiled(*args))
        times.append(perf_counter() - began)
    return min(times)
