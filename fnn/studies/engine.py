"""Trainings side by side: one executable of a fixed width for each static choice, and how it is chosen."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fnn.studies.compiled import Axes, Lowered, Traced, lowered, trace
from fnn.studies.trial import Lane, Place, Program, Table

Mode = Literal["vmap", "loop", "sharded"]


@dataclass
class Engine:
    """The compiled functions of one static choice, for ``width`` networks at a time.

    Attributes:
        program: The pure functions of one network.
        mode: ``"vmap"``, ``"loop"`` (width 1: one network after another) or ``"sharded"``.
        width: How many networks a call trains.
        table: The data.
        key: The study's key.
        mesh: For ``"sharded"``: its first axis is that of the networks.
        traces: The functions of one network, each traced once for all engines of a static choice.
        compiling: Seconds that it took to compile, now or before.
        advancing: The program that trains.
    """

    program: Program
    mode: Mode
    width: int
    table: Table
    key: jax.Array
    mesh: Mesh | None = None
    traces: dict[str, Traced] = field(default_factory=dict)
    compiling: float = field(default=0.0, init=False)
    advancing: Any = field(default=None, init=False)
    _compiled: dict[str, Any] = field(default_factory=dict, init=False)

    def prepare(self, places: Place) -> "Engine":
        """Compile what training takes; ``places`` is an example."""
        traces = self.trace(jax.tree.map(lambda leaf: leaf[0], places))
        start = self._lower(traces["start"], (None, 0, None), self.key, places, self.table, quickly=True)
        with ThreadPoolExecutor(1) as pool:
            compiled = pool.submit(start.compiled)  # while the other is lowered
            args = (self.key, start.outputs, places, self.table, np.int32(1))
            advance = self._lower(traces["advance"], (None, 0, 0, None, None), *args, donate=1)
            self._compiled["advance"] = advance.compiled()
            self._compiled["start"] = compiled.result()
        self.compiling, self.advancing = start.seconds + advance.seconds, advance
        return self

    def trace(self, place: Place, *, predicts: bool = False) -> dict[str, Traced]:
        """Trace what training takes, and predictions if they are wanted, of one network; ``place`` is an example."""
        program, traces = self.program, self.traces
        with explained():
            if "start" not in traces:
                traces["start"] = trace(program.start, self.key, place, self.table)
            lane = traces["start"].outputs
            if "advance" not in traces:
                traces["advance"] = trace(program.advance, self.key, lane, place, self.table, np.int32(1))
            if predicts and "predict" not in traces:
                traces["predict"] = trace(program.predict, lane, place, self.table)
        return traces

    @property
    def workers(self) -> int:
        """How many calls are under way at a time: a CPU runs small operations on one core, whatever it has."""
        return cores() if jax.default_backend() == "cpu" and self.mesh is None else 1

    def start(self, places: Place) -> Lane:
        """Lanes before their first step."""
        return self._compiled["start"](self.key, self._put(places), self.table)

    def advance(self, lanes: Lane, places: Place, steps: int) -> tuple[Lane, dict[str, Any]]:
        """Train each lane for some steps and measure it; ``lanes`` is used up."""
        return self._compiled["advance"](self.key, lanes, self._put(places), self.table, np.int32(steps))

    def predict(self, lanes: Lane, places: Place) -> Any:
        """Outputs of each lane for the rows that its fold holds out."""
        args = (lanes, self._put(places), self.table)
        if "predict" not in self._compiled:
            traces = self.trace(jax.tree.map(lambda leaf: leaf[0], places), predicts=True)
            self._compiled["predict"] = self._lower(traces["predict"], (0, 0, None), *args).compiled()
        return self._compiled["predict"](*args)

    def memory(self) -> int:
        """Bytes that training takes beyond the data, as the compiler counts them; 0 where it does not."""
        found = self._compiled["advance"].memory_analysis()
        return 0 if found is None else int(found.temp_size_in_bytes + found.output_size_in_bytes)

    def _put(self, places: Place) -> Place:
        """Onto the devices of the mesh, if there is one."""
        if self.mesh is None:
            return places
        return jax.device_put(places, NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names[0])))

    def _lower(self, traced: Traced, axes: Axes, *args: Any, **options: Any) -> Lowered:
        with explained():
            return lowered(traced, axes, args, together=self.mode != "loop", mesh=self.mesh, **options)


@jax.jit
def replace(lanes: Lane, new: Lane, which: jax.Array) -> Lane:
    """Lanes of which some are replaced."""
    choose = lambda new, old: jnp.where(which.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
    return jax.tree.map(choose, new, lanes)


@contextmanager
def explained() -> Iterator[None]:
    """Say what to do where a trial needs the value of a hyperparameter while it is compiled."""
    try:
        yield
    except Exception as error:
        traced = isinstance(error, jax.errors.ConcretizationTypeError) or (
            isinstance(error, TypeError | ValueError) and re.search(r"\b\w*Tracer|Traced<", str(error))
        )
        if not traced:
            raise
        raise ValueError(
            "the trial needs the value of a hyperparameter while it is compiled, for a shape, a Python if or an int; "
            "mark it as static, fnn.choice([...], static=True), so that each value gets a program of its own"
        ) from error


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
