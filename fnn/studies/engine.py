"""Trainings side by side: one executable of a fixed width for each static choice, and how it is chosen."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fnn.studies.compiled import Axes, Lowered, Traced, lowered, trace
from fnn.studies.trial import Lane, Place, Program, Table

VALUES = (  # errors of JAX where the value of a traced array is needed
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
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
        """Trace what training takes, and predictions if they are wanted, of one network.

        Args:
            place: An example.
            predicts: Whether predictions are wanted.

        Raises:
            ValueError: when the trial needs the value of a hyperparameter.
        """
        try:
            _trace(self.program, self.traces, self.key, place, self.table, predicts)
        except (TypeError, ValueError, IndexError) as error:
            other = self._error_with_values(place, predicts)
            if other is not None and isinstance(other, VALUES) == isinstance(error, VALUES):
                raise  # the hyperparameters have nothing to do with it
            raise ValueError(
                "the trial needs the value of a hyperparameter while it is compiled, for a shape, a Python if or an "
                "int; mark it as static, fnn.choice([...], static=True), so that each value gets a program of its own"
            ) from error
        return self.traces

    def _error_with_values(self, place: Place, predicts: bool) -> Exception | None:
        """What is wrong with a trial where its hyperparameters are numbers of Python."""
        values = {name: value.item() for name, value in place.hp.items()}
        program = dataclasses.replace(self.program, static={**self.program.static, **values})
        try:
            _trace(program, {}, self.key, place._replace(hp={}), self.table, predicts)
        except Exception as error:
            return error
        return None

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
        return lowered(traced, axes, args, together=self.mode != "loop", mesh=self.mesh, **options)


def _trace(
    program: Program, traces: dict[str, Traced], key: jax.Array, place: Place, table: Table, predicts: bool
) -> None:
    """Add what is missing to ``traces``."""
    if "start" not in traces:
        traces["start"] = trace(program.start, key, place, table)
    lane = traces["start"].outputs
    if "advance" not in traces:
        traces["advance"] = trace(program.advance, key, lane, place, table, np.int32(1))
    if predicts and "predict" not in traces:
        traces["predict"] = trace(program.predict, lane, place, table)


@jax.jit
def replace(lanes: Lane, new: Lane, which: jax.Array) -> Lane:
    """Lanes of which some are replaced."""
    choose = lambda new, old: jnp.where(which.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
    return jax.tree.map(choose, new, lanes)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
