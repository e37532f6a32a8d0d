"""How the trainings of one static choice are run: side by side or one after another, and how many at a time."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fnn.studies.compiled import Traced, Tried
from fnn.studies.engine import Engine
from fnn.studies.trial import Place, Program, Table

WIDTHS = {"cpu": 64}  # at most: beyond it the parameters of all networks no longer fit the caches
WIDTH = 512  # at most, elsewhere
TRIED = 0.05  # seconds that a try takes at least, where the study has so many steps
FEW = 4  # steps of the first call of a try
WORTH = 4  # times that of compiling: what training must take for another program to be tried
ALONE = "one network after another"
ASSUMED = 8 * 2**30  # bytes of memory, where the system does not say
MEMORY = 0.5  # part of the device's free memory that the networks may take


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
    traces: dict[str, Traced],
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
        traces: What is traced of ``program`` already; what is missing is added.

    Returns:
        The engine, and why it was chosen.
    """
    if mesh is not None:
        size = mesh.shape[mesh.axis_names[0]]
        most = WIDTHS.get(jax.default_backend(), WIDTH) * size
        wide = -(-(width if isinstance(width, int) else _even(runs, most)) // size) * size
        table, key = jax.device_put((table, key), NamedSharding(mesh, PartitionSpec()))
        engine = Engine(program, "sharded", wide, table, key, mesh, traces).prepare(examples(wide))
        return engine, f"{wide} networks at a time over {size} devices"
    loop = Engine(program, "loop", 1, table, key, None, traces)
    if mode == "loop" or (mode == "auto" and (runs <= loop.workers or width == 1)):
        return loop.prepare(examples(1)), ALONE
    if isinstance(width, int):
        together = replace(loop, mode="vmap", width=width).prepare(examples(width))
    else:
        together = _fitting(replace(loop, mode="vmap"), examples, runs)
    side_by_side = f"{together.width} networks side by side"
    if mode == "vmap":
        return together, side_by_side
    least = WORTH * together.compiling / steps
    seconds = _seconds(together, examples(together.width), every, least)
    if seconds < least:  # it would take longer to compile another than that may save
        return together, side_by_side
    alone = _seconds(loop.prepare(examples(1)), examples(1), every, 0)
    if alone < seconds:
        return loop, f"{ALONE}, {seconds / alone:.2f} times as fast as {side_by_side}"
    return together, f"{side_by_side}, {alone / seconds:.2f} times as fast as {ALONE}"


def _fitting(engine: Engine, examples: Callable[[int], Place], runs: int) -> Engine:
    """The engine, as wide as memory allows, with work for every worker."""
    room, most = free_memory() * MEMORY, WIDTHS.get(jax.default_backend(), WIDTH)
    while True:
        width = _even(runs, min(most, -(-runs // engine.workers)))
        engine = replace(engine, width=width).prepare(examples(width))
        taken = engine.memory() * engine.workers
        if taken <= room or width == 1:
            return engine
        most = max(1, min(width // 2, int(width * room / taken)))


def _even(runs: int, most: int) -> int:
    """The smallest width that takes no more calls than ``most`` would."""
    return -(-runs // -(-runs // most))


def free_memory() -> float:
    """Bytes that the first device has left."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return host_memory()


def host_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes of this machine's memory, or of its container's (cgroup versions 2 and 1), whichever is less."""
    try:
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):  # such as on Windows
        limits = [ASSUMED]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file, or "max"
            limits.append(int((cgroup / name).read_text()))
    return min(limits)


def _seconds(engine: Engine, places: Place, every: int, least: float) -> float:
    """Seconds of one network's step, with its share of the measurements, where all workers are busy.

    Measured once for each program. Where a first call shows that it is less than ``least``, that call is all, and what
    is returned is more than the truth.
    """
    found = engine.advancing.tried
    if found is not None and (found.exact or found.seconds < least):
        return found.seconds
    banks = [engine.start(places) for _ in range(engine.workers)]
    networks = engine.width * len(banks)

    def advance(number: int, steps: int) -> None:
        banks[number], _ = engine.advance(banks[number], places, steps)
        jax.block_until_ready(banks[number])

    with ThreadPoolExecutor(len(banks)) as pool:

        def call(steps: int) -> float:
            began = time.perf_counter()
            list(pool.map(lambda number: advance(number, steps), range(len(banks))))
            return time.perf_counter() - began

        bound = call(few := min(FEW, every)) / few / networks
        if bound < least:
            engine.advancing.tried = Tried(bound, exact=False)
            return bound
        measuring, steps = min(call(1), call(1)), 2
        while (taken := call(1 + steps)) - measuring < TRIED and steps < every:
            steps = min(4 * steps, every)
        taken = min(taken, call(1 + steps))  # what else the machine does is in the longer one
    engine.advancing.tried = Tried(((taken - measuring) / steps + measuring / every) / networks, exact=True)
    return engine.advancing.tried.seconds
