"""Trainings side by side: one executable of a fixed width for each static choice, and how it is chosen."""

import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fnn.studies.compiled import Axes, Lowered, lowered
from fnn.studies.trial import Lane, Place, Program, Table

Mode = Literal["vmap", "loop", "sharded"]

WIDTHS = {"cpu": 64}  # at most: beyond it the parameters of all networks no longer fit the caches
WIDTH = 512  # at most, elsewhere
TRIED = 0.05  # seconds that a try takes at least, where the study has so many steps
MEMORY = 0.5  # part of the device's free memory that the networks may take


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
        compiling: Seconds that it took to compile, now or before.
    """

    program: Program
    mode: Mode
    width: int
    table: Table
    key: jax.Array
    mesh: Mesh | None = None
    compiling: float = 0.0
    _compiled: dict[str, Any] = field(default_factory=dict)

    def prepare(self, places: Place) -> "Engine":
        """Compile what training takes; ``places`` is an example."""
        start = self._lower("start", (None, 0, None), self.key, places, self.table, quickly=True)
        args = (self.key, start.outputs, places, self.table, np.int32(1))
        advance = self._lower("advance", (None, 0, 0, None, None), *args, donate=1)
        with ThreadPoolExecutor(1) as pool:
            compiled = pool.submit(start.compiled)
            self._compiled["advance"] = advance.compiled()
            self._compiled["start"] = compiled.result()
        self.compiling = start.seconds + advance.seconds
        return self

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
            self._compiled["predict"] = self._lower("predict", (0, 0, None), *args).compiled()
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

    def _lower(self, name: str, axes: Axes, *args: Any, **options: Any) -> Lowered:
        function, key = getattr(self.program, name), (name, self.program.key())
        with explained():
            return lowered(function, key, axes, args, together=self.mode != "loop", mesh=self.mesh, **options)


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


def choose(
    program: Program,
    table: Table,
    key: jax.Array,
    examples: Callable[[int], Place],
    runs: int,
    steps: int,
    every: int,
    mode: str,
    width: int | Literal["auto"],
    mesh: Mesh | None,
) -> tuple[Engine, str]:
    """Compile the trainings of one static choice in the way that is fastest here.

    Args:
        program: The pure functions of one network.
        table: The data.
        key: The study's key.
        examples: ``examples(width)``: places, to compile for and to try.
        runs: How many trainings there are.
        steps: Steps of all of them together.
        every: Steps between measurements.
        mode: ``"vmap"``, ``"loop"`` or ``"auto"``.
        width: How many side by side, or ``"auto"``.
        mesh: Devices to spread them over, if any.

    Returns:
        The engine, and why it was chosen.
    """
    if mesh is not None:
        size = mesh.shape[mesh.axis_names[0]]
        most = WIDTHS.get(jax.default_backend(), WIDTH) * size
        wide = -(-(width if isinstance(width, int) else _even(runs, most)) // size) * size
        table, key = jax.device_put((table, key), NamedSharding(mesh, PartitionSpec()))
        engine = Engine(program, "sharded", wide, table, key, mesh).prepare(examples(wide))
        return engine, f"{wide} networks at a time over {size} devices"
    loop = Engine(program, "loop", 1, table, key)
    if mode == "loop" or (mode == "auto" and (runs == 1 or width == 1)):
        return loop.prepare(examples(1)), "one network after another"
    if isinstance(width, int):
        together = Engine(program, "vmap", width, table, key).prepare(examples(width))
    else:
        together = _fitting(program, table, key, examples, runs)
    side_by_side = f"{together.width} networks side by side"
    if mode == "vmap":
        return together, side_by_side
    seconds = _seconds(together, examples(together.width), every)
    if seconds * steps < 2 * together.compiling:  # another program would take longer to compile than it could save
        return together, side_by_side
    alone = _seconds(loop.prepare(examples(1)), examples(1), every)
    chosen, other, ratio = (together, "one after another", alone / seconds)
    if alone < seconds:
        chosen, other, ratio = (loop, "side by side", seconds / alone)
    name = side_by_side if chosen is together else "one network after another"
    return chosen, f"{name}, {ratio:.2f} times as fast as {other}"


def _fitting(program: Program, table: Table, key: jax.Array, examples: Callable[[int], Place], runs: int) -> Engine:
    """An engine as wide as memory allows."""
    room, most = free_memory() * MEMORY, WIDTHS.get(jax.default_backend(), WIDTH)
    while True:
        engine = Engine(program, "vmap", _even(runs, most), table, key).prepare(examples(_even(runs, most)))
        if engine.memory() <= room or engine.width == 1:
            return engine
        most = max(1, min(engine.width // 2, int(engine.width * room / engine.memory())))


def _even(runs: int, most: int) -> int:
    """The smallest width that takes no more calls than ``most`` would."""
    return -(-runs // -(-runs // most))


def free_memory() -> float:
    """Bytes that the first device has left."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _seconds(engine: Engine, places: Place, every: int) -> float:
    """Seconds of one network's step, with its share of the measurements; a few steps are tried."""
    lanes = engine.start(places)

    def call(steps: int) -> float:
        nonlocal lanes
        began = time.perf_counter()
        lanes, _ = engine.advance(lanes, places, steps)
        jax.block_until_ready(lanes)
        return time.perf_counter() - began

    call(1)
    measuring, steps = call(1), 2
    while (taken := call(1 + steps)) - measuring < TRIED and steps < every:
        steps = min(4 * steps, every)
    return ((taken - measuring) / steps + measuring / every) / engine.width
